"""Syslog by RELP, plain or TLS: a record is acknowledged only once what was made of it is kept.
Counterpart: relp_frames.py cuts connections into frames; syslog.py listens, and knows senders and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.sources.connections import ConnectionEnd
from vedette.sources.relp_frames import SERVER_CLOSE, FrameError, RelpFrames, answer
from vedette.sources.settings import RelpSettings, seconds
from vedette.sources.syslog import Heard, Sender, SyslogSource
from vedette.sources.syslog_sockets import Listeners

NAME = "relp"
MOST_UNREAD = 1 << 18
"""Bytes of answers a sender may leave unread."""
_OFFERS = b"200 OK\nrelp_version=%d\nrelp_software=vedette\ncommands=syslog"

Kept = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """Where there is no shelf, the end of `emit` is all that can be waited for."""


class RelpSource(SyslogSource):
    """Listens on `settings.listen`, TCP and TLS. Origins as those of syslog, with `relp:` before them.

    kept: awaits until everything that was emitted so far is safely stored. What was read and not acknowledged when
    a connection ends is sent again by its sender: it may come twice, it is not lost.
    """

    name = NAME

    def __init__(
        self,
        settings: RelpSettings,
        listeners: Listeners,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        kept: Kept = at_once,
    ) -> None:
        super().__init__(settings, listeners, host_id=host_id, clock=clock, counter=counter)
        self._kept = kept
        self._emitted: dict[Sender, int] = {}
        self._told = asyncio.Event()

    async def _pump(self, emit: Emit) -> None:
        async def told(sender: Sender, until: int) -> None:
            self._emitted[sender] = until
            event, self._told = self._told, asyncio.Event()
            event.set()

        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            sender = self._waiting[0]
            batch = self._batch()
            self._room.set()
            await emit(batch)
            await told(sender, sender.position)

    async def _read(self, reader: Heard, writing: asyncio.Transport, sender: Sender) -> ConnectionEnd:
        frames = RelpFrames(self._settings.max_record)
        idle = seconds(self._settings.idle)
        opened = False
        try:
            while True:
                await self._until_room(sender)
                data = await reader.next(idle)
                if not data:
                    return ConnectionEnd.CUT_OFF if frames.begun else ConnectionEnd.CLOSED
                waiting: list[int] = []
                for frame in frames.feed(data):
                    if frame.command == b"open" and not opened:
                        opened = True
                        version = 0 if b"relp_version=0" in frame.data.split(b"\n") else 1
                        writing.write(answer(frame.txnr, _OFFERS % version))
                    elif frame.command == b"syslog" and opened:
                        self._take(sender, [frame.data] if frame.data else [], int(frame.cut))
                        waiting.append(frame.txnr)
                    elif frame.command == b"close":
                        await self._acknowledge(writing, sender, waiting)
                        writing.write(answer(frame.txnr, b"") + SERVER_CLOSE)
                        # What is written goes out before the end, as far as the peer takes it.
                        writing.close()
                        await asyncio.sleep(0)
                        return ConnectionEnd.CLOSED
                    else:
                        writing.write(answer(frame.txnr, b"500 not possible here"))
                await self._acknowledge(writing, sender, waiting)
                if writing.get_write_buffer_size() > MOST_UNREAD:
                    return ConnectionEnd.UNREAD
        except FrameError:
            return ConnectionEnd.BAD_FRAME
        except TimeoutError:
            return ConnectionEnd.IDLE
        except OSError:
            return ConnectionEnd.RESET

    async def _acknowledge(self, writing: asyncio.Transport, sender: Sender, waiting: list[int]) -> None:
        if not waiting:
            return
        until = sender.position + len(sender.records)
        while self._emitted.get(sender, 0) < until:
            await self._told.wait()
        await self._kept()
        writing.write(b"".join(answer(txnr, b"200 OK") for txnr in waiting))
        waiting.clear()

"""From the spool to the hub: a window for each lane, sent again until the hub itself says that it has it.
Counterpart: `fleet.spool` is emptied, `fleet.transport` carries; a broker's acknowledgement frees nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from vedette.fleet import messages
from vedette.fleet.link import LinkError
from vedette.fleet.messages import Confirm, MessageError
from vedette.fleet.segments import START, Entry, Place
from vedette.fleet.spool import Spool
from vedette.model.clock import SECOND, Clock
from vedette.model.fleet import LinkReason
from vedette.model.protocols import Counter
from vedette.model.shipping import BatchKey, Lane, Report, SourceState

log = structlog.get_logger()

AGAIN_AFTER = 30 * SECOND
"""Without a confirm a message is sent again; the hub leaves out what it has."""
REPORT_EVERY = 5.0
_AT_ONCE = {Lane.SECURITY: 8 << 20, Lane.BULK: 2 << 20}
"""Bytes the broker has not taken yet: what a message of security may have to wait behind."""
_MOST_AT_ONCE = 64
_MOST_UNDER_WAY = 8192
_READ_BYTES = 1 << 20
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LOOK_EVERY = 1.0
_GAP_SUFFIX = "#dropped"

_Key = tuple[str, int, bool]


class Transport(Protocol):
    """What carries messages; LinkError where one did not go through. A confirm that comes goes to `confirmed`."""

    async def publish(self, key: BatchKey, lane: Lane, packed: bytes, seconds: float = ...) -> None:
        """Returns once the broker has it on its disk."""
        ...

    async def report(self, packed: bytes, seconds: float = ...) -> None:
        """Say how we stand; may get lost."""
        ...

    async def ask(self, packed: bytes, seconds: float = ...) -> bytes:
        """The hub's answer to a report: a confirm of all that it has of this host."""
        ...


@dataclass(frozen=True, slots=True)
class Self:
    """What a report says that does not change. sources: how they stand now; bundle: of rules and policy in force."""

    host_id: str
    host_name: str
    version: str
    sources: Callable[[], Mapping[str, SourceState]]
    bundle: Callable[[], int] = lambda: 0


@dataclass(slots=True)
class _Flight:
    """A message under way. sent_at: microseconds, 0 = not yet, or to be sent again."""

    entry: Entry
    sent_at: int = 0
    sending: bool = False


class _Line:
    """One lane: what is under way, in order, and up to where the spool was read."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.after: Place = START
        self.flights: dict[_Key, _Flight] = {}
        self.bytes = 0
        self.unsent: deque[_Flight] = deque()
        self.sending = self.sending_bytes = 0
        self.looked_at = 0

    def add(self, entry: Entry) -> None:
        """What the spool gave; once."""
        key = _key(entry)
        if key not in self.flights:
            flight = self.flights[key] = _Flight(entry)
            self.bytes += len(entry.packed)
            self.unsent.append(flight)

    def remove(self, key: _Key) -> None:
        """It is there."""
        self.bytes -= len(self.flights.pop(key).entry.packed)

    def order(self) -> None:
        """Some are to be sent again: the oldest first."""
        self.unsent = deque(each for each in self.flights.values() if not each.sent_at and not each.sending)


class Shipper:
    """Ships until cancelled. `confirmed` and `connected` are what the transport calls, in the event loop.

    At most `window` bytes of a lane are under way, so that a hub that is away costs no memory: what comes
    meanwhile stays in the spool. Security goes first. In the spool nothing is freed but what a confirm names.
    """

    def __init__(
        self, spool: Spool, transport: Transport, me: Self, *, clock: Clock, counter: Counter, window: int = 16 << 20
    ) -> None:
        self._spool, self._transport, self._me = spool, transport, me
        self._clock, self._counter, self._window = clock, counter, window
        self._lines = [_Line(lane) for lane in Lane]
        self._tasks: set[asyncio.Task[None]] = set()
        self._session = secrets.token_hex(8)
        self._started_at = clock.now()
        self._sequence = 0
        self._pause = 0.0
        self._not_before = 0.0
        self._due = asyncio.Event()
        self._asking = asyncio.Event()

    async def run(self) -> None:
        """Ship and report until cancelled; the last report says that this ends on purpose."""
        loop = asyncio.get_running_loop()

        def woken() -> None:
            with suppress(RuntimeError):
                # The loop may have ended meanwhile.
                loop.call_soon_threadsafe(self._due.set)

        end = self._spool.listen(woken)
        self._asking.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ship())
                group.create_task(self._report())
                group.create_task(self._ask())
        finally:
            end()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with suppress(LinkError, TimeoutError, MessageError):
                await self._transport.report(messages.pack_report(self.report(stopping=True)))

    def connected(self) -> None:
        """There is a connection, maybe to another hub: send what waits, and ask what is there."""
        self._pause = self._not_before = 0.0
        self._asking.set()
        self._due.set()

    def confirmed(self, data: bytes) -> None:
        """The hub says what it has. What is no confirm, or another host's, is counted and changes nothing."""
        try:
            confirm = messages.unpack_confirm(data)
        except MessageError as error:
            self._counter.add("confirms_refused", error.reason)
            return
        if confirm.host_id != self._me.host_id:
            self._counter.add("confirms_refused", "other-host")
            return
        self._spool.free_all(confirm.host_id, confirm.through, confirm.beyond)
        for line in self._lines:
            for key in [key for key in line.flights if _has(confirm, key)]:
                line.remove(key)
        for stream, ranges in confirm.wants.items():
            self._spool.want(stream, ranges)
            self._send_again(stream, ranges)
        self._due.set()

    def report(self, *, stopping: bool = False) -> Report:
        """How we stand now; each has the next sequence number."""
        self._sequence += 1
        me = self._me
        return Report(
            host_id=me.host_id,
            host_name=me.host_name,
            session=self._session,
            sequence=self._sequence,
            at=self._clock.now(),
            started_at=self._started_at,
            version=me.version,
            sources={**self._spool.states(), **me.sources()},
            bundle=me.bundle(),
            spooled=self._spool.waiting,
            stopping=stopping,
        )

    # ------------------------------------------------------------------------------------------ what goes

    async def _ship(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due.clear()
            wait = self._not_before - loop.time()
            if wait <= 0:
                await self._fill()
                wait = _LOOK_EVERY
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait, _LOOK_EVERY)):
                    await self._due.wait()

    async def _fill(self) -> None:
        """Hand over as much as fits; security first, and in each lane what is to be sent again."""
        now = self._clock.now()
        for line in self._lines:
            self._look_again(line, now)
            while self._start(line):
                room = self._window - line.bytes
                if room <= 0 or len(line.flights) >= _MOST_UNDER_WAY:
                    break
                before = line.after
                got = await asyncio.to_thread(self._spool.read, line.lane, before, min(room, _READ_BYTES))
                if not got:
                    break
                if line.after == before:
                    # Else it was set back meanwhile.
                    line.after = got[-1].place
                for entry in got:
                    line.add(entry)

    def _look_again(self, line: _Line, now: int) -> None:
        """Once in a while: what nobody confirmed is sent again."""
        if line.looked_at <= now < line.looked_at + SECOND:
            return
        line.looked_at = now
        late = [
            each
            for each in line.flights.values()
            if each.sent_at and not each.sent_at <= now < each.sent_at + AGAIN_AFTER
        ]
        for flight in late:
            flight.sent_at = 0
        if late:
            self._counter.add("shipped_again", line.lane, len(late))
            line.order()

    def _start(self, line: _Line) -> bool:
        """Hand over what waits; False where enough is being handed over already."""
        while line.unsent:
            if line.sending >= _MOST_AT_ONCE or line.sending_bytes >= _AT_ONCE[line.lane]:
                return False
            flight = line.unsent.popleft()
            if line.flights.get(_key(flight.entry)) is not flight:
                # Confirmed meanwhile.
                continue
            flight.sending = True
            line.sending += 1
            line.sending_bytes += len(flight.entry.packed)
            task = asyncio.create_task(self._publish(line, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _publish(self, line: _Line, flight: _Flight) -> None:
        key = flight.entry.key
        if flight.entry.gap:
            # Not to be taken for the batch of that number, which may be under way too.
            key = BatchKey(key.host_id, key.stream + _GAP_SUFFIX, key.number)
        try:
            await self._transport.publish(key, line.lane, flight.entry.packed)
        except (LinkError, TimeoutError) as error:
            reason = error.reason if isinstance(error, LinkError) else LinkReason.TIMEOUT
            self._counter.add("shipping_failed", reason)
            if reason is LinkReason.TOO_LARGE:
                # The others must not wait for it.
                flight.sent_at = max(self._clock.now(), 1)
            else:
                self._pause = min(max(2 * self._pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
                self._not_before = asyncio.get_running_loop().time() + self._pause
        else:
            flight.sent_at = max(self._clock.now(), 1)
            self._pause = 0.0
            self._counter.add("shipped_bytes", line.lane, len(flight.entry.packed))
        finally:
            flight.sending = False
            line.sending -= 1
            line.sending_bytes -= len(flight.entry.packed)
            if not flight.sent_at:
                line.order()
            self._due.set()

    def _send_again(self, stream: str, ranges: tuple[tuple[int, int], ...]) -> None:
        for line in self._lines:
            for (name, number, _), flight in line.flights.items():
                if name == stream and any(first <= number <= last for first, last in ranges):
                    flight.sent_at = 0
            line.order()
            # What is not under way any more is read again from the beginning; what is freed is left out there.
            line.after = START

    # ------------------------------------------------------------------------------------------ what is said

    async def _report(self) -> None:
        while True:
            try:
                await self._transport.report(messages.pack_report(self.report()))
            except (LinkError, TimeoutError):
                self._counter.add("reports_failed")
            except MessageError as error:
                self._counter.add("reports_failed", error.reason)
            await asyncio.sleep(REPORT_EVERY)

    async def _ask(self) -> None:
        """At each new connection: what the hub has already need not be sent, and what it lost must be."""
        while True:
            await self._asking.wait()
            self._asking.clear()
            try:
                answer = await self._transport.ask(messages.pack_report(self.report()))
                self.confirmed(answer)
                self._spool.answer(messages.unpack_confirm(answer).known())
            except MessageError as error:
                self._counter.add("confirms_refused", error.reason)
            except (LinkError, TimeoutError):
                self._counter.add("questions_failed")
                await asyncio.sleep(_LONGEST_PAUSE)
                self._asking.set()


def _key(entry: Entry) -> _Key:
    return entry.key.stream, entry.key.number, entry.gap


def _has(confirm: Confirm, key: _Key) -> bool:
    stream, number, gap = key
    if number <= confirm.through.get(stream, 0):
        return True
    return not gap and any(first <= number <= last for first, last in confirm.beyond.get(stream, ()))

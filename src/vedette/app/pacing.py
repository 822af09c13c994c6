"""What busy sources read is judged and kept in few batches: the first at once, then some times a second.
Counterpart: `app.up` hands on what comes of it; `fleet.lanes` tells what must not wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vedette.model.batch import Batch, GivenHeader, Trust, UInt8

EVERY = 0.25
"""Seconds from one batch of a source to the next: each costs the engine, the shelf, the way and the hub as much as
hundreds of records do (decision 0021)."""
MOST = 256 << 10
"""Bytes that are held of a source; then it goes on, and the source waits until the engine has it."""
MOST_TOGETHER = 16 << 20
"""Bytes that are held of all sources, or wait for the engine: from there on each source waits with what it read."""
AGAIN = 0.01
_MANY = 1024

_PACED = ("file:", "journal", "syslog", "stdin")


def is_paced(source: str) -> bool:
    """Whether what a source of this name reads may be held: nobody is answered once it is stored."""
    return source.startswith(_PACED)


@dataclass(slots=True)
class _Source:
    """held: batches since the last one that went on, of so many bytes. next_at: when another may go on, loop time.

    taken: set once the engine has the last one. timer: looks at what is held, set whenever something is.
    """

    next_at: float = 0.0
    held: list[Batch] = field(default_factory=list)
    size: int = 0
    taken: asyncio.Event | None = None
    timer: asyncio.TimerHandle | None = None


class Pacing:
    """`emit` for any number of sources, in the loop's thread; `close` hands on what is held, after the last of them.

    put: hands a batch on; what comes back is set once the engine has it. hurries: whether a batch must not be held.
    """

    def __init__(self, put: Callable[[Batch], asyncio.Event], hurries: Callable[[Batch], bool]) -> None:
        self._put, self._hurries = put, hurries
        self._loop = asyncio.get_running_loop()
        self._sources: dict[str, _Source] = {}
        self._held = self._out = 0
        # Handed on and perhaps not taken yet, in their order, with their bytes.
        self._on_its_way: deque[tuple[asyncio.Event, int]] = deque()

    async def emit(self, batch: Batch) -> None:
        """Returns when the source may read on: at once where the batch is held, else when the engine has it."""
        one = self._source(batch.origin.source)
        hurried = self._hurries(batch)
        one.held.append(batch)
        one.size += len(batch.block)
        self._held += len(batch.block)
        enough = one.size >= MOST or self._together() >= MOST_TOGETHER
        if hurried or enough or (len(one.held) == 1 and self._loop.time() >= one.next_at):
            await self._hand_on(one).wait()
        elif one.timer is None:
            one.timer = self._loop.call_at(one.next_at, self._due, one)

    def _together(self) -> int:
        """Bytes that are held, or wait for the engine, which takes them in their order."""
        while self._on_its_way and self._on_its_way[0][0].is_set():
            self._out -= self._on_its_way.popleft()[1]
        return self._held + self._out

    def close(self) -> None:
        """Hand on what is held."""
        for one in self._sources.values():
            if one.held:
                self._hand_on(one)

    def _source(self, name: str) -> _Source:
        found = self._sources.get(name)
        if found is None:
            if len(self._sources) >= _MANY:
                now = self._loop.time()
                self._sources = {key: one for key, one in self._sources.items() if one.held or one.next_at > now}
            found = self._sources[name] = _Source()
        return found

    def _due(self, one: _Source) -> None:
        one.timer = None
        if one.taken is not None and not one.taken.is_set():
            # One batch of a source waits at most; what comes meanwhile grows up to `MOST`.
            one.timer = self._loop.call_later(AGAIN, self._due, one)
            return
        self._hand_on(one)

    def _hand_on(self, one: _Source) -> asyncio.Event:
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        batches, size, one.held, one.size = one.held, one.size, [], 0
        self._held -= size
        one.next_at = self._loop.time() + EVERY
        for batch in joined(batches):
            one.taken = self._put(batch)
        assert one.taken is not None
        self._on_its_way.append((one.taken, size))
        self._out += size
        return one.taken


# ------------------------------------------------------------------------------------------------ several as one


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """What was read of one source in turns, as one where nothing but the turns tells it apart; in the same order.

    Read when the last was, and its cursor is that of the last.
    """
    runs: list[list[Batch]] = []
    reached = 0
    for batch in batches:
        # Behind what was read before it, or the file was read from its beginning again.
        behind = not len(batch) or reached <= int(batch.positions[0])
        if runs and behind and _alike(runs[-1][-1], batch):
            runs[-1].append(batch)
        else:
            runs.append([batch])
        if len(batch):
            reached = int(batch.positions[-1])
    return [run[0] if len(run) == 1 else _as_one(run) for run in runs]


def _alike(one: Batch, other: Batch) -> bool:
    return (
        one.origin == other.origin
        and one.format is other.format
        and one.timezone == other.timezone
        and one.year == other.year
        and one.spooled == other.spooled
        and (one.header is None) == (other.header is None)
        # What says how far was read may say no less of both together.
        and bool(one.cursor) == bool(other.cursor)
    )


def _as_one(run: Sequence[Batch]) -> Batch:
    # A record must not touch the one before it.
    blocks = [one.block if one.block.endswith(b"\n") else one.block + b"\n" for one in run]
    shifts = np.cumsum([0, *map(len, blocks[:-1])]).tolist()
    dropped: dict[str, int] = {}
    for one in run:
        for reason, count in one.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    header = None
    if headers := [one.header for one in run if one.header is not None]:
        header = GivenHeader(
            time=np.concatenate([each.time for each in headers]),
            host=[name for each in headers for name in each.host],
            program=[name for each in headers for name in each.program],
            pid=np.concatenate([each.pid for each in headers]),
        )
    return replace(
        run[-1],
        block=b"".join(blocks),
        starts=np.concatenate([one.starts + shift for one, shift in zip(run, shifts, strict=True)]),
        ends=np.concatenate([one.ends + shift for one, shift in zip(run, shifts, strict=True)]),
        positions=np.concatenate([one.positions for one in run]),
        trust=_trust(run),
        header=header,
        dropped=dropped,
    )


def _trust(run: Sequence[Batch]) -> Trust | UInt8:
    first = run[0].trust
    if isinstance(first, Trust) and all(one.trust is first for one in run):
        return first
    levels = [np.full(len(one), one.trust, np.uint8) if isinstance(one.trust, Trust) else one.trust for one in run]
    return np.concatenate(levels)

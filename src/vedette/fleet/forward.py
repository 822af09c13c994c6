"""Sends on what is in the lake, in ingest order from a durable cursor: at least once, and nothing waits for it.
Counterpart: `forward_syslog`, `forward_http`, `forward_files` are the targets; `app.keeping` runs one of these each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from vedette.model.batch import Batch, Int64
from vedette.model.clock import SECOND, Clock
from vedette.model.events import Column
from vedette.model.protocols import Counter
from vedette.model.shipping import BatchKey
from vedette.system.files import write_atomic

log = structlog.get_logger()

READ_BYTES = 8 << 20
"""Of records, about as many as one look at the lake is to give."""
_FEWEST_BATCHES, _MOST_BATCHES = 16, 4096
GROUP_BYTES = 1 << 20
"""Of records, after which the cursor moves; a batch is not parted."""
LOOK_EVERY = 1.0
_LONGEST_PAUSE = 60.0
_SECURITY_SUFFIX = "#security"


class ForwardReason(StrEnum):
    """Why something was not sent on, yet or ever."""

    NETWORK_ERROR = "network-error"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate-limited"
    SERVER_ERROR = "server-error"
    MISCONFIGURED = "misconfigured"
    """The target, or a secret, is not as it must be; nothing is wrong with the records."""
    REFUSED = "refused"
    """The target will never take these records: they are left out."""
    DISK = "disk"
    LAKE = "lake"
    """It cannot be read."""
    DEFECT = "defect"


class ForwardError(Exception):
    """Not sent this time: it is tried again. retry_after: seconds the target asks for."""

    def __init__(self, reason: ForwardReason, detail: str, *, retry_after: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retry_after = retry_after


class Stored(Protocol):
    """A batch in the lake and where it stands in ingest order."""

    @property
    def sequence(self) -> int:
        """Counts up in ingest order."""
        ...

    @property
    def key(self) -> BatchKey:
        """Which batch."""
        ...

    @property
    def batch(self) -> Batch:
        """As it was put."""
        ...


@dataclass(frozen=True, slots=True)
class Headed:
    """What the headers of a batch say, one entry a record.

    time: int64[n], microseconds. host, program: text; pid, facility, severity: whole numbers; absent where not said.
    message: start and end of what stands behind the header, in the block.
    """

    time: Int64
    host: Column
    program: Column
    pid: Column
    facility: Column
    severity: Column
    message: tuple[Int64, Int64]


Heads = Callable[[Batch], Headed]


class Target(Protocol):
    """Takes groups of batches, one at a time."""

    async def send(self, group: Sequence[Stored], after: int) -> int:
        """Returns once the target has them; ForwardError or OSError to be called again. after: where the cursor is.

        The answer is how many records it refused for ever.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds; nothing is sent any more."""
        ...


class Cursor:
    """Up to which sequence number everything was sent, in a small file. OSError where it cannot be read or written."""

    def __init__(self, path: Path, counter: Counter) -> None:
        self.path = path
        self.after = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.after = msgspec.json.decode(path.read_bytes(), type=_Kept).after
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            # Rather twice than not at all.
            counter.add("forward_cursors_damaged", path.name)
            log.error("a cursor cannot be read: everything is sent on again", file=str(path), reason=str(error))

    def move(self, after: int) -> None:
        """Everything up to here was sent; durable on return."""
        write_atomic(self.path, msgspec.json.encode(_Kept(after)) + b"\n")
        self.after = after


class _Kept(msgspec.Struct):
    after: int
    version: int = 1


class Forwarder:
    """One target. `read(after, limit)` gives at most `limit` batches of the lake; it is called in a thread.

    streams, exclude: patterns of names. chance: 0 to 1. `run` ends by cancelling alone, whatever fails.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        cursor: Path,
        read: Callable[[int, int], Sequence[Stored]],
        *,
        clock: Clock,
        counter: Counter,
        streams: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._target, self._path, self._read = target, cursor, read
        self._clock, self._counter = clock, counter
        self._streams, self._exclude = tuple(streams), tuple(exclude)
        self._chance, self._sleep = chance, sleep
        self._cursor: Cursor | None = None
        self._limit = _FEWEST_BATCHES
        self._failures = 0
        self._waiting_since = 0

    @property
    def lag(self) -> int:
        """How long ago the oldest batch was read that is known and not sent, microseconds; 0 where none waits."""
        return max(self._clock.now() - self._waiting_since, 0) if self._waiting_since else 0

    async def run(self) -> None:
        """Send on until cancelled."""
        try:
            while True:
                try:
                    pause = LOOK_EVERY if not await self._pass() else 0.0
                except ForwardError as error:
                    pause = self._failed(error.reason, str(error), error.retry_after)
                except OSError as error:
                    pause = self._failed(ForwardReason.DISK, str(error))
                except Exception as error:  # noqa: BLE001 (a target that fails ends nothing else; it is tried again)
                    pause = self._failed(ForwardReason.DEFECT, f"{type(error).__name__}: {error}")
                await self._sleep(pause)
        finally:
            await self._target.close()

    async def _pass(self) -> bool:
        """Send what one look at the lake gives; False where that was nothing."""
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = await asyncio.to_thread(Cursor, self._path, self._counter)
        try:
            taken = await asyncio.to_thread(self._read, cursor.after, self._limit)
        except Exception as error:
            raise ForwardError(ForwardReason.LAKE, str(error)) from error
        self._look_over(taken, cursor.after)
        for through, group in _groups([(one, self._wanted(one.key.stream)) for one in taken]):
            if group:
                self._waiting_since = group[0].batch.read_at
                records = sum(len(one.batch) for one in group)
                refused = await self._target.send(group, cursor.after)
                if refused:
                    self._counter.add("forward_refused", self.name, refused)
                self._counter.add("forwarded", self.name, records - refused)
            await asyncio.to_thread(cursor.move, through)
            self._went()
        self._waiting_since = 0
        return bool(taken)

    def _look_over(self, taken: Sequence[Stored], after: int) -> None:
        """How much to read next time; and what the lake let go before it was sent."""
        if len(taken) == self._limit:
            # A look at a joined file reads more of it than it gives: small batches are taken many at once.
            size = sum(len(one.batch.block) for one in taken)
            self._limit = min(max(self._limit * READ_BYTES // max(size, 1), _FEWEST_BATCHES), 4 * self._limit)
            self._limit = min(self._limit, _MOST_BATCHES)
        if taken and after:
            missed = taken[-1].sequence - after - len(taken)
            if missed > 0:
                self._counter.add("forward_missed_batches", self.name, missed)
                log.warning("the lake let go what was not sent on yet", target=self.name, batches=missed)

    def _wanted(self, stream: str) -> bool:
        name = stream.removesuffix(_SECURITY_SUFFIX)
        if any(fnmatchcase(name, pattern) for pattern in self._exclude):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self._streams)

    def _went(self) -> None:
        if self._failures:
            log.warning("is sent on again", target=self.name, failures=self._failures)
        self._failures = 0

    def _failed(self, reason: ForwardReason, detail: str, retry_after: float = 0.0) -> float:
        """Seconds to wait: 1, 2, 4 ... up to a minute, half of it by chance, and what the target asks for."""
        self._failures += 1
        self._counter.add("forward_failed", f"{self.name}:{reason}")
        if self._failures == 1:
            log.warning(
                "CANNOT SEND ON: it waits in the lake",
                target=self.name,
                reason=reason.value,
                detail=detail,
                behind_seconds=self.lag // SECOND,
            )
        pause = min(2.0 ** min(self._failures - 1, 16), _LONGEST_PAUSE)
        return max(pause / 2 + pause / 2 * self._chance(), min(retry_after, 10 * _LONGEST_PAUSE))


def _groups(taken: Sequence[tuple[Stored, bool]]) -> Iterator[tuple[int, list[Stored]]]:
    """What goes together, and up to where the cursor may move then."""
    group: list[Stored] = []
    size = through = 0
    for one, wanted in taken:
        through = one.sequence
        if wanted and len(one.batch):
            group.append(one)
            size += len(one.batch.block)
        if size >= GROUP_BYTES:
            yield through, group
            group, size = [], 0
    if taken and (group or not size):
        # Also of nothing wanted the cursor moves.
        yield through, group

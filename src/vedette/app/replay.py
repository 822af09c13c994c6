"""Detections over files: ranges matched by workers, merged into ingest order, correlated here, nothing stored.
Counterpart: `cli.replay` prints what comes out; the engine is the one `up` runs."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from vedette.app.merge import merged
from vedette.app.workers import ForkedPool, InlinePool, Pool
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher, Matches
from vedette.detections.stretch import Stretch
from vedette.detections.wire import pack, unpack
from vedette.model.batch import REPLAY_HOST_ID, Batch, Int64, Origin, Trust, split_lines
from vedette.model.clock import BEGINNING
from vedette.model.errors import VedetteError
from vedette.model.findings import Evidence, Finding
from vedette.model.protocols import Counter
from vedette.parsers.syslog import span_of_file

CHUNK = 8 << 20
"""Bytes a worker takes at a time: small enough to keep memory flat, large enough that set-up does not count."""


_ENDS = 1 << 16


class _Job(msgspec.Struct, frozen=True):
    """A block to match: bytes of a file, or given outright (compressed files). year, read_at: of the file."""

    file: int
    number: int
    offset: int
    length: int
    block: bytes | None


_JOB_ENCODER = msgspec.msgpack.Encoder()
_JOB_DECODER = msgspec.msgpack.Decoder(_Job)


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """One input. year, read_at: what times without a year are judged by (see `Calendar`)."""

    path: Path
    origin: Origin
    year: int
    read_at: int


@dataclass(slots=True)
class Progress:
    """How far a replay is, for whoever shows it."""

    bytes_done: int = 0
    bytes_total: int = 0
    records: int = 0
    unreadable: int = 0
    findings: int = 0


def open_files(paths: Sequence[Path], *, year: int = 0, timezone: str = "UTC") -> list[ReplayFile]:
    """The inputs in the order given; `year` is that of each file's first record, 0 = judged by time of writing.

    VedetteError names the one that cannot be read.
    """
    files = []
    for path in paths:
        try:
            if not path.is_file():
                reason = "not a file" if path.exists() else "no such file"
                raise VedetteError(f"cannot read {path}: {reason}", hint="name the log files themselves")
            first, last = _ends(path) if year else (b"", b"")
            mtime = path.stat().st_mtime_ns // 1000
            path.open("rb").close()
        except OSError as error:
            raise VedetteError(f"cannot read {path}: {error.strerror}") from None
        its_year, read_at = span_of_file(first, last, year=year, mtime=mtime, timezone=timezone)
        files.append(ReplayFile(path, Origin(REPLAY_HOST_ID, f"file:{path}"), its_year, read_at))
    return files


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last record of a file; of a compressed one only the first is to be had cheaply."""
    if _is_gzip(path):
        with gzip.open(path) as file:
            return file.readline(_ENDS).rstrip(b"\r\n"), b""
    with path.open("rb") as file:
        first = file.readline(_ENDS).rstrip(b"\r\n")
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _ENDS, 0))
        return first, file.read().rstrip(b"\r\n").rpartition(b"\n")[2]


def evidence(origin: Origin, position: int, time: int) -> Evidence:
    """Replay names records by file and line."""
    return Evidence(origin.record_id(position), time, file=origin.source.removeprefix("file:"), line=position)


class Replay:
    """One run over some files. Findings come out in ingest order: each file's own, files merged by time."""

    def __init__(
        self,
        files: Sequence[ReplayFile],
        matcher: Matcher,
        correlator: Correlator,
        *,
        counter: Counter,
        timezone: str = "UTC",
        workers: int = 1,
        chunk: int = CHUNK,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._files = list(files)
        self._matcher = matcher
        self._correlator = correlator
        self._counter = counter
        self._timezone = timezone
        self._workers = workers
        self._chunk = chunk
        self._report = progress
        self.progress = Progress(bytes_total=sum(file.path.stat().st_size for file in self._files))

    def run(self) -> Iterator[Finding]:
        """Run to the end."""
        small = self.progress.bytes_total < 2 * self._chunk and not any(_is_gzip(file.path) for file in self._files)
        pool = InlinePool(self._work) if self._workers <= 1 or small else ForkedPool(self._work, self._workers)
        with pool:
            readers = [_Reader(file, index, pool, self) for index, file in enumerate(self._files)]
            try:
                stretches = readers[0].stretches() if len(readers) == 1 else merged(readers)
                for stretch in stretches:
                    outcome = self._correlator.process(stretch)
                    self.progress.findings += len(outcome.findings)
                    yield from outcome.findings
            finally:
                for reader in readers:
                    reader.close()

    def _work(self, data: bytes) -> bytes:
        """One job, in a worker: read, parse, match."""
        job = _JOB_DECODER.decode(data)
        file = self._files[job.file]
        block = job.block
        if block is None:
            with file.path.open("rb") as source:
                block = os.pread(source.fileno(), job.length, job.offset)
        starts, ends = split_lines(block)
        batch = Batch(
            origin=file.origin,
            number=job.number,
            block=block,
            starts=starts,
            ends=ends,
            positions=np.arange(1, len(starts) + 1, dtype=np.int64),
            read_at=file.read_at,
            trust=Trust.FORGEABLE,
            timezone=self._timezone,
            year=file.year,
            spooled=True,
        )
        return pack(self._matcher.match(batch), starts, ends)

    def done(self, length: int, matches: Matches) -> None:
        """Note that a block has been matched."""
        self.progress.bytes_done += length
        self.progress.records += matches.n
        self.progress.unreadable += matches.unreadable
        self._report(self.progress)


class _Reader:
    """Cuts one file at line ends, keeps some jobs in flight, gives the stretches back in order."""

    def __init__(self, file: ReplayFile, index: int, pool: Pool, replay: Replay) -> None:
        self.file = file
        self._index = index
        self._pool = pool
        self._replay = replay
        self._raw: BinaryIO = file.path.open("rb")
        self._compressed = _is_gzip(file.path)
        self._source = gzip.GzipFile(fileobj=self._raw) if self._compressed else self._raw
        self._jobs = self._cut()
        self._flight: deque[tuple[int, _Job, int]] = deque()
        self._lines = 0
        self.high = BEGINNING

    def close(self) -> None:
        """Give back the file."""
        self._source.close()
        self._raw.close()

    def stretches(self) -> Iterator[Stretch]:
        """Every block of the file, matched, in order."""
        ahead = max(self._replay._workers + 2, 1)
        while True:
            while len(self._flight) < ahead and (job := next(self._jobs, None)) is not None:
                done = self._raw.tell() if self._compressed else job.offset + job.length
                self._flight.append((self._pool.submit(_JOB_ENCODER.encode(job)), job, done))
            if not self._flight:
                return
            ticket, job, done = self._flight.popleft()
            matches, starts, ends = unpack(self._pool.result(ticket))
            self._replay.done(job.length if not self._compressed else 0, matches)
            if self._compressed:
                self._replay.progress.bytes_done = max(self._replay.progress.bytes_done, done)
            matches = replace(
                matches, position=matches.position + self._lines, high=np.maximum(matches.high, self.high)
            )
            self._lines += matches.n
            self.high = max(self.high, matches.batch_high)
            yield stretch_of(_nameplate(self.file), matches, self._raw_of(job, starts, ends))

    def _raw_of(self, job: _Job, starts: Int64, ends: Int64) -> Callable[[int], bytes]:
        def raw(index: int) -> bytes:
            start, end = int(starts[index]), int(ends[index])
            if job.block is not None:
                return job.block[start:end]
            return os.pread(self._raw.fileno(), end - start, job.offset + start)

        return raw

    def _cut(self) -> Iterator[_Job]:
        return self._cut_compressed() if self._compressed else self._cut_plain()

    def _cut_plain(self) -> Iterator[_Job]:
        descriptor = self._raw.fileno()
        size = os.fstat(descriptor).st_size
        offset = number = 0
        while offset < size:
            end = min(offset + self._replay._chunk, size)
            while end < size:
                # The newline at or after the wanted end; a line may be longer than a chunk.
                window = os.pread(descriptor, 1 << 16, end - 1)
                found = window.find(b"\n")
                if found >= 0:
                    end += found
                    break
                end = min(end + max(len(window), 1), size)
            yield _Job(self._index, number, offset, end - offset, None)
            offset, number = end, number + 1

    def _cut_compressed(self) -> Iterator[_Job]:
        rest, number = b"", 0
        try:
            while data := self._source.read(self._replay._chunk):
                cut = data.rfind(b"\n") + 1
                if not cut:
                    rest += data
                    continue
                yield _Job(self._index, number, 0, 0, rest + data[:cut])
                rest, number = data[cut:], number + 1
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise VedetteError(f"{self.file.path} is damaged: {error}", hint="what came before was judged") from None
        if rest:
            yield _Job(self._index, number, 0, 0, rest)


def _nameplate(file: ReplayFile) -> Batch:
    """Stands for a batch whose bytes stayed with the worker."""
    nothing = np.empty(0, dtype=np.int64)
    return Batch(file.origin, 0, b"", nothing, nothing, nothing, file.read_at)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"

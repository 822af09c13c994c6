"""Detections over files: ranges matched by workers, merged into ingest order, correlated here, nothing stored.
Counterpart: `cli.replay` prints what comes out; the engine is the one `up` runs."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from vedette.app.formats import AUTO, audit_in, format_of, objects_in
from vedette.app.merge import merged
from vedette.app.workers import ForkedPool, InlinePool, Pool
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.detections.matches import Matches
from vedette.detections.stretch import Outcome, Stretch
from vedette.detections.wire import Answer, join, pack, unpack
from vedette.model.batch import REPLAY_HOST_ID, Batch, Int64, Origin, RecordFormat, Trust, split_lines
from vedette.model.clock import BEGINNING
from vedette.model.errors import VedetteError
from vedette.model.findings import Evidence, Finding
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.parsers.splitting import is_lines
from vedette.parsers.syslog import span_of_file

CHUNK = 8 << 20
"""Bytes a worker takes at a time: small enough to keep memory flat, large enough that set-up does not count."""
RECORDS = 1 << 18
"""Records matched at a time: what is kept of each weighs more than a short line."""
LONGEST = 1 << 20
"""Bytes of a record that are looked at; what lies beyond is passed over, as the sources do."""

_ENDS = 1 << 16
_AHEAD = 1 << 18
"""Bytes that are read at once where single records of a file are looked at again."""


class _Job(msgspec.Struct, frozen=True):
    """A block to match: bytes of a file, or given outright (compressed files)."""

    file: int
    number: int
    offset: int
    length: int
    block: bytes | None
    spans: bytes = b""
    """int64[3, n]: where the records of `block` start and end, and on which line; else every line is one."""


_JOB_ENCODER = msgspec.msgpack.Encoder()
_JOB_DECODER = msgspec.msgpack.Decoder(_Job)


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """One input. year, read_at: what times without a year are judged by (see `Calendar`).

    whole_lines: each line is a record.
    """

    path: Path
    origin: Origin
    year: int
    read_at: int
    format: RecordFormat = RecordFormat.SYSLOG
    whole_lines: bool = True


@dataclass(slots=True)
class Progress:
    """How far a replay is, for whoever shows it."""

    bytes_done: int = 0
    bytes_total: int = 0
    records: int = 0
    unreadable: int = 0
    too_long: int = 0
    undecided: int = 0
    findings: int = 0


def open_files(
    paths: Sequence[Path], *, year: int = 0, timezone: str = "UTC", record_format: str = AUTO
) -> list[ReplayFile]:
    """The inputs in the order given; `year` is that of each file's first record, 0 = judged by time of writing.

    record_format: of all of them, "auto" = told from how each begins. VedetteError names the one that cannot be read.
    """
    files = []
    for path in paths:
        try:
            if not path.is_file():
                reason = "not a file" if path.exists() else "no such file"
                raise VedetteError(f"cannot read {path}: {reason}", hint="name the log files themselves")
            first, last = _ends(path) if year else (b"", b"")
            mtime = path.stat().st_mtime_ns // 1000
            head = _head(path)
        except OSError as error:
            raise VedetteError(f"cannot read {path}: {error.strerror}") from None
        its_year, read_at = span_of_file(first, last, year=year, mtime=mtime, timezone=timezone)
        form = format_of(head) if record_format == AUTO else RecordFormat(record_format)
        whole_lines = is_lines(head) if form is RecordFormat.JSON else form is not RecordFormat.AUDIT
        origin = Origin(REPLAY_HOST_ID, f"file:{path}")
        files.append(ReplayFile(path, origin, its_year, read_at, form, whole_lines))
    return files


def _head(path: Path) -> bytes:
    """How a file begins."""
    with gzip.open(path) if is_gzip(path) else path.open("rb") as file, suppress(*_DAMAGE):
        return file.read(_ENDS)
    return b""


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last record of a file; a compressed one is read through for its last."""
    if is_gzip(path):
        first = last = b""
        with gzip.open(path) as file, suppress(*_DAMAGE):
            first = last = file.readline(_ENDS)
            while data := file.read1(_ENDS):
                last = (last + data)[-_ENDS:]
        return first.rstrip(b"\r\n"), last.rstrip(b"\r\n").rpartition(b"\n")[2]
    with path.open("rb") as file:
        first = file.readline(_ENDS).rstrip(b"\r\n")
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _ENDS, 0))
        return first, file.read().rstrip(b"\r\n").rpartition(b"\n")[2]


_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


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
        samples: bool = True,
    ) -> None:
        """samples: whether findings show their records, which are named by file and line anyhow."""
        self.samples = samples
        self._files = list(files)
        self._matcher = matcher
        self._correlator = correlator
        self._counter = counter
        self._timezone = timezone
        self._workers = workers
        self._chunk = chunk
        self._report = progress
        self._raws: list[BinaryIO] = []
        # One for all files: stretches of several are merged, and where they are cut must not show.
        self.read_at = max((file.read_at for file in files), default=0)
        self.progress = Progress()

    def run(self) -> Iterator[Finding]:
        """Run to the end. VedetteError for a file that cannot be read any more."""
        with ExitStack() as stack:
            # Opened before the workers are forked: a file that is renamed meanwhile stays the same file for them.
            self._raws = [stack.enter_context(_open(file.path)) for file in self._files]
            self.progress.bytes_total = sum(os.fstat(raw.fileno()).st_size for raw in self._raws)
            compressed = [is_gzip(file.path) for file in self._files]
            small = self.progress.bytes_total < 2 * self._chunk and not any(compressed)
            pool = InlinePool(self._work) if self._workers <= 1 or small else ForkedPool(self._work, self._workers)
            stack.enter_context(pool)
            readers = [
                _Reader(file, index, raw, pool, self, compressed=packed)
                for index, (file, raw, packed) in enumerate(zip(self._files, self._raws, compressed, strict=True))
            ]
            stretches = readers[0].stretches() if len(readers) == 1 else merged(readers)
            for stretch in stretches:
                yield from self._found(self._correlator.process(stretch))
            # Windows that close by themselves are judged up to the last record; what lasts beyond it, nobody can know.
            yield from self._found(
                self._correlator.advance(max((reader.high for reader in readers), default=BEGINNING))
            )

    def _found(self, outcome: Outcome) -> list[Finding]:
        self.progress.findings += len(outcome.findings)
        return outcome.findings

    def _work(self, data: bytes) -> bytes:
        """One job, in a worker: read, parse, match."""
        job = _JOB_DECODER.decode(data)
        file = self._files[job.file]
        block = job.block
        if block is None:
            block = _read(self._raws[job.file], file.path, job.length, job.offset)
        if job.spans:
            starts, ends, positions = np.frombuffer(job.spans, dtype=np.int64).reshape(3, -1)
            too_long = 0  # whoever found the records has counted them
        else:
            starts, ends = split_lines(block)
            positions = np.arange(1, len(starts) + 1, dtype=np.int64)
            too_long = _shorten(block, starts, ends)
        batch = Batch(
            origin=file.origin,
            number=job.number,
            block=block,
            starts=starts,
            ends=ends,
            positions=positions,
            read_at=file.read_at,
            format=file.format,
            trust=Trust.FORGEABLE,
            timezone=self._timezone,
            year=file.year,
            spooled=True,
        )
        return pack(self._match(batch), starts, ends, too_long=too_long)

    def _match(self, batch: Batch) -> Matches:
        """`batch` matched, a limited number of records at a time."""
        if len(batch) <= RECORDS:
            return self._matcher.match(batch)
        parts: list[Matches] = []
        high = BEGINNING
        for begin in range(0, len(batch), RECORDS):
            own = slice(begin, begin + RECORDS)
            part = self._matcher.match(
                replace(batch, starts=batch.starts[own], ends=batch.ends[own], positions=batch.positions[own])
            )
            parts.append(replace(part, rows=part.rows + begin, high=np.maximum(part.high, high)))
            high = max(high, part.batch_high)
        return join(parts, np.arange(sum(len(part.rows) for part in parts)))

    def cut(self, records: int) -> None:
        """Note that these were longer than a record may be."""
        if records:
            self.progress.too_long += records
            self._counter.add("records_dropped", DropReason.RECORD_TOO_LONG, records)

    def done(self, length: int, answer: Answer) -> None:
        """Note that a block has been matched."""
        self.progress.bytes_done += length
        self.progress.records += answer.matches.n
        self.progress.unreadable += answer.matches.unreadable
        self.progress.undecided += answer.matches.undecided
        self.cut(answer.too_long)
        self._report(self.progress)


class _Reader:
    """Cuts one file at line ends, keeps some jobs in flight, gives the stretches back in order."""

    def __init__(
        self, file: ReplayFile, index: int, raw: BinaryIO, pool: Pool, replay: Replay, *, compressed: bool
    ) -> None:
        self.file = file
        self._index = index
        self._pool = pool
        self._replay = replay
        self._raw = raw
        self._compressed = compressed
        self._jobs = self._cut()
        self._flight: deque[tuple[int, _Job, int]] = deque()
        self._lines = 0
        self._damage: Exception | None = None
        self.high = BEGINNING

    def stretches(self) -> Iterator[Stretch]:
        """Every block of the file, matched, in order."""
        # As many as the workers hold, and one more to be given out at once.
        ahead = 2 * self._replay._workers + 1
        while True:
            while len(self._flight) < ahead and (job := next(self._jobs, None)) is not None:
                done = self._raw.tell() if self._compressed else job.offset + job.length
                self._flight.append((self._pool.submit(_JOB_ENCODER.encode(job)), job, done))
            if not self._flight:
                break
            ticket, job, done = self._flight.popleft()
            answer = unpack(self._pool.result(ticket))
            self._replay.done(job.length if not self._compressed else 0, answer)
            if self._compressed:
                self._replay.progress.bytes_done = max(self._replay.progress.bytes_done, done)
            matches = answer.matches
            matches = replace(
                matches, position=matches.position + self._lines, high=np.maximum(matches.high, self.high)
            )
            self._lines += 0 if job.spans else matches.n
            self.high = max(self.high, matches.batch_high)
            raw = self._raw_of(job, answer.starts, answer.ends)
            yield stretch_of(_nameplate(self.file, self._replay.read_at), matches, raw, samples=self._replay.samples)
        if self._damage is not None:
            raise VedetteError(f"{self.file.path} is damaged: {self._damage}", hint="what came before was judged")

    def _raw_of(self, job: _Job, starts: Int64, ends: Int64) -> Callable[[int], bytes]:
        window, begin = b"", 0

        def raw(index: int) -> bytes:
            nonlocal window, begin
            start, end = int(starts[index]), int(ends[index])
            if job.block is not None:
                return job.block[start:end]
            if not begin <= start <= end <= begin + len(window):
                # Records are asked for mostly in order, many of them near each other.
                begin, window = start, _read(self._raw, self.file.path, max(end - start, _AHEAD), job.offset + start)
            return window[start - begin : end - begin]

        return raw

    def _cut(self) -> Iterator[_Job]:
        if not self.file.whole_lines:
            return self._cut_objects()
        return self._cut_compressed() if self._compressed else self._cut_plain()

    def _cut_objects(self) -> Iterator[_Job]:
        """Jobs of a file whose records are not its lines: JSON of several lines, Linux audit."""
        packed = gzip.GzipFile(fileobj=self._raw) if self._compressed else None
        chunks = iter(lambda: self._raw.read(_ENDS) if packed is None else self._inflated(packed), b"")
        found = audit_in if self.file.format is RecordFormat.AUDIT else objects_in
        done = 0
        for number, (block, spans, cut) in enumerate(found(chunks, self._replay._chunk, LONGEST)):
            at = self._raw.tell()
            self._replay.cut(cut)
            yield _Job(self._index, number, done, 0 if self._compressed else at - done, block, spans.tobytes())
            done = at

    def _cut_plain(self) -> Iterator[_Job]:
        descriptor = self._raw.fileno()
        size = os.fstat(descriptor).st_size
        offset = number = 0
        while offset < size:
            wanted = end = min(offset + self._replay._chunk, size)
            while end < size:
                # The newline at or after the wanted end; a line may be longer than a chunk.
                window = _read(self._raw, self.file.path, _ENDS, end - 1)
                found = window.find(b"\n")
                if found >= 0:
                    end += found
                    break
                # Nothing more where the file was cut short meanwhile.
                end = min(end + len(window), size) if window else size
            yield _Job(self._index, number, offset, min(end, wanted + LONGEST + 1) - offset, None)
            offset, number = end, number + 1

    def _cut_compressed(self) -> Iterator[_Job]:
        held, number, limit = bytearray(), 0, self._replay._chunk + LONGEST + 1
        source = gzip.GzipFile(fileobj=self._raw)
        more = True
        while more:
            data = self._inflated(source)
            more = bool(data)
            newline = data.rfind(b"\n")
            cut = len(held) + newline + 1 if newline >= 0 else 0
            # Of an overlong line only the beginning is held.
            held += data if newline >= 0 else data[: max(limit - len(held), 0)]
            if not more:
                cut = len(held)
            elif len(held) < self._replay._chunk:
                continue
            if cut:
                yield _Job(self._index, number, 0, 0, bytes(held[:cut]))
                del held[:cut]
                number += 1

    def _inflated(self, source: gzip.GzipFile) -> bytes:
        """The next bytes; none at the end, or where the file is damaged from there on."""
        try:
            return source.read1(min(self._replay._chunk, _ENDS))
        except _DAMAGE as error:
            self._damage = error
            return b""


def _nameplate(file: ReplayFile, read_at: int) -> Batch:
    """Stands for a batch whose bytes stayed with the worker."""
    nothing = np.empty(0, dtype=np.int64)
    return Batch(file.origin, 0, b"", nothing, nothing, nothing, read_at)


def _shorten(block: bytes, starts: Int64, ends: Int64) -> int:
    """Cut overlong records where the sources cut them, the NULs of a hole passed over first; how many there were."""
    cut = 0
    for row in np.flatnonzero(ends - starts > LONGEST).tolist():
        text = block[int(starts[row]) : int(ends[row])]
        starts[row] += len(text) - len(text.lstrip(b"\0"))
        if ends[row] - starts[row] > LONGEST:
            ends[row] = starts[row] + LONGEST
            cut += 1
    return cut


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise VedetteError(f"cannot read {path}: {error.strerror}") from None


def _read(raw: BinaryIO, path: Path, length: int, offset: int) -> bytes:
    try:
        return os.pread(raw.fileno(), length, offset)
    except OSError as error:
        raise VedetteError(f"cannot read {path}: {error.strerror}") from None


def is_gzip(path: Path) -> bool:
    """Whether the file is packed, by its first bytes (RFC 1952); OSError where it cannot be read."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"

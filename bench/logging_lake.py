"""The lake on the disk and searched: bytes kept of bytes sent, searches beside `zstdcat | grep -c` over the same lines.
Counterpart: `bench.logging_lines` makes them; `bench.report_logging` writes the tables."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import zstandard
from tests.scenarios.parts.processes import short_folder

from bench import authlog
from bench.logging_lines import DAY, SECONDS, Lines
from bench.logging_syslog import LossError, Say
from vedette.app.counters import Counters
from vedette.app.keeping import FLUSH_BYTES, header_parser, headers_of
from vedette.model.batch import REPLAY_HOST_ID, Batch, Origin, split_lines
from vedette.model.clock import HOUR, SECOND
from vedette.model.shipping import BatchKey
from vedette.store.lake.lake import Lake
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.ledger import Ledger
from vedette.testing.clock import FakeClock

NEEDLE, ADDRESS, USER = "xq7vernissage", "203.0.113.77", "zelda"
"""A word that stands in one line, an address in twenty, a user in two of each hour."""
BATCH = 5_000
_VEDETTE = str(Path(sys.executable).with_name("vedette"))
_BEGUN = int(DAY.timestamp()) * SECOND


@dataclass(frozen=True)
class Kept:
    """What a kind of lines takes: all bytes of the lake's folder after compaction, manifest and filters included."""

    what: str
    lines: int
    raw: int
    disk: int
    filters: int
    manifest: int
    cpu: float

    @property
    def times(self) -> float:
        """How many raw bytes a byte on the disk stands for."""
        return self.raw / self.disk


@dataclass
class Searched:
    """One search and its peer over the same lines; wall and CPU seconds, a pair a run, the whole processes."""

    what: str
    query: str
    peer: str
    found: int
    runs: list[tuple[float, float]] = field(default_factory=list)
    peers: list[tuple[float, float]] = field(default_factory=list)

    @property
    def wall(self) -> tuple[float, float]:
        """Medians: ours, the peer's."""
        return median(one for one, _ in self.runs), median(one for one, _ in self.peers)

    @property
    def cpu(self) -> tuple[float, float]:
        """The same of CPU seconds."""
        return median(one for _, one in self.runs), median(one for _, one in self.peers)


class _Filling:
    """A lake of its own, filled as `up` does: batches, flushes of 32 MiB, each hour compacted when it is over."""

    def __init__(self, folder: Path, *, ledger: bool) -> None:
        self._clock, counters = FakeClock(_BEGUN), Counters()
        self.folder = folder / "lake"
        self._ledger = None
        if ledger:
            signer = signing_key(folder / "ledger.key", "vedette/bench")
            self._ledger = Ledger(self.folder / "manifest.db", signer, clock=self._clock)
        self._lake = Lake(self.folder, clock=self._clock, counter=counters, ledger=self._ledger)
        self._parser = header_parser(counters)
        self._numbers: dict[str, int] = {}
        self._hour = _BEGUN // HOUR
        self.lines = self.raw = 0

    def put(self, block: bytes, at: int, stream: str) -> None:
        """Lines that came at this time; microseconds."""
        if at // HOUR != self._hour:
            self._lake.flush()
            self._hour = at // HOUR
            self._clock.set(at)
            self._lake.compact()
        self._clock.set(max(at, self._clock.now()))
        number = self._numbers[stream] = self._numbers.get(stream, 0) + 1
        starts, ends = split_lines(block)
        batch = Batch(Origin(REPLAY_HOST_ID, stream, "1"), number, block, starts, ends, starts + np.int64(self.raw), at)
        key = BatchKey(REPLAY_HOST_ID, stream, number)
        self._lake.put(key, batch, headers_of(batch, self._parser))
        self.lines, self.raw = self.lines + len(batch), self.raw + len(block)
        if self._lake.waiting > FLUSH_BYTES:
            self._lake.flush()

    def close(self) -> None:
        """All of it in few files, and those that were replaced gone."""
        self._lake.flush()
        for _ in range(2):
            self._clock.set(self._clock.now() + HOUR)
            self._lake.compact()
        self._lake.close()
        if self._ledger is not None:
            self._ledger.close()


def _kept(what: str, folder: Path, blocks: Iterator[tuple[bytes, str]]) -> Kept:
    folder.mkdir()
    before = time.process_time()
    filling = _Filling(folder, ledger=True)
    for place, (block, stream) in enumerate(blocks):
        filling.put(block, _BEGUN + place * SECOND, stream)
    filling.close()
    spent = time.process_time() - before
    files = [path for path in filling.folder.rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    filters = sum(size for path, size in sizes.items() if path.suffix == ".words")
    manifest = sum(size for path, size in sizes.items() if path.name.startswith("manifest"))
    return Kept(what, filling.lines, filling.raw, sum(sizes.values()), filters, manifest, spent)


def sizes(lines: int, say: Say) -> list[Kept]:
    """Bytes on the disk of bytes sent: a generated auth.log, the mix of `bench.logging_lines`, real samples."""
    with short_folder() as folder:
        mixed = Lines(rate=600)
        found = [
            _kept("auth.log, generated", folder / "auth", _pieces(authlog.cached(lines), "file:/var/log/auth.log")),
            _kept("mix of servers, generated", folder / "mix", _made(mixed, lines)),
        ]
        for path in _samples():
            found.append(_kept(f"loghub, {path.stem}", folder / path.stem, _pieces(path, f"file:{path.name}")))
    for one in found:
        say(f"{one.what}: {one.times:.1f} ({one})")
    return found


def _samples() -> list[Path]:
    corpus = Path(os.environ.get("VEDETTE_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "data")
    return sorted(corpus.glob("logs/loghub/*/*_2k.log"))


def _made(made: Lines, lines: int) -> Iterator[tuple[bytes, str]]:
    for first in range(0, lines, BATCH):
        yield made.block(min(BATCH, lines - first)), "syslog:tcp/192.0.2.1"


def _pieces(path: Path, stream: str) -> Iterator[tuple[bytes, str]]:
    with path.open("rb") as file:
        while lines := file.readlines(BATCH * 100):
            yield b"".join(lines), stream


# ------------------------------------------------------------------------------------------------ searched


def _planted(block: bytes, first: int, total: int) -> bytes:
    """The block with what is searched for in it, at places that depend on its number alone."""
    hour = total // 24
    extra = []
    if first <= total // 3 < first + BATCH:
        extra.append(f"<134>{{}} app01 api[77]: level=info msg={NEEDLE} done")
    if any(first <= (2 * place + 1) * total // 40 < first + BATCH for place in range(20)):
        extra.append(f"<38>{{}} db01 sshd[78]: Failed password for invalid user admin from {ADDRESS} port 4711 ssh2")
    if any(first <= place * hour + hour // 2 < first + BATCH for place in range(24)):
        line = (
            f"<38>{{}} db02 sshd[79]: Accepted publickey for {USER} from 198.51.100.4 port 4712 ssh2: ED25519 SHA256:x"
        )
        extra += [line, line]
    if not extra:
        return block
    stamp = block[block.index(b">") + 1 :][:15].decode()
    return block + "".join(f"{line.format(stamp)}\n" for line in extra).encode()


def fill(folder: Path, lines: int, say: Say) -> tuple[int, int, int]:
    """A day of so many lines, as `folder`/lake and as `folder`/lines.zst; lines, raw bytes, bytes of the lake."""
    filling = _Filling(folder, ledger=False)
    made = Lines(rate=lines / SECONDS)
    compressor = zstandard.ZstdCompressor(level=3)
    with (folder / "lines.zst").open("wb") as out, compressor.stream_writer(out) as packed:
        for first in range(0, lines, BATCH):
            block = _planted(made.block(min(BATCH, lines - first)), first, lines)
            packed.write(block)
            filling.put(block, _BEGUN + first * SECONDS * SECOND // lines, "syslog:tcp/192.0.2.1")
            if first % (lines // 10 // BATCH * BATCH or BATCH) == 0:
                say(f"{first:,} of {lines:,} lines are in the lake")
    filling.close()
    disk = sum(path.stat().st_size for path in filling.folder.rglob("*") if path.is_file())
    return filling.lines, filling.raw, disk


def searches(folder: Path, runs: int, say: Say) -> list[Searched]:
    """Each search and its peer in turns, `runs` pairs after one that is not counted."""
    hour = "@timestamp:[2026-11-23T11:00:00Z TO 2026-11-23T12:00:00Z}"
    found = [
        Searched("a word that stands in one line", NEEDLE, f"grep -c {NEEDLE}", 1),
        Searched("an address (20 lines)", f"source.ip:{ADDRESS}", f"grep -c -F {ADDRESS}", 20),
        Searched("a user in an hour (2 lines)", f"user.name:{USER} AND {hour}", f"grep -c 'Nov 23 11:.* {USER} '", 2),
        Searched("histogram of the day", "* | histogram 1h", "cut -c 6-14 | uniq -c", 24),
    ]
    peers = {
        found[0].what: ["grep", "-c", NEEDLE],
        found[1].what: ["grep", "-c", "-F", ADDRESS],
        found[2].what: ["grep", "-c", f"Nov 23 11:.* {USER} "],
    }
    for one in found:
        argv = [_VEDETTE, "search", one.query, "--data", str(folder), "--since", "2026-11-23T00:00:00Z"]
        argv += ["--until", "2026-11-24T00:00:00Z", "--timeout", "10m", "--output", "json"]
        for run in range(runs + 1):
            ours, lines = _timed([argv])
            if len(lines.splitlines()) != one.found:
                raise LossError(f"{one.what}: {len(lines.splitlines())} and not {one.found}")
            zst = ["zstdcat", str(folder / "lines.zst")]
            other = peers.get(one.what)
            theirs, said = _timed([zst, other] if other else [zst, ["cut", "-c", "6-14"], ["uniq", "-c"]])
            if other and int(said) != one.found:
                raise LossError(f"{one.what}: the peer finds {said!r}")
            if run:
                one.runs.append(ours)
                one.peers.append(theirs)
        wall, cpu = one.wall, one.cpu
        say(f"{one.what}: {wall[0]:.2f} s, peer {wall[1]:.2f} s: {wall[1] / wall[0]:.1f} (CPU {cpu[1] / cpu[0]:.1f})")
    return found


def _timed(pipe: Sequence[Sequence[str]]) -> tuple[tuple[float, float], bytes]:
    """Wall and CPU seconds of a pipe of programs, and what its last one wrote."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    running: list[subprocess.Popen[bytes]] = []
    for argv in pipe:
        source = running[-1].stdout if running else subprocess.DEVNULL
        running.append(subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        if len(running) > 1 and running[-2].stdout is not None:
            running[-2].stdout.close()
    out, _ = running[-1].communicate()
    for one in running:
        one.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (time.monotonic() - began, cpu), out


@dataclass(frozen=True)
class Large:
    """The lake that was searched."""

    lines: int
    raw: int
    disk: int
    packed: int
    searched: list[Searched]


def searched(lines: int, runs: int, say: Say) -> Large:
    """Build the lake in a folder that is removed at the end, and search it."""
    with short_folder() as folder:
        count, raw, disk = fill(folder, lines, say)
        say(f"{count:,} lines, {raw / 1e9:.2f} GB raw, {disk / 1e9:.2f} GB on the disk")
        packed = (folder / "lines.zst").stat().st_size
        return Large(count, raw, disk, packed, searches(folder, runs, say))

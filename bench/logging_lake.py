"""The lake on the disk and searched: bytes kept of bytes sent, searches beside `zstdcat | grep -c` over the same lines.
Counterpart: `bench.logging_lines` makes them; `bench.report_logging` writes the tables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zstandard
from tests.scenarios.parts.processes import short_folder

from bench import authlog
from bench.logging_lines import DAY, SECONDS, Lines, Rolled
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
    memory: float = 0
    """MiB that ours took at most."""

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

    def __init__(self, folder: Path, *, ledger: bool, begin: datetime = DAY, apart: bool = False) -> None:
        begun = int(begin.timestamp()) * SECOND
        self._clock, counters = FakeClock(begun), Counters()
        self.folder = folder / "lake"
        self._ledger = None
        if ledger:
            signer = signing_key(folder / "ledger.key", "vedette/bench")
            self._ledger = Ledger(self.folder / "manifest.db", signer, clock=self._clock)
        self._lake = Lake(self.folder, clock=self._clock, counter=counters, ledger=self._ledger)
        self._parser = header_parser(counters)
        self._numbers: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._hour = begun // HOUR
        self._apart = ThreadPoolExecutor(1) if apart else None
        self._compacting: list[Future[Any]] = []
        self.lines = self.raw = 0

    def put(self, block: bytes, at: int, stream: str, host: str = REPLAY_HOST_ID) -> None:
        """Lines that came at this time; microseconds."""
        if at // HOUR != self._hour:
            self._lake.flush()
            self._hour = at // HOUR
            self._clock.set(at)
            self._compact()
        self._clock.set(max(at, self._clock.now()))
        number = self._numbers[host] = self._numbers.get(host, 0) + 1
        starts, ends = split_lines(block)
        position = self._positions.get(host, 0)
        self._positions[host] = position + len(block)
        batch = Batch(Origin(host, stream, "1"), number, block, starts, ends, starts + np.int64(position), at)
        key = BatchKey(host, stream, number)
        self._lake.put(key, batch, headers_of(batch, self._parser))
        self.lines, self.raw = self.lines + len(batch), self.raw + len(block)
        if self._lake.waiting > FLUSH_BYTES:
            self._lake.flush()

    def _compact(self) -> None:
        """Beside what comes, as `up` does; not two hours behind it."""
        if self._apart is None:
            self._lake.compact()
            return
        while len(self._compacting) > 1:
            self._compacting.pop(0).result()
        self._compacting.append(self._apart.submit(self._lake.compact))

    def close(self) -> None:
        """All of it in few files, and those that were replaced gone."""
        self._lake.flush()
        for one in self._compacting:
            one.result()
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


@dataclass(frozen=True)
class Filled:
    """A lake and one zstd file a day with the same lines. day: the last one, which is searched by itself."""

    lines: int
    raw: int
    disk: int
    packed: int
    days: Sequence[datetime]


def _planted(first: int, count: int, per_day: int, total: int) -> list[str]:
    """What is searched for, among lines first to first + count; a `{}` stands for the time."""
    extra = []
    if first <= total // 3 < first + count:
        extra.append(f"<134>{{}} app01 api[77]: level=info msg={NEEDLE} done")
    if any(first <= (2 * place + 1) * total // 40 < first + count for place in range(20)):
        extra.append(f"<38>{{}} db01 sshd[78]: Failed password for invalid user admin from {ADDRESS} port 4711 ssh2")
    hour, today = per_day // 24, first % per_day
    if any(today <= place * hour + hour // 2 < today + count for place in range(24)):
        line = (
            f"<38>{{}} db02 sshd[79]: Accepted publickey for {USER} from 198.51.100.4 port 4712 ssh2: ED25519 SHA256:x"
        )
        extra += [line, line]
    return extra


def fill(folder: Path, lines: int, days: int, minutes: float, say: Say) -> Filled:
    """So many lines in so many days, as `folder`/lake and as `folder`/lines-DAY.zst; whole days while time is left."""
    per_day = lines // days
    end = time.monotonic() + minutes * 60
    filling = _Filling(folder, ledger=False, begin=DAY - timedelta(days=days - 1), apart=True)
    made = Rolled(per_day=per_day, begin=DAY - timedelta(days=days - 1))
    done: list[datetime] = []
    for number in range(days):
        if time.monotonic() > end and done:
            break
        day = DAY - timedelta(days=days - 1 - number)
        # What is looked for lies in the days that there will be, so it is in the first one.
        compressor = zstandard.ZstdCompressor(level=3)
        with _packed(folder, day).open("wb") as out, compressor.stream_writer(out) as packed:
            for first in range(number * per_day, (number + 1) * per_day, BATCH):
                block = made.block(first, min(BATCH, (number + 1) * per_day - first))
                stamp = block[block.index(b">") + 1 :][:15].decode()
                extra = _planted(first, BATCH, per_day, lines)
                block += "".join(f"{line.format(stamp)}\n" for line in extra).encode()
                packed.write(block)
                at = int(day.timestamp()) * SECOND + first % per_day * SECONDS * SECOND // per_day
                filling.put(block, at, "syslog:tcp/192.0.2.1", f"{first // BATCH % 8 + 1:032x}")
        done.append(day)
        say(f"{day:%d %B}: {filling.lines:,} lines are in the lake")
    filling.close()
    disk = sum(path.stat().st_size for path in filling.folder.rglob("*") if path.is_file())
    size = sum(_packed(folder, day).stat().st_size for day in done)
    return Filled(filling.lines, filling.raw, disk, size, done)


def _packed(folder: Path, day: datetime) -> Path:
    return folder / f"lines-{day:%Y-%m-%d}.zst"


def searches(folder: Path, filled: Filled, lines: int, runs: int, say: Say) -> list[Searched]:
    """Each search and its peer in turns, `runs` pairs after one that is not counted. lines: as `fill` was asked for."""
    day = filled.days[-1]
    per_day = lines // max((DAY - filled.days[0]).days + 1, 1)
    held = len(filled.days) * per_day
    hour = f"@timestamp:[{day:%Y-%m-%d}T11:00:00Z TO {day:%Y-%m-%d}T12:00:00Z}}"
    bars = f"@timestamp:[{day:%Y-%m-%d}T00:00:00Z TO {day + timedelta(days=1):%Y-%m-%d}T00:00:00Z}}"
    stamp = f"{day:%b %e}"
    addresses = sum((2 * place + 1) * lines // 40 < held for place in range(20))
    every = [_packed(folder, one) for one in filled.days]
    word = "a word that stands in one line"
    found = [
        Searched(word, NEEDLE, f"zstdcat *.zst | grep -c {NEEDLE}", int(lines // 3 < held)),
        Searched(
            f"an address ({addresses} lines)",
            f"source.ip:{ADDRESS}",
            f"zstdcat *.zst | grep -c -F {ADDRESS}",
            addresses,
        ),
        Searched(
            "a user in an hour (2 lines)",
            f"user.name:{USER} AND {hour}",
            f"zstdcat {every[-1].name} | grep -c '{stamp} 11:.* {USER} '",
            2,
        ),
        Searched(
            "histogram of a day", f"{bars} | histogram 1h", f"zstdcat {every[-1].name} | cut -c 6-14 | uniq -c", 24
        ),
    ]
    pipes = [
        (every, [["grep", "-c", NEEDLE]]),
        (every, [["grep", "-c", "-F", ADDRESS]]),
        (every[-1:], [["grep", "-c", f"{stamp} 11:.* {USER} "]]),
        (every[-1:], [["cut", "-c", "6-14"], ["uniq", "-c"]]),
    ]
    for one, (packed, peer) in zip(found, pipes, strict=True):
        query = one.query
        argv = [_VEDETTE, "search", query, "--data", str(folder), "--since", f"{filled.days[0]:%Y-%m-%d}T00:00:00Z"]
        argv += ["--until", f"{DAY + timedelta(days=1):%Y-%m-%d}T00:00:00Z", "--timeout", "10m", "--output", "json"]
        for run in range(runs + 1):
            ours, printed, memory = _timed([argv])
            if len(printed.splitlines()) != one.found:
                raise LossError(f"{one.what}: {len(printed.splitlines())} and not {one.found}")
            theirs, printed, _ = _timed([["zstdcat", *map(str, packed)], *peer])
            if peer[-1][0] == "grep" and int(printed) != one.found:
                raise LossError(f"{one.what}: the peer finds {printed!r}")
            if run:
                one.runs.append(ours)
                one.peers.append(theirs)
                one.memory = max(one.memory, memory)
        wall, cpu = one.wall, one.cpu
        say(
            f"{one.what}: {wall[0]:.2f} s, peer {wall[1]:.2f} s: {wall[1] / wall[0]:.1f}"
            f" (CPU {cpu[0]:.2f} s, {cpu[1]:.2f} s: {cpu[1] / cpu[0]:.1f}), {one.memory:.0f} MiB"
        )
    return found


def _timed(pipe: Sequence[Sequence[str]]) -> tuple[tuple[float, float], bytes, float]:
    """Wall and CPU seconds of a pipe of programs, what its last one wrote, and the MiB that one took at most."""
    began, cpu, memory = time.monotonic(), 0.0, 0
    running: list[subprocess.Popen[bytes]] = []
    for argv in pipe:
        source = running[-1].stdout if running else subprocess.DEVNULL
        running.append(subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        if len(running) > 1 and running[-2].stdout is not None:
            running[-2].stdout.close()
    assert running[-1].stdout is not None
    out = running[-1].stdout.read()
    running[-1].stdout.close()
    for one in running:
        _, status, used = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
        cpu, memory = cpu + used.ru_utime + used.ru_stime, used.ru_maxrss
    return (time.monotonic() - began, cpu), out, memory / 1024


@dataclass(frozen=True)
class Large:
    """The lake that was searched."""

    filled: Filled
    searched: list[Searched]


def searched(lines: int, days: int, minutes: float, runs: int, say: Say) -> Large:
    """Build the lake in a folder that is removed at the end, and search it."""
    with short_folder() as folder:
        filled = fill(folder, lines, days, minutes, say)
        say(f"{filled.lines:,} lines, {filled.raw / 1e9:.2f} GB raw, {filled.disk / 1e9:.2f} GB on the disk")
        return Large(filled, searches(folder, filled, lines, runs, say))

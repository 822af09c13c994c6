"""TCP syslog from one processor to another: `vedette up` until all is in its lake, rsyslog until all is in its file.
Counterpart: `bench.logging_send` sends; `bench.report_logging` writes the table."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.parts.netns import Namespace, NetLab
from tests.scenarios.parts.processes import PartError, short_folder, wait_until
from tests.scenarios.parts.vedette import Vedette

from bench.logging_lines import Lines, serials
from vedette.store.lake.reader import Reader

SIZE = 200
"""Bytes of a message without the newline that ends it."""
PATIENCE = 180.0
_SENDER, _RECEIVER = 0, 1
_TICKS = os.sysconf("SC_CLK_TCK")
_AT_ONCE = 64

Say = Callable[[str], None]


class LossError(RuntimeError):
    """What was sent is not what is there: the figure would be worth nothing."""


@dataclass(frozen=True)
class Received:
    """One run. cpu: user and system seconds of the receiver and its children from the first byte sent until `stored`.

    cost: where they went, seconds by thread name. seconds: wall, until everything could be found.
    """

    name: str
    messages: int
    seconds: float
    cpu: float
    rss: float
    threads: dict[str, float]

    @property
    def per_cpu_second(self) -> float:
        """Messages."""
        return self.messages / self.cpu


@contextmanager
def pinned(*processors: int) -> Iterator[None]:
    """What is started meanwhile runs there alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(processors) & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_of(pid: int) -> float:
    """User and system seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def threads_of(pid: int) -> dict[str, float]:
    """The same by the names of its threads; those that have ended are in none."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        found[name] = found.get(name, 0.0) + sum(map(int, rest.split()[11:13])) / _TICKS
    return found


def rss_of(pid: int, what: str = "VmHWM") -> float:
    """MiB resident at most (VmHWM), or now (VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what + ":"))


def stored(lake: Path, stream: str) -> int:
    """Records that are in the lake, and can be found there, of the streams whose names begin so."""
    reader = Reader(lake)
    try:
        # The manifest alone: it is asked all the time.
        from vedette.store.lake import manifest as m

        with reader._manifest.reading() as connection:
            names = m.streams(connection)
            total = 0
            for file in m.live_files(connection):
                held = m.contents(connection, file.id)
                if held is not None:
                    mine = [names[int(one)][1].startswith(stream) for one in held.stream]
                    total += int(held.records[mine].sum())
            return total
    finally:
        reader.close()


def found_in(lake: Path, stream: str) -> Counter[int]:
    """How often each number is in the lake, read record by record."""
    reader = Reader(lake)
    found: Counter[int] = Counter()
    try:
        after = 0
        while taken := reader.read(after, _AT_ONCE):
            after = taken[-1].sequence
            for one in taken:
                if one.key.stream.startswith(stream):
                    found.update(serials(one.batch.block))
    finally:
        reader.close()
    return found


def check(found: Counter[int], count: int, where: str) -> None:
    """LossError unless every number is there once."""
    if len(found) != count or found.total() != count or min(found) != 0 or max(found) != count - 1:
        raise LossError(f"{where}: sent {count}, there are {found.total()}, {len(found)} different ones")


def _send(space: Namespace, lines: Path, port: int) -> None:
    with pinned(_SENDER):
        argv = [sys.executable, "-m", "bench.logging_send", str(lines), str(port)]
        done = subprocess.run(space.argv(argv), capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode:
        raise PartError(f"the sender: {done.stderr}")


def vedette(folder: Path, lines: Path, count: int, *, packs: bool) -> Received:
    """`vedette up`, every message looked at, on the shelf, in lake and ledger, synced; then searched for."""
    lab = NetLab(folder / "lab")
    try:
        space = lab.namespace()
        settings = {
            "sources": {"syslog": {"listen": [{"tcp": "127.0.0.1:5514"}]}},
            "rules": {"packs": packs},
        }
        with pinned(_RECEIVER):
            one = Vedette(space, folder / "up", settings)
        try:
            pid = one.process.pid
            before, threads, began = cpu_of(pid), threads_of(pid), time.monotonic()
            _send(space, lines, 5514)
            lake = one.data / "lake"
            wait_until("all of it in the lake", lambda: _looked(lake) >= count, PATIENCE)
            seconds, cpu = time.monotonic() - began, cpu_of(pid) - before
            spent = {name: spent - threads.get(name, 0) for name, spent in threads_of(pid).items()}
            check(found_in(lake, "syslog:"), count, "the lake")
            last = f"n={count - 1:010d}"
            if len(one.records("search", f'"{last}"', "--since", "2026-11-01")) != 1:
                raise LossError(f"the search does not find {last}")
            rss = rss_of(pid)
        finally:
            one.close()
    finally:
        lab.close()
    name = "vedette up, all packs" if packs else "vedette up, no rules of packs"
    return Received(name, count, seconds, cpu, rss, {k: v for k, v in spent.items() if v})


def _looked(lake: Path) -> int:
    time.sleep(0.1)
    return stored(lake, "syslog:")


def rsyslog(folder: Path, lines: Path, count: int) -> Received:
    """rsyslogd, imtcp to omfile, one plain file."""
    lab = NetLab(folder / "lab")
    try:
        space = lab.namespace()
        here = folder / "rsyslog"
        here.mkdir()
        output = here / "received.log"
        configuration = here / "rsyslog.conf"
        configuration.write_text(
            f'global(workDirectory="{here}")\n'
            'module(load="imtcp")\n'
            'input(type="imtcp" address="127.0.0.1" port="5514")\n'
            f'*.* action(type="omfile" file="{output}")\n'
        )
        with pinned(_RECEIVER):
            process = space.start(
                ["rsyslogd", "-n", "-f", str(configuration), "-i", str(here / "rsyslog.pid")], name="rsyslogd"
            )
        wait_until("rsyslogd", lambda: bool(space.run(["ss", "-Htln", "sport = :5514"]).strip()))
        before, began = cpu_of(process.pid), time.monotonic()
        _send(space, lines, 5514)
        size = {0: -1}

        def quiet() -> bool:
            time.sleep(0.2)
            last, size[0] = size[0], output.stat().st_size
            return last == size[0] and size[0] > SIZE // 2 * count

        wait_until("all of it in the file", quiet, PATIENCE)
        seconds, cpu, rss = time.monotonic() - began, cpu_of(process.pid) - before, rss_of(process.pid)
        process.close()
        check(Counter(serials(output.read_bytes())), count, "rsyslog's file")
    finally:
        lab.close()
    return Received("rsyslog to a plain file", count, seconds, cpu, rss, {})


def measure(count: int, runs: int, say: Say) -> list[list[Received]]:
    """Each contender's runs, in turns."""
    found: list[list[Received]] = [[], [], []]
    with short_folder() as folder:
        lines = folder / "lines"
        made = Lines(rate=600, size=SIZE)
        with lines.open("wb") as out:
            for first in range(0, count, 50_000):
                out.write(made.block(min(50_000, count - first)))
        for run in range(runs):
            for place in range(3):
                at = folder / f"{run}{place}"
                at.mkdir(mode=0o755)
                one = vedette(at, lines, count, packs=place == 1) if place else rsyslog(at, lines, count)
                say(f"{one.name}: {one.per_cpu_second:,.0f} messages a CPU second ({one.seconds:.1f} s) {one.threads}")
                found[place].append(one)
    return found

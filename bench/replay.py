"""Times whole processes over the generated auth.log: `vedette replay`, and beside it sshguard's parser and pipe.
Counterpart: `bench.authlog` makes the input; `bench.report` writes the tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import authlog

SSHGUARD = Path("/usr/libexec/sshguard")
LIMIT = 300.0
"""Seconds after which a program is ended and the run counts as failed."""

Argv = Sequence[str]


@dataclass(frozen=True)
class Contender:
    """What is timed: one program, or several in a pipe. shown: the command as a person would type it."""

    name: str
    pipe: tuple[tuple[str, ...], ...]
    shown: str
    reads_stdin: bool = False


@dataclass(frozen=True)
class Run:
    """One timed run. cpu: user and system seconds of all processes, children included."""

    wall: float
    cpu: float


@dataclass
class Timed:
    """Runs of one thing and their medians."""

    runs: list[Run] = field(default_factory=list, kw_only=True)

    @property
    def wall(self) -> float:
        """Median wall seconds."""
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """Median CPU seconds."""
        return median(run.cpu for run in self.runs)


@dataclass
class Result(Timed):
    """All runs of one contender over one file. largest, together: peak resident MiB from a run of its own."""

    contender: Contender
    lines: int
    findings: int = 0
    largest: float = 0.0
    together: float = 0.0


def vedette(workers: int) -> Contender:
    """`vedette replay` with our packs, as installed beside this interpreter."""
    program = Path(sys.executable).with_name("vedette")
    arguments = ("replay", "FILE", "--output", "json", "--workers", str(workers))
    return Contender(
        f"vedette, {workers} worker{'s' if workers > 1 else ''}",
        ((str(program), *arguments),),
        f"vedette replay FILE --output json --workers {workers} > /dev/null",
    )


def sshguard() -> list[Contender]:
    """sshguard's parser alone and its whole pipe with a firewall that does nothing; empty where not installed."""
    parser, blocker, firewall = (SSHGUARD / name for name in ("sshg-parser", "sshg-blocker", "sshg-fw-null"))
    if not all(path.exists() for path in (parser, blocker, firewall)):
        return []
    # Its whitelist is a file by default; an absent one would end it.
    judge = (str(blocker), "-a", "30", "-p", "120", "-s", "1800")
    return [
        Contender("sshguard, parser only", ((str(parser),),), "sshg-parser < FILE > /dev/null", reads_stdin=True),
        Contender(
            "sshguard, whole pipe",
            ((str(parser),), judge, (str(firewall),)),
            "sshg-parser < FILE | sshg-blocker -a 30 -p 120 -s 1800 | sshg-fw-null > /dev/null",
            reads_stdin=True,
        ),
    ]


def once(
    contender: Contender, path: Path, *, keep: bool = False, watch: Callable[[list[int]], None] | None = None
) -> tuple[Run, bytes]:
    """One run to the end; its figures and, where kept, what its last program wrote (else that goes to /dev/null).

    RuntimeError when a program failed or did not end within LIMIT.
    """
    started: list[subprocess.Popen[bytes]] = []
    source = path.open("rb") if contender.reads_stdin else None
    last = len(contender.pipe) - 1
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        began = time.perf_counter()
        feed = source.fileno() if source else subprocess.DEVNULL
        for number, argv in enumerate(contender.pipe):
            process = subprocess.Popen(
                [str(path) if word == "FILE" else word for word in argv],
                stdin=feed,
                stdout=subprocess.PIPE if number < last else said if keep else subprocess.DEVNULL,
                stderr=complained,
                start_new_session=True,
            )
            if number and started[-1].stdout is not None:
                started[-1].stdout.close()
            started.append(process)
            feed = process.stdout.fileno() if process.stdout else subprocess.DEVNULL
        if source:
            source.close()
        if watch is not None:
            watch([process.pid for process in started])
        ender = threading.Timer(LIMIT, _end, [started])
        ender.start()
        cpu = 0.0
        failed = 0
        for process in started:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            failed = failed or process.returncode
            cpu += used.ru_utime + used.ru_stime
        wall = time.perf_counter() - began
        ender.cancel()
        said.seek(0)
        complained.seek(0)
        output = said.read()
        if failed:
            raise RuntimeError(f"{contender.shown}: exit {failed}: {complained.read()[-2000:]!r}")
    return Run(wall, cpu), output


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def memory(contender: Contender, path: Path) -> tuple[float, float]:
    """Peak MiB in a run that is not timed: of the largest process (VmHWM), and of all at once (sum of VmRSS).

    Pages that forked workers share are counted once per process, so the sum is an upper bound.
    """
    peaks: dict[int, int] = {}
    together = 0
    ended = threading.Event()

    def sample(roots: list[int]) -> None:
        nonlocal together
        while not ended.wait(0.01):
            now = 0
            for pid in _tree(roots):
                high, resident = _status(pid)
                peaks[pid] = max(peaks.get(pid, 0), high)
                now += resident
            together = max(together, now)

    samplers: list[threading.Thread] = []

    def watch(roots: list[int]) -> None:
        samplers.append(threading.Thread(target=sample, args=[roots], daemon=True))
        samplers[0].start()

    try:
        once(contender, path, watch=watch)
    finally:
        ended.set()
        for sampler in samplers:
            sampler.join(5)
    return max(peaks.values(), default=0) / 1024, together / 1024


def _tree(roots: list[int]) -> list[int]:
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def _status(pid: int) -> tuple[int, int]:
    """VmHWM and VmRSS in KiB; zeros for one that has ended."""
    values = {"VmHWM": 0, "VmRSS": 0}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in values:
                values[name] = int(rest.split()[0])
    except OSError:
        pass
    return values["VmHWM"], values["VmRSS"]


def compare(
    contenders: Sequence[Contender], lines: int, runs: int, *, say: Callable[[str], None] = lambda _: None
) -> list[Result]:
    """Each contender `runs` times over `lines` lines, in turns, so that what else goes on hits all alike."""
    path = authlog.cached(lines)
    results = [Result(contender, lines) for contender in contenders]
    for result in results:
        say(f"{result.contender.name}, {lines:,} lines: warm-up")
        _, output = once(result.contender, path, keep=True)
        result.findings = output.count(b"\n")
    for number in range(runs):
        for result in results:
            run, _ = once(result.contender, path)
            result.runs.append(run)
            say(f"{result.contender.name}, {lines:,} lines: run {number + 1}: {run.wall:.2f} s, {run.cpu:.2f} CPU s")
    for result in results:
        result.largest, result.together = memory(result.contender, path)
    return results


def all_of(runs: int, *, big: bool = True, say: Callable[[str], None] = lambda _: None) -> list[list[Result]]:
    """The tables: 1,000,000 lines against the peers; then 250,000 and 4,000,000, to show how memory grows."""
    ours = [vedette(1), vedette(2)]
    tables = [compare([*ours, *sshguard()], 1_000_000, runs, say=say)]
    for lines in (250_000, 4_000_000) if big else (250_000,):
        tables.append(compare([vedette(2)], lines, min(runs, 3), say=say))
    return tables

"""Times all of SigmaHQ's rules: whole replays of events, single events, many rules against few, the start.
Counterpart: `bench.events` makes the events; `bench.report_rules` writes the tables; the rules are the corpus's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench import events
from bench.replay import Contender, Timed, memory, once
from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of
from vedette.model.batch import REPLAY_HOST_ID, Batch, Origin, RecordFormat, split_lines
from vedette.model.rules import Rule

FOLDERS = ("rules", "rules-emerging-threats", "rules-threat-hunting")
WORKERS = 2
SINGLES = 4_000
"""Single events timed one by one, after as many again to warm up."""

_READ_AT = 1_795_132_800_000_000
_KINDS = ("flat", "winlogbeat", "nested", "audit")


def folders() -> list[Path]:
    """SigmaHQ's rules in the corpus; empty where it is not there."""
    corpus = Path(os.environ.get("VEDETTE_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "data")
    found = [corpus / "sigma" / name for name in FOLDERS]
    return found if all(path.is_dir() for path in found) else []


@dataclass
class Replayed(Timed):
    """Whole replays of one file of events. start: seconds of a replay of its first ten."""

    kind: str
    events: int
    megabytes: float
    findings: int = 0
    largest: float = 0.0
    start: float = 0.0


@dataclass(frozen=True)
class Single:
    """Milliseconds to parse and judge one event by itself."""

    what: str
    middle: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Compared:
    """CPU microseconds a record with few rules and with all."""

    what: str
    few: float
    many: float


@dataclass(frozen=True)
class Started:
    """Wall seconds of a replay of ten events, and MiB of its process. kept: whether compiled rules were."""

    kept: bool
    wall: float
    largest: float


@dataclass
class Measured:
    """All of it."""

    rules: int
    replays: list[Replayed]
    singles: list[Single]
    compared: list[Compared]
    starts: list[Started]
    built_mib: float = 0.0


def contender(cache: Path | None = None) -> Contender:
    """`vedette replay` with our packs and all rules of the corpus."""
    program = str(Path(sys.executable).with_name("vedette"))
    rules = [word for folder in folders() for word in ("--rules", str(folder))]
    options = ("--keep-going", "--output", "json", "--workers", str(WORKERS))
    argv = (program, "replay", "FILE", *rules, *options)
    if cache is not None:
        argv = ("/usr/bin/env", f"XDG_CACHE_HOME={cache}", *argv)
    return Contender("vedette", (argv,), f"vedette replay FILE --rules SIGMAHQ --keep-going --workers {WORKERS}")


def measure(runs: int, *, count: int = 200_000, say: Callable[[str], None] = lambda _: None) -> Measured:
    """All tables; `count` events a file."""
    starts = _starts(say)
    replays = [_replayed(kind, count, runs, say) for kind in _KINDS]
    rules = load_rules(folders(), keep_going=True)
    return Measured(len(rules), replays, _singles(rules, say), _compared(rules, say), starts, _built(say))


def _replayed(kind: str, count: int, runs: int, say: Callable[[str], None]) -> Replayed:
    path = events.cached(kind, count)
    result = Replayed(kind, count, path.stat().st_size / 1e6)
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / path.name
        few.write_bytes(events.blob(kind, 10))
        once(contender(), few)
        result.start = min(once(contender(), few)[0].wall for _ in range(3))
    _, output = once(contender(), path, keep=True)
    result.findings = output.count(b"\n")
    for number in range(runs):
        run, _ = once(contender(), path)
        result.runs.append(run)
        say(f"{kind}, {count:,} events: run {number + 1}: {run.wall:.2f} s, {run.cpu:.2f} CPU s")
    result.largest, _ = memory(contender(), path)
    return result


def batches(blob: bytes, form: RecordFormat, size: int) -> list[Batch]:
    """The records of `blob` in batches of about `size` bytes, one record each where `size` is 0."""
    out = []
    position = 0
    while position < len(blob):
        end = len(blob) if position + size >= len(blob) else blob.index(b"\n", position + size) + 1
        block = blob[position:end]
        starts, ends = split_lines(block)
        out.append(
            Batch(
                origin=Origin(REPLAY_HOST_ID, "bench"),
                number=len(out),
                block=block,
                starts=starts,
                ends=ends,
                positions=starts + position,
                read_at=_READ_AT,
                format=form,
                year=2026,
                spooled=True,
            )
        )
        position = end
    return out


def _singles(rules: Sequence[Rule], say: Callable[[str], None]) -> list[Single]:
    matcher = matcher_of(rules, counter=Counters())
    out = []
    for kind in ("flat", "nested"):
        one_by_one = batches(events.blob(kind, 2 * SINGLES), RecordFormat.JSON, 0)
        times = []
        for batch in one_by_one:
            began = time.perf_counter()
            matcher.match(batch)
            times.append((time.perf_counter() - began) * 1e3)
        middle, p99 = np.percentile(times[SINGLES:], (50, 99))
        out.append(Single(f"Sysmon, {kind}", float(middle), float(p99), max(times[SINGLES:])))
        say(f"single events, {kind}: median {middle:.2f} ms, p99 {p99:.2f} ms")
    return out


def _compared(rules: Sequence[Rule], say: Callable[[str], None]) -> list[Compared]:
    detecting = [rule for rule in rules if rule.correlate is None]
    few = detecting[:: max(1, len(detecting) // 10)][:10]
    quiet = b"".join(
        b"Nov 20 %02d:%02d:%02d web01 app[%d]: request %d served in %d ms\n"
        % (number // 3600 % 24, number // 60 % 60, number % 60, 100 + number % 7, number, number % 91)
        for number in range(200_000)
    )
    out = []
    for what, form, blob in (
        ("syslog lines that match nothing", RecordFormat.SYSLOG, quiet),
        ("Sysmon events, a realistic mix", RecordFormat.JSON, events.blob("flat", 40_000)),
    ):
        figures = []
        for chosen in (few, rules):
            matcher = matcher_of(chosen, counter=Counters())
            parts = batches(blob, form, 1 << 21)
            matcher.match(parts[0])
            began = time.process_time()
            for part in parts:
                matcher.match(part)
            figures.append((time.process_time() - began) * 1e6 / sum(map(len, parts)))
        out.append(Compared(what, *figures))
        say(f"{what}: {figures[0]:.2f} and {figures[1]:.2f} us a record")
    return out


def _starts(say: Callable[[str], None]) -> list[Started]:
    out = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten.json"
        path.write_bytes(events.blob("flat", 10))
        cache = Path(folder) / "cache"
        for kept in (False, True):
            walls = [once(contender(cache), path)[0].wall for _ in range(5 if kept else 1)]
            largest, _ = memory(contender(cache), path)
            out.append(Started(kept, median(walls), largest))
            say(f"start, {'kept' if kept else 'nothing kept'}: {median(walls):.2f} s, {largest:.0f} MiB")
    return out


def _built(say: Callable[[str], None]) -> float:
    """Peak MiB of a process that has all rules and every automaton ready, and has judged one batch."""
    done = subprocess.run([sys.executable, "-m", "bench.rules"], capture_output=True, text=True, check=True)
    say(f"all rules and automata: {float(done.stdout):.0f} MiB")
    return float(done.stdout)


def _build() -> None:
    matcher = matcher_of(load_rules(folders(), keep_going=True), counter=Counters())
    matcher.prepare()
    for kind in _KINDS[:3]:
        for batch in batches(events.blob(kind, 2_000), RecordFormat.JSON, 1 << 20):
            matcher.match(batch)
    # Not getrusage: that counts what the process was forked from, too.
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(high.split()[1]) / 1024)


if __name__ == "__main__":
    _build()

"""From the failure that reaches the threshold to dropped packets: a real sshd under a real attack, side by side.
Counterpart: tests/scenarios/parts are the real parts; `bench.report` writes the table."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from statistics import median

import yaml
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker, Attempt
from tests.scenarios.parts.netns import NetLab, Wire
from tests.scenarios.parts.processes import PartError, Process, short_folder, wait_until
from tests.scenarios.parts.sshd import Sshd, User
from tests.scenarios.parts.syslogs import Journald, Rsyslog

PARALLEL = 8
"""Connections the attacker keeps open at once, one password each."""
_GUESSES = 300
_WARM = 2.0
_AFTER = 2.0
_PATIENCE = 30.0
_OPTIONS = {"UsePAM": "no", "MaxStartups": "100:30:200", "LogLevel": "INFO"}
_WATCH = Path(__file__).with_name("nft_watch.py")
_FAILED = re.compile(r"Failed password for (?:invalid user )?(\S+) from \S+ port \d+ ssh2")

Failure = tuple[int, str]
"""Microseconds UTC at which the logger took the line, and the user, who is another one for every password."""


@dataclass(frozen=True)
class Setup:
    """What is measured. threshold: the failures after which it blocks; table: nftables family and name it makes."""

    name: str
    threshold: int
    log: str
    table: tuple[str, str]


VEDETTE_JOURNAL = Setup("vedette, journal", 5, "journal", ("inet", "vedette"))
VEDETTE_FILE = Setup("vedette, file (rsyslog)", 5, "file", ("inet", "vedette"))
SSHGUARD_FILE = Setup("sshguard, file (rsyslog)", 3, "file", ("ip", "sshguard"))


@dataclass(frozen=True)
class Blocked:
    """One run; times in milliseconds from the failure that reached the threshold as the logger stamped it.

    delay: until the kernel said that the set had the address. last_answer: until the attacker's last answer.
    past: passwords sshd judged after the threshold; of these in_flight were sent before the drop and judged after
    it. sent_after: passwords sent after the drop; reached: those of them that sshd judged.
    """

    delay: float
    last_answer: float
    past: int
    in_flight: int
    sent_after: int
    reached: int


def setups() -> list[Setup]:
    """What can be measured here: ours, and sshguard where it is installed with the nftables backend."""
    found = [VEDETTE_JOURNAL, VEDETTE_FILE]
    with suppress(OSError):
        if shutil.which("sshguard") and "sshg-fw-nft-sets" in Path("/etc/sshguard/sshguard.conf").read_text():
            found.append(SSHGUARD_FILE)
    return found


def command(setup: Setup) -> str:
    """What is started, as a person would type it."""
    if setup is SSHGUARD_FILE:
        return "sshguard -a 30 -p 120 -s 1800 auth.log"
    return "vedette up --config vedette.yml --data DIR"


def once(setup: Setup) -> Blocked:
    """One attack from start to drop. PartError when something did not come up or nothing was blocked in 30 s."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        lab = NetLab(folder)
        stack.callback(lab.close)
        wire = lab.wire()
        devlog, failures, source = _logger(setup, lab, folder)
        users = [User(f"guest{number:03d}", "the right one") for number in range(_GUESSES)]
        server = Sshd(wire.server, folder / "sshd", users, devlog=devlog, options=_OPTIONS)
        stack.callback(server.close)
        watch = wire.server.start([sys.executable, str(_WATCH), netns.ATTACKER], name="watch")
        wait_until("the observer", lambda: "ready" in watch.stdout)
        blocker = wire.server.start(_argv(setup, folder, source), name="blocker")
        stack.callback(blocker.close)
        wait_until(f"the table of {setup.name}", lambda: _has_table(wire, setup, blocker), timeout=_PATIENCE)
        if setup is not SSHGUARD_FILE:
            # The first start after an update compiles for seconds; what was logged before `up` is none of its business.
            wait_until(f"{setup.name} up", lambda: "up" in blocker.stderr.splitlines(), timeout=_PATIENCE)
        time.sleep(_WARM)
        attacker = Attacker(wire.world, netns.ATTACKER)
        jobs = [attacker.password_job(user.name, ["a wrong one"], timeout=3.0) for user in users]
        assault = attacker.start(jobs, parallel=PARALLEL)
        try:
            wait_until("a drop", lambda: _drops(watch) != [], timeout=_PATIENCE)
        except PartError as failure:
            raise PartError(
                f"{setup.name}: {failure}; it said: {blocker.stdout[-1000:]}{blocker.stderr[-2000:]}"
            ) from None
        # What was in flight is judged meanwhile, and the attacker goes on trying.
        time.sleep(_AFTER)
        attempts = assault.stop()
        return _judged(setup, sorted(failures()), _drops(watch)[0], attempts)


def _judged(setup: Setup, failures: list[Failure], drop: int, attempts: Sequence[Attempt]) -> Blocked:
    if len(failures) < setup.threshold:
        raise PartError(f"{setup.name} blocked at {len(failures)} failures, before its threshold")
    reached = failures[setup.threshold - 1][0]
    judged = {user for _, user in failures}
    sent = {attempt.user: attempt.sent for attempt in attempts if attempt.outcome in ("failed", "lost")}
    answers = [attempt.answered for attempt in attempts if attempt.outcome == "failed"]
    late = {user for user, moment in sent.items() if moment > drop}
    return Blocked(
        delay=(drop - reached) / 1000,
        last_answer=(max(answers, default=reached) - reached) / 1000,
        past=len(failures) - setup.threshold,
        in_flight=sum(moment > drop for moment, user in failures if user not in late),
        sent_after=len(late),
        reached=len(late & judged),
    )


def _logger(setup: Setup, lab: NetLab, folder: Path) -> tuple[Path, Callable[[], list[Failure]], Path]:
    """The socket for sshd, what reads the failures back, and the file or folder the blocker reads."""
    if setup.log == "journal":
        journal = Journald(lab.processes, folder / "journald", folder / "journal")
        return journal.devlog, lambda: list(_journal_failures(journal)), folder / "journal"
    output = folder / "auth.log"
    output.touch(0o640)
    rsyslog = Rsyslog(lab.processes, folder / "rsyslog", folder / "rsyslog.sock", output)
    return rsyslog.devlog, lambda: list(_file_failures(output)), output


def _journal_failures(journal: Journald) -> Iterator[Failure]:
    for entry in journal.entries():
        if found := _FAILED.match(str(entry.get("MESSAGE", ""))):
            yield int(str(entry["_SOURCE_REALTIME_TIMESTAMP"])), found[1]


def _file_failures(output: Path) -> Iterator[Failure]:
    for line in output.read_text(errors="replace").splitlines():
        stamp, _, rest = line.partition(" ")
        if found := _FAILED.search(rest):
            yield int(datetime.fromisoformat(stamp).timestamp() * 1_000_000), found[1]


def _argv(setup: Setup, folder: Path, source: Path) -> list[str]:
    if setup is SSHGUARD_FILE:
        # The thresholds are its defaults; the backend is the package's.
        return ["sshguard", "-a", "30", "-p", "120", "-s", "1800", str(source)]
    reads = (
        {"journal": {"folder": str(source)}}
        if setup.log == "journal"
        else {"file": [{"paths": [str(source)], "accept_forgeable": True}]}
    )
    configuration = folder / "vedette.yml"
    settings = {"version": 1, "sources": reads, "respond": {"ssh-brute-force-address": "enforce"}}
    configuration.write_text(yaml.safe_dump(settings))
    program = Path(sys.executable).with_name("vedette")
    return [str(program), "up", "--config", str(configuration), "--data", str(folder / "data")]


def _has_table(wire: Wire, setup: Setup, blocker: Process) -> bool:
    if blocker.poll() is not None:
        raise PartError(f"{setup.name} ended: {blocker.stdout[-1000:]}{blocker.stderr[-3000:]}")
    listed = wire.server.run(["nft", "list", "tables"]).splitlines()
    return f"table {setup.table[0]} {setup.table[1]}" in listed


def _drops(watch: Process) -> list[int]:
    whole, _, _ = watch.stdout.rpartition("\n")
    return [int(line) for line in whole.splitlines() if line.isdigit()]


def compare(
    wanted: Sequence[Setup], runs: int, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[Blocked]]:
    """Every set-up `runs` times in turns, the order turning too, so that what else goes on hits all alike."""
    results: dict[str, list[Blocked]] = {setup.name: [] for setup in wanted}
    with _swept():
        for number in range(runs):
            turn = number % len(wanted)
            for setup in [*wanted[turn:], *wanted[:turn]]:
                blocked = once(setup)
                results[setup.name].append(blocked)
                say(
                    f"{setup.name}, run {number + 1}: {blocked.delay:.1f} ms, in flight {blocked.in_flight}, "
                    f"sent after the drop {blocked.sent_after}, of these judged {blocked.reached}"
                )
    return results


@contextmanager
def _swept() -> Iterator[None]:
    if (why := netns.available()) is not None:
        raise PartError(why)
    netns.sweep()
    yield


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def summary(runs: Sequence[Blocked]) -> tuple[float, float, float]:
    """Median, 90th percentile and maximum of the delay in milliseconds."""
    delays = [run.delay for run in runs]
    return median(delays), quantile(delays, 0.9), max(delays)

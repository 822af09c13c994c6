"""Looks at ports of hosts in a namespace from another: the prober and `nmap -sT` in turns, with and without loss.
Counterpart: `bench.ports_look` is the program timed; `bench.report_ports` writes the tables."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.parts.listeners import filter_input, listen, lose
from tests.scenarios.parts.netns import Namespace, NetLab
from tests.scenarios.parts.processes import short_folder

from bench.replay import Run, Timed
from vedette.model.ports import PortState
from vedette.sources.ports.nmap import read_report

LISTENING = (22, 80, 443, 8080, 50_123)
LOSS = 5
"""Percent of the packets, each way."""
LIMIT = 1_200.0
"""Seconds after which a look is ended and counts as failed."""
HOSTS = tuple(f"192.0.2.{last}" for last in range(1, 201))

Said = dict[str, dict[int, PortState]]
"""By address, the ports that were not said to be closed."""


@dataclass(frozen=True)
class Task:
    """What is looked at. dropped: ports whose packets the host drops."""

    name: str
    last: int
    hosts: int = 1
    loss: int = 0
    dropped: range = range(0)

    @property
    def ports(self) -> int:
        """Of all hosts."""
        return self.last * self.hosts

    def truth(self) -> Said:
        """What there is to see."""
        one: dict[int, PortState] = {}
        one.update((port, PortState.OPEN) for port in LISTENING if port <= self.last)
        one.update((port, PortState.FILTERED) for port in self.dropped)
        return {address: dict(one) for address in HOSTS[: self.hosts]}


TASKS = (
    Task("one host, 65,535 ports", 65_535),
    Task("200 addresses, 1,024 ports", 1_024, 200),
    Task("one host, 1,024 ports, 900 of them dropped", 1_024, dropped=range(101, 1_001)),
    Task(f"one host, 65,535 ports, {LOSS} % loss", 65_535, loss=LOSS),
    Task(f"200 addresses, 1,024 ports, {LOSS} % loss", 1_024, 200, LOSS),
)
GROWING = tuple(Task(f"{hosts} x {last:,}", last, hosts) for last, hosts in (
    (8_192, 1), (16_384, 1), (32_768, 1), (65_535, 1), (1_024, 50), (1_024, 100), (1_024, 200),
))  # fmt: skip


@dataclass
class Seen(Timed):
    """All runs of one program over one task. packets: sent and got, a port, in the last run; wrong: ports whose
    verdict was not the truth, in the worst run; -1 = it did not end in time."""

    program: str
    task: Task
    sent: float = 0.0
    got: float = 0.0
    wrong: int = 0
    runs: list[Run] = field(default_factory=list, kw_only=True)


def vedette(task: Task) -> list[str]:
    """The command of ours."""
    look = Path(__file__).with_name("ports_look.py")
    return [sys.executable, str(look), f"1-{task.last}", *HOSTS[: task.hosts]]


def nmap(task: Task) -> list[str]:
    """The command of nmap, as a person gives it; names are not looked up and hosts are taken to be up, as by us."""
    return ["nmap", "-sT", "-n", "-Pn", "-p", f"1-{task.last}", "-oX", "-", *HOSTS[: task.hosts]]


PROGRAMS: dict[str, Callable[[Task], list[str]]] = {"vedette": vedette, "nmap -sT": nmap}


def read(program: str, output: bytes) -> Said:
    """What a program said, in one form."""
    if program == "vedette":
        return {
            address: {port: PortState(state) for state, ports in by_state.items() for port in ports}
            for address, by_state in json.loads(output).items()
        }
    out: Said = {}
    for address, report in read_report(output).items():
        said = {port: state for port, (state, _) in report.ports.items() if state is not PortState.CLOSED}
        if report.rest is not None and report.rest[0] is not PortState.CLOSED:
            said |= {port: report.rest[0] for port in range(1, 65_536) if port not in report.ports}
        out[address] = said
    return out


def wrong(task: Task, said: Said) -> int:
    """Ports whose verdict is not the truth."""
    count = 0
    for address, truth in task.truth().items():
        mine = {port: state for port, state in said.get(address, {}).items() if port <= task.last}
        count += task.last if address not in said else sum(truth.get(at) != mine.get(at) for at in {*truth, *mine})
    return count


def measure(
    runs: int, say: Callable[[str], None], tasks: Sequence[Task] = TASKS, growing: Sequence[Task] = GROWING
) -> tuple[list[Seen], list[Seen]]:
    """Every task by both programs in turns (those with loss once); and how the cost of ours grows. Needs root."""
    programs = [one for one in PROGRAMS if one == "vedette" or shutil.which("nmap")]
    with short_folder() as folder:
        lab = NetLab(folder)
        try:
            host, world = lab.namespace(), lab.namespace()
            _, device = lab.link(host, world, [f"{one}/24" for one in HOSTS], ["192.0.2.254/24"])
            listen(host, [f"{port}/tcp" for port in LISTENING])
            compared: list[Seen] = []
            for task in tasks:
                seen = {one: Seen(one, task) for one in programs}
                for _ in range(1 if task.loss else runs):
                    for one in seen.values():
                        _once(one, host, world, device)
                        say(f"{task.name}: {one.program}: {one.runs[-1].wall:.1f} s, {one.wrong} wrong")
                compared += seen.values()
            grown = [Seen("vedette", task) for task in growing]
            for one in grown:
                for _ in range(runs):
                    _once(one, host, world, device)
                say(f"{one.task.name}: {one.cpu:.2f} CPU s")
            return compared, grown
        finally:
            lab.close()


def _once(seen: Seen, host: Namespace, world: Namespace, device: str) -> None:
    task = seen.task
    host.run(["nft", "flush", "ruleset"])
    if task.dropped:
        filter_input(host, f"tcp dport {task.dropped.start}-{task.dropped.stop - 1} drop")
    if task.loss:
        lose(host, task.loss)
    before, used, began = _packets(world, device), _used(), time.monotonic()
    output = b""
    failed = False
    try:
        done = subprocess.run(world.argv(PROGRAMS[seen.program](task)), capture_output=True, timeout=LIMIT, check=True)
        output = done.stdout
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        failed = True
    seen.runs.append(Run(time.monotonic() - began, _used() - used))
    after = _packets(world, device)
    seen.sent, seen.got = ((now - then) / task.ports for now, then in zip(after, before, strict=True))
    if failed or seen.wrong < 0:
        seen.wrong = -1
    else:
        seen.wrong = max(seen.wrong, wrong(task, read(seen.program, output)))


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _packets(space: Namespace, device: str) -> list[int]:
    """Sent and got so far."""
    folder = f"/sys/class/net/{device}/statistics"
    return [int(one) for one in space.run(["cat", f"{folder}/tx_packets", f"{folder}/rx_packets"]).split()]

"""Agent to hub: lines a second and bytes on the wire, what an agent costs at rest, a hub with many agents for long.
Counterpart: tests/scenarios/parts/fleet.py are hub and agent; `bench.logging_agents` plays the many."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.parts.fleet import FleetAgent, FleetHub
from tests.scenarios.parts.netns import Namespace, NetLab
from tests.scenarios.parts.processes import short_folder, wait_until

from bench.logging_lines import Lines, serials
from bench.logging_syslog import LossError, Say, check, cpu_of, found_in, pinned, rss_of, stored
from vedette.store.lake.reader import Reader

SIZE = 300
AGENTS = 50
_AGENT, _HUB = 0, 1
_PATIENCE = 300.0
_SENT = re.compile(r"\bbytes_sent:(\d+)")


@dataclass(frozen=True)
class Shipped:
    """One run. wire: bytes the agent sent to the broker, TLS and acknowledgements of stored batches included.

    agent, hub, broker: CPU seconds; seconds: wall, from the first line written until all can be found in the lake.
    """

    lines: int
    seconds: float
    raw: int
    wire: int
    agent: float
    hub: float
    broker: float

    @property
    def rate(self) -> float:
        """Lines a second, wall."""
        return self.lines / self.seconds

    @property
    def possible(self) -> float:
        """Lines a second that agent and hub would do with a processor of their own each."""
        return self.lines / max(self.agent, self.hub + self.broker)


@dataclass(frozen=True)
class Resting:
    """An agent at so many lines a second. share: of one processor; rss: MiB at the end, most: at any time."""

    per_second: int
    seconds: float
    share: float
    rss: float
    most: float


@dataclass(frozen=True)
class Long:
    """A hub with many agents. rss: MiB of hub and broker at ten moments; the lag is from put to confirmed, seconds."""

    agents: int
    minutes: float
    sent: int
    stored: int
    rss: list[float] = field(default_factory=list)
    broker_rss: list[float] = field(default_factory=list)
    hub_cpu: float = 0.0
    lag: tuple[float, float, float] = (0.0, 0.0, 0.0)


@contextmanager
def _fleet(*names: str) -> Iterator[tuple[Namespace, FleetHub, list[FleetAgent], Path]]:
    """A hub on one processor, agents on the other, enrolled and up."""
    with short_folder() as folder, ExitStack() as stack:
        lab = NetLab(folder / "lab")
        stack.callback(lab.close)
        space = lab.namespace()
        hub = FleetHub(space, folder / "hub")
        stack.callback(hub.close)
        token = hub.token(len(names)) if names else ""
        with pinned(_HUB):
            hub.start()
        agents = []
        for name in names:
            agent = FleetAgent(space, folder / name)
            stack.callback(agent.close)
            agent.enrol(token, name)
            with pinned(_AGENT):
                agent.start()
            agents.append(agent)
        yield space, hub, agents, folder


def ship(count: int, say: Say) -> Shipped:
    """Lines of 300 bytes: file, agent, JetStream, lake."""
    made = Lines(rate=1000, size=SIZE, file=True)
    blocks = [made.block(min(20_000, count - first)) for first in range(0, count, 20_000)]
    with _fleet("web") as (space, hub, (agent,), _):
        pids = agent.process.pid, hub.process.pid, hub.broker
        stream = f"file:{agent.app}"
        there = stored(hub.data / "lake", stream)
        before, wire = [cpu_of(pid) for pid in pids], _sent(space, agent.process.pid)
        began = time.monotonic()
        with agent.app.open("ab") as out:
            for block in blocks:
                out.write(block)
        lake = hub.data / "lake"

        def there_now() -> bool:
            time.sleep(0.1)
            return stored(lake, stream) - there >= count

        wait_until("all of it in the hub's lake", there_now, _PATIENCE)
        seconds = time.monotonic() - began
        if hub.broker != pids[2]:
            raise LossError("the broker was started anew meanwhile, and its CPU time is not known")
        spent = [cpu_of(pid) - old for pid, old in zip(pids, before, strict=True)]
        sent = _sent(space, agent.process.pid) - wire
        check(found_in(lake, stream), count, "the hub's lake")
        if len(hub.records("search", f'"n={count - 1:010d}"', "--since", "2026-11-01")) != 1:
            raise LossError("the search on the hub does not find the last line")
        found = Shipped(count, seconds, sum(map(len, blocks)), sent, *spent)
        say(f"agent to lake: {found.rate:,.0f} lines/s, {found.possible:,.0f} by CPU; {found}")
        return found


def _sent(space: Namespace, pid: int) -> int:
    """Bytes sent on the connections of a process to the broker."""
    said = space.run(["ss", "-Htinp", "dport = :4222"])
    entries = re.split(r"\n(?=\S)", said)
    return sum(int(sent) for entry in entries if f"pid={pid}," in entry for sent in _SENT.findall(entry))


def rest(per_second: int, seconds: float, say: Say) -> Resting:
    """An agent that reads so many lines a second, all of its rules on."""
    with _fleet("web") as (_, hub, (agent,), _):
        made = Lines(rate=per_second, file=True)
        stream, lake, pid = f"file:{agent.app}", hub.data / "lake", agent.process.pid
        there, count, warmed = stored(lake, stream), 0, 0
        for warm in (True, False):
            before, began = cpu_of(pid), time.monotonic()
            while time.monotonic() < began + (3.0 if warm else seconds):
                with agent.app.open("ab") as out:
                    out.write(made.block(per_second // 20))
                count += per_second // 20
                time.sleep(max(began + (count - warmed) / per_second - time.monotonic(), 0))
            if warm:
                warmed = count
        spent, took = cpu_of(pid) - before, time.monotonic() - began
        found = Resting(round((count - warmed) / took), took, spent / took, rss_of(pid, "VmRSS"), rss_of(pid))
        wait_until("all of it in the lake", lambda: stored(lake, stream) - there >= count, _PATIENCE)
        check(found_in(lake, stream), count, "the hub's lake")
        say(f"agent at rest: {found}")
        return found


def long(minutes: float, say: Say, *, agents: int = AGENTS, lines: int = 20) -> Long:
    """A hub and many agents, each with some lines a second."""
    with _fleet() as (space, hub, _, folder):
        token = hub.token(agents)
        argv = [sys.executable, "-m", "bench.logging_agents", str(folder / "many"), "https://127.0.0.1:8443", token]
        (folder / "many").mkdir(mode=0o700)
        many = space.start([*argv, str(agents), str(lines), str(minutes * 60)], name="agents")
        wait_until("agents enrolled", lambda: "enrolled" in many.stdout or many.poll() is not None, _PATIENCE)
        began, before = time.monotonic(), cpu_of(hub.process.pid)
        rss, broker_rss = [], []
        for moment in range(1, 11):
            time.sleep(max(began + moment * minutes * 6 - time.monotonic(), 0))
            rss.append(rss_of(hub.process.pid, "VmRSS"))
            broker_rss.append(rss_of(hub.broker, "VmRSS"))
            say(f"{moment * minutes / 10:.1f} minutes: hub {rss[-1]:.0f} MiB, broker {broker_rss[-1]:.0f} MiB")
        spent = cpu_of(hub.process.pid) - before
        if many.wait(_PATIENCE):
            raise LossError(f"the agents ended: {many.stderr[-2000:]}")
        said = json.loads(many.stdout.splitlines()[-1])
        there = _by_host(hub.data / "lake")
        for host_id, sent in said["sent"].items():
            check(there.get(host_id, Counter()), sent, f"of agent {host_id} in the hub's lake")
        lag = said["lag_median"], said["lag_99"], said["lag_most"]
        total = sum(found.total() for found in there.values())
        found = Long(agents, minutes, sum(said["sent"].values()), total, rss, broker_rss, spent, lag)
        say(f"{found}")
        return found


def _by_host(lake: Path) -> dict[str, Counter[int]]:
    """The numbers in the lake of each host."""
    reader = Reader(lake)
    found: dict[str, Counter[int]] = {}
    try:
        after = 0
        while taken := reader.read(after, 256):
            after = taken[-1].sequence
            for one in taken:
                if one.key.stream.startswith("file:"):
                    found.setdefault(one.key.host_id, Counter()).update(serials(one.batch.block))
    finally:
        reader.close()
    return found

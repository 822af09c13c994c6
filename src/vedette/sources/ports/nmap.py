"""Looks where connecting cannot: UDP, half-open TCP, and what a service says it is, by nmap where it is installed.
Counterpart: `prober` connects and needs nothing; `app.ports` asks both, `system.exec` runs the program."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from xml.parsers import expat

from vedette.model.clock import Clock
from vedette.model.ports import (
    HIGHEST_PORT,
    Network,
    Observation,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
)
from vedette.sources.ports.targets import Target, answers_everything, canaries
from vedette.system.exec import Finished, run
from vedette.text.addresses import canonical, contains
from vedette.text.escape import shorten, terminal

PROGRAM = "nmap"
_MOST_OUTPUT = 256 << 20
"""Bytes of one report; nmap itself cuts what a service says to some hundred characters."""
_MOST_SERVICE = 160
_SPARE = 5.0
"""Seconds nmap gets to write its report, once its time for a host is over."""

Verdict = tuple[PortState, SeenWhy]


class Technique(StrEnum):
    """A way to look. SERVICE: asks open TCP ports, by connecting, what they are; the others need root."""

    SYN = "syn"
    UDP = "udp"
    SERVICE = "service"


_FLAGS: Mapping[Technique, tuple[str, ...]] = {
    Technique.SYN: ("-sS",),
    Technique.UDP: ("-sU",),
    Technique.SERVICE: ("-sT", "-sV", "--version-intensity", "5"),
}
_PROHIBITED = frozenset({"admin-prohibited", "host-prohibited", "net-prohibited", "port-unreach", "proto-unreach"})
_UNREACHABLE: Mapping[str, SeenWhy] = {
    "host-unreach": SeenWhy.HOST_UNREACHABLE,
    "net-unreach": SeenWhy.NETWORK_UNREACHABLE,
    "dest-unreach": SeenWhy.HOST_UNREACHABLE,
    "time-exceeded": SeenWhy.NETWORK_UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class NmapLimits:
    """host_seconds: for one address, past it nothing is known of it. seconds: for a whole look. rate: packets a
    second, 0 = as nmap sees fit."""

    host_seconds: float = 600.0
    seconds: float = 1_800.0
    rate: float = 0.0


@dataclass(slots=True)
class HostReport:
    """What one report says of one address. rest: of every port not in `ports`, None where it does not say.

    cut: nmap gave up on it. services: what a port says it is, made harmless.
    """

    address: str
    ports: dict[int, Verdict] = field(default_factory=dict)
    services: dict[int, str] = field(default_factory=dict)
    rest: Verdict | None = None
    up: bool = True
    cut: bool = False

    def verdict(self, port: int) -> Verdict:
        """Of one port; unknown where the report does not say."""
        return self.ports.get(port) or self.rest or (PortState.UNKNOWN, SeenWhy.NOT_PROBED)


class Nmap:
    """Asks nmap about addresses of one's own. The network namespace is the caller's, and so is the thread.

    stop: set from another thread ends it early; what was not finished is unknown.
    """

    def __init__(
        self,
        clock: Clock,
        own_networks: Sequence[Network],
        *,
        limits: NmapLimits | None = None,
        stop: threading.Event | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._own = tuple(own_networks)
        self._limits = limits or NmapLimits()
        self._stop = stop or threading.Event()
        self._chance = chance or random.SystemRandom()

    def look(self, targets: Sequence[Target], vantage: str, technique: Technique) -> list[Survey]:
        """One survey for each target, in their order; of what nmap could not say every state is unknown, and why."""
        end = time.monotonic() + self._limits.seconds
        alike: dict[tuple[bool, tuple[PortRange, ...]], list[Target]] = {}
        for one in targets:
            if contains(self._own, one.address) and one.ports:
                alike.setdefault((":" in one.address, one.ports), []).append(one)
        found: dict[int, Survey] = {}
        for (_, ports), group in alike.items():
            for one, survey in zip(group, self._group(group, ports, vantage, technique, end), strict=True):
                found[id(one)] = survey
        now = self._clock.now()
        outside = (SeenWhy.OUTSIDE_OWN_NETWORKS, TargetCondition.REFUSED)
        return [found.get(id(one)) or _untold(one, technique, vantage, now, now, *outside) for one in targets]

    def name_services(self, surveys: Sequence[Survey], vantage: str) -> list[Survey]:
        """The same surveys, with what their open TCP ports say they are, where they say it."""
        asked: dict[int, Target] = {}
        for number, survey in enumerate(surveys):
            opened = sorted(survey.ports_in(PortState.OPEN)) if survey.protocol is Protocol.TCP else []
            if opened and survey.condition is TargetCondition.ANSWERS:
                ports = tuple(PortRange(port, port) for port in opened)
                asked[number] = Target(survey.host, survey.address, ports)
        told = dict(zip(asked, self.look(list(asked.values()), vantage, Technique.SERVICE), strict=True))
        return [_with_services(one, told[at]) if at in told else one for at, one in enumerate(surveys)]

    def _group(
        self, group: Sequence[Target], ports: tuple[PortRange, ...], vantage: str, technique: Technique, end: float
    ) -> list[Survey]:
        started = self._clock.now()
        also = canaries(self._chance, ()) if technique is Technique.SYN else frozenset[int]()
        finished, why = self._run(group, (*ports, *(PortRange(one, one) for one in also)), technique, end)
        reports = read_report(finished.stdout) if finished is not None else {}
        ended = self._clock.now()
        surveys = []
        for one in group:
            report = reports.get(one.address)
            if why is not None and report is None:
                surveys.append(_untold(one, technique, vantage, started, ended, why))
            else:
                surveys.append(_survey(one, technique, vantage, started, ended, report, also))
        return surveys

    def _run(
        self, group: Sequence[Target], ports: Iterable[PortRange], technique: Technique, end: float
    ) -> tuple[Finished | None, SeenWhy | None]:
        """What nmap gave, and why that is not everything."""
        left = end - time.monotonic()
        if self._stop.is_set() or left <= 0:
            return None, SeenWhy.NOT_PROBED
        patience = min(self._limits.host_seconds, left)
        command = [PROGRAM, *_FLAGS[technique], "-n", "-Pn", "-oX", "-", "-iL", "-", "-p", _written(ports)]
        command += ["--host-timeout", f"{max(int(patience * 1_000), 1)}ms"]
        if self._limits.rate:
            command += ["--max-rate", f"{self._limits.rate:.3f}"]
        if ":" in group[0].address:
            command.append("-6")
        addresses = "".join(f"{one.address}\n" for one in group).encode("ascii")
        try:
            finished = run(command, stdin=addresses, timeout=left + _SPARE, stop=self._stop)
        except OSError:
            return None, SeenWhy.NO_TOOL
        if finished.returncode == -9:
            return finished, SeenWhy.NOT_PROBED
        if finished.returncode and technique is not Technique.SERVICE and os.geteuid() != 0:
            return finished, SeenWhy.NOT_PERMITTED
        return finished, SeenWhy.NO_TOOL if finished.returncode else None


def read_report(report: bytes) -> dict[str, HostReport]:
    """What nmap's XML says, by canonical address; as far as it goes, where it was cut or is none.

    No entity is ever expanded: a document that declares one is given up there.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.EntityDeclHandler = reader.refuse
    try:
        parser.Parse(report[:_MOST_OUTPUT], len(report) <= _MOST_OUTPUT)
    except (expat.ExpatError, _RefusedError):
        pass  # what was whole before it counts
    return reader.hosts


class _RefusedError(Exception):
    """The document declares an entity."""


class _Reader:
    """Takes elements as they come; keeps a host once it is whole."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostReport] = {}
        self._host: HostReport | None = None
        self._port = 0
        self._protocol = ""
        self._unlisted: list[tuple[Verdict, str | None]] = []
        self._state = ""

    def refuse(self, *_declared: object) -> None:
        raise _RefusedError

    def begin(self, name: str, given: dict[str, str]) -> None:
        if name == "host":
            self._host, self._unlisted = HostReport("", cut=given.get("timedout") == "true"), []
        host = self._host
        if host is None:
            return
        match name:
            case "status":
                host.up = given.get("state") == "up"
            case "address" if given.get("addrtype") in ("ipv4", "ipv6"):
                host.address = canonical(given.get("addr", "")) or ""
            case "port":
                number = given.get("portid", "")
                self._port = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
                self._protocol = given.get("protocol", "")
            case "state" if 0 < self._port <= HIGHEST_PORT:
                verdict = _verdict(given.get("state", ""), given.get("reason", ""), self._protocol)
                host.ports[self._port] = verdict
            case "service" if given.get("method") == "probed" and 0 < self._port <= HIGHEST_PORT:
                host.services[self._port] = _service(given)
            case "extraports":
                self._state = given.get("state", "")
            case "extrareasons":
                verdict = _verdict(self._state, given.get("reason", ""), given.get("proto", ""))
                self._unlisted.append((verdict, given.get("ports")))
            case _:
                pass

    def end(self, name: str) -> None:
        if name == "port":
            self._port = 0
        elif name == "host" and self._host is not None:
            host, self._host = self._host, None
            if len(self._unlisted) == 1:
                host.rest = self._unlisted[0][0]
            else:
                for verdict, ports in self._unlisted:
                    for port in _listed(ports or ""):
                        host.ports.setdefault(port, verdict)
            if host.address:
                self.hosts[host.address] = host


def _verdict(state: str, reason: str, protocol: str) -> Verdict:
    if state == "open":
        return PortState.OPEN, SeenWhy.ACCEPTED
    if state == "closed":
        return PortState.CLOSED, SeenWhy.REFUSED
    if state == "filtered":
        if reason in _PROHIBITED:
            return PortState.FILTERED, SeenWhy.PROHIBITED
        if reason in _UNREACHABLE:
            return PortState.FILTERED, _UNREACHABLE[reason]
        return PortState.FILTERED, SeenWhy.TIMEOUT
    # open|filtered, closed|filtered, unfiltered, and whatever a later nmap says.
    return PortState.UNKNOWN, SeenWhy.NO_RESPONSE if protocol == "udp" else SeenWhy.NOT_PROBED


def _service(given: Mapping[str, str]) -> str:
    tunnel = f"{given['tunnel']}/" if given.get("tunnel") else ""
    words = [tunnel + given.get("name", ""), given.get("product", ""), given.get("version", "")]
    return shorten(terminal(" ".join(one for one in words if one)), _MOST_SERVICE)


def _listed(ports: str) -> list[int]:
    """The ports of `1-9,22`; what is none is left out, so that they are unknown."""
    out: list[int] = []
    for one in ports.split(","):
        first, dash, last = one.partition("-")
        if first.isascii() and first.isdigit() and len(first) < 6:
            high = last if dash else first
            if high.isascii() and high.isdigit() and len(high) < 6:
                out += range(int(first), min(int(high), HIGHEST_PORT) + 1)
    return out


def _written(ports: Iterable[PortRange]) -> str:
    """As nmap takes them: sorted, and none twice, for it warns of those."""
    wanted = sorted({port for one in ports for port in range(one.first, one.last + 1)})
    parts: list[list[int]] = []
    for port in wanted:
        if parts and parts[-1][1] == port - 1:
            parts[-1][1] = port
        else:
            parts.append([port, port])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _survey(
    target: Target,
    technique: Technique,
    vantage: str,
    started: int,
    ended: int,
    report: HostReport | None,
    also: Iterable[int],
) -> Survey:
    if report is not None and report.cut:
        return _untold(target, technique, vantage, started, ended, SeenWhy.NOT_PROBED)
    if report is None or not report.up:
        down = (SeenWhy.NO_ANSWER_AT_ALL, TargetCondition.DOWN)
        return _untold(target, technique, vantage, started, ended, *down)
    if answers_everything(report.verdict(port)[0] is PortState.OPEN for port in also):
        front = (SeenWhy.ANSWERS_EVERYTHING, TargetCondition.ANSWERS_EVERYTHING)
        return _untold(target, technique, vantage, started, ended, *front)
    asked = [port for one in target.ports for port in range(one.first, one.last + 1)]
    counts = Counter(report.verdict(port) for port in asked)
    answers = sum(count for (state, _), count in counts.items() if state in (PortState.OPEN, PortState.CLOSED))
    if technique is not Technique.UDP and not answers:
        unreachable = any(why is SeenWhy.HOST_UNREACHABLE for _, why in counts)
        why = SeenWhy.HOST_UNREACHABLE if unreachable else SeenWhy.NO_ANSWER_AT_ALL
        return _untold(target, technique, vantage, started, ended, why, TargetCondition.DOWN)
    rest = counts.most_common(1)[0][0]
    protocol = Protocol.UDP if technique is Technique.UDP else Protocol.TCP
    seen = tuple(
        Observation(
            target.host, target.address, port, protocol, state, vantage, ended, 1, why, report.services.get(port, "")
        )
        for port, (state, why) in ((port, report.verdict(port)) for port in asked)
        if (state, why) != rest or port in report.services
    )
    return Survey(
        target.host,
        target.address,
        protocol,
        vantage,
        started,
        ended,
        target.ports,
        *rest,
        seen,
        connections=len(asked),
        answers=answers,
    )


def _untold(
    target: Target,
    technique: Technique,
    vantage: str,
    started: int,
    ended: int,
    why: SeenWhy,
    condition: TargetCondition = TargetCondition.ANSWERS,
) -> Survey:
    protocol = Protocol.UDP if technique is Technique.UDP else Protocol.TCP
    unknown = PortState.UNKNOWN
    return Survey(
        target.host, target.address, protocol, vantage, started, ended, target.ports, unknown, why, condition=condition
    )


def _with_services(survey: Survey, told: Survey) -> Survey:
    seen = {one.port: one for one in survey.observations}
    for one in told.observations:
        mine = survey.observed(one.port)
        if one.service and mine is not None and mine.state is PortState.OPEN:
            seen[one.port] = replace(mine, service=one.service)
    return replace(survey, observations=tuple(seen[port] for port in sorted(seen)))

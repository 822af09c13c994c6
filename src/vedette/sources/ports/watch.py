"""Looks over time: which disagreements are new, which last and which are over, without crying over every flap. Pure.
Counterpart: `source` looks on schedule and asks here what is to be said; the state goes into its cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from vedette.model.clock import HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.ports import (
    DRIFT_LEVELS,
    Drift,
    DriftKind,
    PortPolicy,
    PortRange,
    PortState,
    Protocol,
    Survey,
    TargetCondition,
)
from vedette.sources.ports.records import Record, change_record, drift_fields, drift_record, ended_record

_NAME, _VERSION = "vedette-ports", 1
_REMEMBERED = 6 * HOUR
"""How long it is remembered that something began, to tell what flaps."""
_MOST_PATIENCE = 12
"""So many looks without it end even what flaps most."""
_SAID_ONCE = frozenset({DriftKind.POLICY_WIDENED, DriftKind.INVENTORIES_DISAGREE, DriftKind.COULD_NOT_TELL_TOO_LONG})
"""Read and not looked at: looking again makes nothing surer."""

_SIGNS_OF_LIFE, _SOME = 4, 8
_SHUT = frozenset({PortState.CLOSED, PortState.FILTERED})

Key = tuple[str, str, str, int, str, str]
"""As `Drift.key`: kind, host, address, port, protocol, vantage."""
Place = tuple[str, str, str, str]
"""Host, address, protocol, vantage."""
Asked = dict[tuple[str, Protocol], list[PortRange]]


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look gave. whole: at everything policy wants looked at; else at some of it."""

    policy: PortPolicy
    surveys: tuple[Survey, ...]
    drifts: tuple[Drift, ...]
    whole: bool = True


class _Standing(msgspec.Struct):
    """A drift that was told. clean: looks without it since it was last seen."""

    key: Key
    since: int
    fields: dict[str, Any]
    clean: int = 0


class _Open(msgspec.Struct):
    """The open ports of one address, as last seen from one vantage."""

    host: str
    address: str
    protocol: str
    vantage: str
    ports: list[int]


class _Kept(msgspec.Struct):
    """Everything the cursor holds."""

    name: str
    version: int
    standing: list[_Standing]
    begun: list[tuple[Key, list[int]]]
    open: list[_Open]
    position: int = 0


@dataclass(slots=True)
class Watch:
    """What is known from look to look. too_long: microseconds after which not being able to tell is news itself."""

    too_long: int = HOUR
    position: int = 0
    _standing: dict[Key, _Standing] = field(default_factory=dict)
    _begun: dict[Key, list[int]] = field(default_factory=dict)
    _open: dict[Place, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def restored(cls, cursor: str, too_long: int = HOUR) -> Watch:
        """As it stood when `cursor` was made; StateError for one of a newer version, or that cannot be read."""
        if not cursor:
            return cls(too_long)
        try:
            kept = msgspec.json.decode(cursor, type=_Kept)
        except msgspec.MsgspecError as error:
            raise StateError(f"the cursor of the source ports cannot be read: {error}") from None
        if (kept.name, kept.version) != (_NAME, _VERSION):
            raise StateError(
                f"the cursor of the source ports is {kept.name} version {kept.version}, this program knows {_VERSION}",
                hint="run the newer program, or take the source's cursor away: open drifts are then told again",
            )
        return cls(
            too_long,
            kept.position,
            {one.key: one for one in kept.standing},
            dict(kept.begun),
            {(one.host, one.address, one.protocol, one.vantage): frozenset(one.ports) for one in kept.open},
        )

    def cursor(self) -> str:
        """Everything that must outlive a restart."""
        opened = [_Open(*place, sorted(ports)) for place, ports in self._open.items()]
        kept = _Kept(_NAME, _VERSION, list(self._standing.values()), list(self._begun.items()), opened, self.position)
        return msgspec.json.encode(kept).decode()

    # ------------------------------------------------------------------------------------------ before a word is said

    def doubtful(self, looked: Looked) -> Asked:
        """What must be looked at again first: whatever is new, and whatever seems to be over."""
        seen = {one.key for one in looked.drifts}
        keys = [one.key for one in looked.drifts if one.key not in self._standing and one.kind not in _SAID_ONCE]
        told = _Told(looked)
        # Of an address as a whole, an answer is proof; of a port, silence is not.
        keys += [key for key in self._standing if key[3] and key not in seen and told.about(key)]
        asked: Asked = {}
        for _, host, address, port, protocol, _ in keys:
            spans = asked.setdefault((host, Protocol(protocol)), [])
            if port:
                spans.append(PortRange(port, port))
            else:
                spans += told.some_of(host, address, protocol)
        return self._with_life(asked, looked)

    def wanted(self, policy: PortPolicy) -> Asked:
        """What a short look is for: services that must answer, and every port that drifts now."""
        asked: Asked = {}
        for host in policy.hosts:
            for opening in host.openings:
                if opening.must_answer:
                    asked.setdefault((host.name, opening.protocol), []).append(opening.ports)
        for _, host_name, _, port, protocol, _ in self._standing:
            if port and policy.host(host_name) is not None:
                asked.setdefault((host_name, Protocol(protocol)), []).append(PortRange(port, port))
        return self._with_life(asked)

    def _with_life(self, asked: Asked, looked: Looked | None = None) -> Asked:
        """With a few ports of each host that do answer: one of which only silent ports are asked would seem down."""
        opened = {(host, protocol): sorted(ports) for (host, _, protocol, _), ports in self._open.items() if ports}
        for survey in looked.surveys if looked is not None else ():
            if ports := survey.ports_in(PortState.OPEN):
                opened[survey.host, survey.protocol.value] = sorted(ports)
        for (host, protocol), spans in asked.items():
            spans += (PortRange(port, port) for port in opened.get((host, protocol.value), ())[:_SIGNS_OF_LIFE])
        return asked

    # ------------------------------------------------------------------------------------------ what is to be said

    def take(self, first: Looked, again: Looked | None, now: int) -> list[Record]:
        """The records of one look, `again` being that at what was doubtful of it. now: microseconds UTC."""
        drifts = {one.key: one for one in first.drifts}
        second = _Told(again) if again is not None else None
        if again is not None and second is not None:
            confirmed = {one.key: one for one in again.drifts}
            for key in list(drifts):
                if key in confirmed:
                    drifts[key] = confirmed[key]
                elif key not in self._standing and drifts[key].kind not in _SAID_ONCE and second.about(key):
                    # Seen once and not the second time: not worth a word yet.
                    del drifts[key]
        self._add_too_long(drifts, now)
        records = self._changes(first, again, now)
        self._forget(now)
        for key, drift in drifts.items():
            standing = self._standing.get(key)
            if standing is None:
                self._standing[key] = _Standing(key, now, drift_fields(drift))
                self._begun.setdefault(key, []).append(now)
                records.append(drift_record(drift, now))
            else:
                standing.clean = 0
        told = _Told(first)
        for key, standing in list(self._standing.items()):
            if key in drifts or not self._over(key, told, second, again):
                continue
            standing.clean += 1
            if standing.clean >= self._patience(key):
                del self._standing[key]
                records.append(ended_record(standing.fields, standing.since, now))
        self.position += len(records)
        return records

    def _over(self, key: Key, first: _Told, second: _Told | None, again: Looked | None) -> bool:
        """Whether looking says that a drift is not there any more."""
        if key[0] == DriftKind.COULD_NOT_TELL_TOO_LONG and key[5]:
            return (DriftKind.COULD_NOT_TELL.value, *key[1:]) not in self._standing
        if first.gone(key):
            return True
        if not first.about(key):
            return False
        # What was clean twice is over; a second look that could not tell leaves it as it was.
        return (
            not key[3]
            or second is None
            or again is None
            or (second.about(key) and all(key != one.key for one in again.drifts))
        )

    def _patience(self, key: Key) -> int:
        return min(max(1, len(self._begun.get(key, ()))), _MOST_PATIENCE)

    def _add_too_long(self, drifts: dict[Key, Drift], now: int) -> None:
        kind = DriftKind.COULD_NOT_TELL_TOO_LONG
        for drift in list(drifts.values()):
            standing = self._standing.get(drift.key)
            if drift.kind is DriftKind.COULD_NOT_TELL and standing and now - standing.since >= self.too_long:
                minutes = (now - standing.since) // MINUTE
                advice = f"nothing is known of it for {minutes} minutes: {drift.advice}"
                longer = replace(drift, kind=kind, level=DRIFT_LEVELS[kind], advice=advice)
                drifts.setdefault(longer.key, longer)

    def _changes(self, first: Looked, again: Looked | None, now: int) -> list[Record]:
        """Ports that opened or closed since the last look; where both looks speak of a port, the second one counts."""
        later = {_place(one): one for one in again.surveys} if again is not None else {}
        records: list[Record] = []
        for survey in first.surveys:
            if survey.condition is not TargetCondition.ANSWERS:
                continue
            place = _place(survey)
            seen = {port: survey.observed(port) for port in survey.ports_in(PortState.OPEN) | self._opened(place)}
            second = later.get(place)
            if second is not None and second.condition is TargetCondition.ANSWERS:
                seen |= {port: better for port in seen if (better := second.observed(port)) is not None}
                seen |= {port: second.observed(port) for port in second.ports_in(PortState.OPEN)}
            opened = {port for port, one in seen.items() if one is not None and one.state is PortState.OPEN}
            shut = {port for port, one in seen.items() if one is not None and one.state in _SHUT}
            known = self._open.get(place)
            if known is None:
                if first.whole:
                    self._open[place] = frozenset(opened)
                continue
            for port in sorted((opened - known) | (shut & known)):
                one = seen[port]
                assert one is not None
                before = PortState.OPEN if port in known else PortState.CLOSED
                records.append(change_record(one, before, now))
            self._open[place] = (known | opened) - shut
        if first.whole:
            hosts = {one.name for one in first.policy.hosts}
            self._open = {place: ports for place, ports in self._open.items() if place[0] in hosts}
        return records

    def _opened(self, place: Place) -> frozenset[int]:
        return self._open.get(place, frozenset())

    def _forget(self, now: int) -> None:
        """Let go of beginnings so old that they say nothing of flapping."""
        self._begun = {
            key: recent
            for key, times in self._begun.items()
            if (recent := [at for at in times if now - at <= _REMEMBERED][-_MOST_PATIENCE:]) or key in self._standing
        }


def _place(survey: Survey) -> Place:
    return (survey.host, survey.address, survey.protocol.value, survey.vantage)


@dataclass(slots=True)
class _Told:
    """What a look can speak of."""

    looked: Looked
    _surveys: Mapping[Place, Survey] = field(init=False)

    def __post_init__(self) -> None:
        self._surveys = {_place(one): one for one in self.looked.surveys}

    def about(self, key: Key) -> bool:
        """Whether it says something of what `key` is about, and knows it."""
        kind, host, address, port, protocol, vantage = key
        if kind in _SAID_ONCE:
            return self.looked.whole
        survey = self._surveys.get((host, address, protocol, vantage))
        if survey is None:
            return False
        if not port:
            return True
        if kind == DriftKind.COULD_NOT_TELL:
            return survey.observed(port) is not None
        if survey.condition is not TargetCondition.ANSWERS:
            return False
        seen = survey.observed(port)
        return seen is not None and seen.state is not PortState.UNKNOWN

    def some_of(self, host: str, address: str, protocol: str) -> list[PortRange]:
        """A few of the ports an address was asked for."""
        found: list[PortRange] = []
        for survey in self.looked.surveys:
            if (survey.host, survey.address, survey.protocol.value) == (host, address, protocol):
                found += (PortRange(one.first, min(one.last, one.first + _SOME)) for one in survey.asked[:_SOME])
        return found

    def gone(self, key: Key) -> bool:
        """Whether it was at everything, and nobody asks any more for what `key` is about."""
        if not self.looked.whole:
            return False
        kind, host, address, port, protocol, vantage = key
        if kind in _SAID_ONCE:
            return False
        survey = self._surveys.get((host, address, protocol, vantage))
        if survey is None:
            return True
        return bool(port) and not any(port in span for span in survey.asked)

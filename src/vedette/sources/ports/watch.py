"""Looks over time: which disagreements are new, which last and which are over, without crying over every flap. Pure.
Counterpart: `source` looks on schedule and asks here what is to be said; the state goes into its cursor."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

import msgspec

from vedette.model.clock import HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.ports import (
    DRIFT_LEVELS,
    Drift,
    DriftKind,
    Observation,
    PortPolicy,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
    joined,
)
from vedette.sources.ports.records import Key, Record, change_record, drift_record, ended_record

_NAME, _VERSION = "vedette-ports", 1
_REMEMBERED = 6 * HOUR
"""How long it is remembered that something began, to tell what flaps."""
_MOST_BEGINNINGS, _MOST_PATIENCE = 12, 64
"""So many of them are remembered; so many looks without it end even what flaps most."""
_REMIND = 4 * HOUR
"""What lasts so long is told again: an alert that a person resolved though nothing was mended opens anew."""

_SIGNS_OF_LIFE, _SOME = 4, 8
_SHUT = frozenset({PortState.CLOSED, PortState.FILTERED})
_UNTOLD = frozenset({DriftKind.COULD_NOT_TELL, DriftKind.COULD_NOT_TELL_TOO_LONG})
_LOST = frozenset({TargetCondition.UNRESOLVED, TargetCondition.REFUSED})
"""Where the host is now is not known: nothing is over at an address because nobody looks at it any more."""

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
    """A drift that was told. told: when, last. clean: looks without it since it was last seen.

    partly: the address answers, and most of it could not be told: a look at a few ports does not end that.
    """

    key: Key
    since: int
    level: str
    told: int
    clean: int = 0
    partly: bool = False


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
    _changed: dict[tuple[Place, int], int] = field(default_factory=dict)
    """When a port was last said to have changed; looks overlap, so an older one may come after a newer one."""
    _blind: dict[Key, int] = field(default_factory=dict)
    """In how many whole looks running nothing could be told of an address that a look at a few ports did see."""

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
        told = _Told(looked)
        keys = [
            one.key
            for one in looked.drifts
            if one.key not in self._standing and not _read(one.key) and not told.partly(one.key)
        ]
        # Of an address as a whole, an answer is proof; of a port, silence is not.
        keys += [key for key in self._standing if key[3] and key not in seen and not _read(key) and told.about(key)]
        asked: Asked = {}
        for key in keys:
            spans = asked.setdefault((key[1], Protocol(key[4])), [])
            spans += [PortRange(key[3], key[3])] if key[3] else told.some_of(key)
        return self._with_life(asked, looked)

    def wanted(self, policy: PortPolicy) -> Asked:
        """What a short look is for: services that must answer, and every port seen to drift in a way that matters.

        Not where nothing could be told: to wait for a UDP port that stays silent takes longer than a short look may.
        """
        asked: Asked = {}
        for host in policy.hosts:
            for opening in host.openings:
                if opening.must_answer:
                    asked.setdefault((host.name, opening.protocol), []).append(opening.ports)
        known = {host.name for host in policy.hosts}
        for (kind, host_name, _, port, protocol, _), standing in self._standing.items():
            matters = standing.level != Level.INFORMATIONAL.label and kind not in _UNTOLD and not _read(standing.key)
            if port and host_name in known and matters:
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
        self._set_back(now)
        told, second = _Told(first), _Told(again) if again is not None else None
        if first.whole:
            self._blind = {key: times for key, times in self._blind.items() if key in told.drifts}
        drifts = self._confirmed(told, second)
        self._add_too_long(drifts, now)
        records = self._changes(told, second, now)
        self._forget(now)
        for key, drift in drifts.items():
            records += self._seen(key, drift, told, now)
        for key, standing in list(self._standing.items()):
            if key in drifts or not self._over(standing, told, second):
                continue
            standing.clean += 1
            if standing.clean >= self._patience(key):
                del self._standing[key]
                records.append(ended_record(key, standing.level, standing.since, now))
        self.position += len(records)
        return records

    def _confirmed(self, first: _Told, second: _Told | None) -> dict[Key, Drift]:
        """The drifts of a look without those that are new and were not there the second time."""
        drifts = dict(first.drifts)
        if second is None:
            return drifts
        for key in first.drifts:
            unsure = key not in self._standing and not _read(key) and not first.partly(key)
            if key in second.drifts:
                drifts[key] = second.drifts[key]
            elif unsure and second.about(key) and not self._blind_again(key, first):
                del drifts[key]
        return drifts

    def _blind_again(self, key: Key, first: _Told) -> bool:
        """Whether nothing of an address was seen in two whole looks running, although a few ports answer one.

        As where a look at everything is too much for something on the way.
        """
        if key[3] or not first.looked.whole:
            return False
        self._blind[key] = self._blind.get(key, 0) + 1
        return self._blind[key] > 1

    def _seen(self, key: Key, drift: Drift, told: _Told, now: int) -> list[Record]:
        """What is to be said of a drift that is there."""
        standing, level = self._standing.get(key), drift.level.label
        same = (DriftKind.COULD_NOT_TELL.value, *key[1:])
        partly = told.partly(same) or self._blind.get(key, 0) > 1 or self._blind.get(same, 0) > 1
        if standing is None:
            self._standing[key] = _Standing(key, now, level, now, partly=partly)
            self._begun.setdefault(key, []).append(now)
            return [drift_record(drift, now)]
        standing.clean = 0
        standing.partly = partly or (standing.partly and not told.looked.whole)
        if standing.level != level:
            # Policy thinks otherwise of it now. An alert keeps the level it was opened with, so it is another one.
            ended = ended_record(key, standing.level, standing.since, now)
            standing.since, standing.level, standing.told = now, level, now
            return [ended, drift_record(drift, now)]
        lasting = drift.level > Level.INFORMATIONAL and drift.kind is not DriftKind.POLICY_WIDENED
        if lasting and now - standing.told >= _REMIND:
            standing.told = now
            return [drift_record(drift, now, standing.since)]
        return []

    def _over(self, standing: _Standing, first: _Told, second: _Told | None) -> bool:
        """Whether looking says that a drift is not there any more."""
        key = standing.key
        if key[0] == DriftKind.COULD_NOT_TELL_TOO_LONG and key[5]:
            return (DriftKind.COULD_NOT_TELL.value, *key[1:]) not in self._standing
        if first.gone(key):
            return True
        if not first.about(key) or (standing.partly and not first.looked.whole):
            return False
        # What was clean twice is over; a second look that could not tell leaves it as it was.
        sure = not key[3] or _read(key) or second is None
        return sure or (second is not None and second.about(key) and key not in second.drifts)

    def _patience(self, key: Key) -> int:
        """How many looks without it end a drift: one, and twice as many each time it began anew."""
        again = max(0, len(self._begun.get(key, ())) - 1)
        return min(1 << again, _MOST_PATIENCE)

    def _add_too_long(self, drifts: dict[Key, Drift], now: int) -> None:
        kind = DriftKind.COULD_NOT_TELL_TOO_LONG
        for drift in list(drifts.values()):
            standing = self._standing.get(drift.key)
            if drift.why is SeenWhy.NO_RESPONSE and drift.expected is not PortState.OPEN:
                # UDP that a firewall drops is silent for good: what cannot be known from outside is no news.
                continue
            if drift.kind is DriftKind.COULD_NOT_TELL and standing and now - standing.since >= self.too_long:
                minutes = (now - standing.since) // MINUTE
                advice = f"nothing is known of it for {minutes} minutes: {drift.advice}"
                longer = replace(drift, kind=kind, level=DRIFT_LEVELS[kind], advice=advice)
                drifts.setdefault(longer.key, longer)

    def _changes(self, first: _Told, second: _Told | None, now: int) -> list[Record]:
        """Ports that opened or closed since the last look; where both looks speak of a port, the second one counts."""
        records: list[Record] = []
        for place, survey in first.surveys.items():
            if survey.condition is not TargetCondition.ANSWERS:
                continue
            known = self._open.get(place)
            later = second.surveys.get(place) if second is not None else None
            ports = survey.ports_in(PortState.OPEN)
            # Where nobody looked again, only what differs is of interest: of a thousand hosts most are as they were.
            ports = ports if known is None else ports ^ known if later is None else ports | known
            ports = {port for port in ports if self._changed.get((place, port), 0) <= survey.started_at}
            seen = {port: first.observed(place, port) for port in ports}
            if second is not None and later is not None and later.condition is TargetCondition.ANSWERS:
                seen |= {port: better for port in seen if (better := second.observed(place, port)) is not None}
                seen |= {port: second.observed(place, port) for port in later.ports_in(PortState.OPEN)}
            opened = {port for port, one in seen.items() if one is not None and one.state is PortState.OPEN}
            shut = {port for port, one in seen.items() if one is not None and one.state in _SHUT}
            if known is None:
                if first.looked.whole:
                    self._open[place] = frozenset(opened)
                continue
            for port in sorted((opened - known) | (shut & known)):
                one = seen[port]
                assert one is not None
                before = PortState.OPEN if port in known else PortState.CLOSED
                records.append(change_record(one, before, now))
                self._changed[place, port] = now
            self._open[place] = (known | opened) - shut
        if first.looked.whole:
            self._let_go(first)
        return records

    def _let_go(self, told: _Told) -> None:
        """Of what is not asked for any more it is not remembered that it was open: nobody may ask for it again."""
        kept = {place: ports for place, ports in self._open.items() if place in told.surveys or place[0] in told.lost}
        for place in kept.keys() & told.surveys.keys():
            kept[place] = frozenset(port for port in kept[place] if told.asked(place, port))
        self._open = kept

    def _forget(self, now: int) -> None:
        """Let go of beginnings so old that they say nothing of flapping."""
        self._begun = {
            key: recent
            for key, times in self._begun.items()
            if (recent := [at for at in times if now - at <= _REMEMBERED][-_MOST_BEGINNINGS:])
        }
        self._changed = {port: at for port, at in self._changed.items() if now - at <= _REMEMBERED}

    def _set_back(self, now: int) -> None:
        """What began after now began under a clock that was set back since."""
        for one in self._standing.values():
            one.since, one.told = min(one.since, now), min(one.told, now)
        self._begun = {key: [min(at, now) for at in times] for key, times in self._begun.items()}
        self._changed = {port: min(at, now) for port, at in self._changed.items()}


def _read(key: Key) -> bool:
    """Whether a drift was read, of an inventory or a policy, and not looked at: looking again makes it no surer."""
    return not key[5]


def _place(survey: Survey) -> Place:
    return (survey.host, survey.address, survey.protocol.value, survey.vantage)


@dataclass(slots=True)
class _Told:
    """What a look can speak of. lost: hosts of which a name leads nowhere, or not to us."""

    looked: Looked
    drifts: dict[Key, Drift] = field(init=False)
    surveys: dict[Place, Survey] = field(init=False)
    lost: frozenset[str] = field(init=False)
    _ports: dict[Place, tuple[dict[int, Observation], tuple[PortRange, ...], Survey]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.drifts = {one.key: one for one in self.looked.drifts}
        self.surveys = {_place(one): one for one in self.looked.surveys}
        self.lost = frozenset(one.host for one in self.looked.surveys if one.condition in _LOST)

    def _of(self, place: Place) -> tuple[dict[int, Observation], tuple[PortRange, ...], Survey]:
        """Observations by port, what was asked, and the rest: a survey of thousands of ports is asked for each."""
        if place not in self._ports:
            survey = self.surveys[place]
            seen = {one.port: one for one in survey.observations}
            self._ports[place] = seen, joined(survey.asked), replace(survey, observations=())
        return self._ports[place]

    def asked(self, place: Place, port: int) -> bool:
        """Whether it looked at a port of a place it knows."""
        _, asked, _ = self._of(place)
        at = bisect_right(asked, port, key=lambda one: one.first) - 1
        return at >= 0 and port in asked[at]

    def observed(self, place: Place, port: int) -> Observation | None:
        """As `Survey.observed`."""
        seen, _, rest = self._of(place)
        if port in seen:
            return seen[port]
        return replace(rest, asked=(PortRange(port, port),)).observed(port) if self.asked(place, port) else None

    def about(self, key: Key) -> bool:
        """Whether it says something of what `key` is about, and knows it."""
        kind, host, address, port, protocol, vantage = key
        if _read(key):
            return self.looked.whole
        place = (host, address, protocol, vantage)
        survey = self.surveys.get(place)
        if survey is None:
            return False
        if kind == DriftKind.COULD_NOT_TELL and not port:
            return True
        if survey.condition is not TargetCondition.ANSWERS:
            return False
        seen = self.observed(place, port) if port else None
        return not port or (seen is not None and seen.state is not PortState.UNKNOWN)

    def partly(self, key: Key) -> bool:
        """Whether `key` says that nothing is known of much of an address that does answer."""
        kind, host, address, port, protocol, vantage = key
        survey = self.surveys.get((host, address, protocol, vantage))
        answers = survey is not None and survey.condition is TargetCondition.ANSWERS
        return kind == DriftKind.COULD_NOT_TELL and not port and answers

    def some_of(self, key: Key) -> list[PortRange]:
        """A few of the ports that the address of `key` was asked for."""
        _, host, address, _, protocol, vantage = key
        survey = self.surveys.get((host, address, protocol, vantage))
        asked = survey.asked[:_SOME] if survey is not None else ()
        return [PortRange(one.first, min(one.last, one.first + _SOME)) for one in asked]

    def gone(self, key: Key) -> bool:
        """Whether it was at everything, and nobody asks any more for what `key` is about."""
        _, host, address, port, protocol, vantage = key
        if not self.looked.whole or _read(key):
            return False
        place = (host, address, protocol, vantage)
        if place not in self.surveys:
            return host not in self.lost
        return bool(port) and not self.asked(place, port)

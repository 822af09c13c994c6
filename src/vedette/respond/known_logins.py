"""Who logged in from where lately: that user's slips weigh less there, and no prefix that holds the address is blocked.
Counterpart: `app.knowing` says who logged in and who failed; policy asks before it decides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import msgspec

from vedette.model.clock import HOUR
from vedette.model.errors import StateError
from vedette.model.findings import Finding, key_text
from vedette.model.rules import Comparison, CorrelationKind, Rule
from vedette.respond.settings import KnownLoginSettings
from vedette.text.addresses import Network, parse
from vedette.text.times import parse_duration

OWNER = "vedette-known-logins"
"""Under this name, which no rule has, its rows stand among the state of correlations; one row an address."""
VERSION = 1
ADDRESSES, USERS = 10_000, 100
"""Addresses remembered, and users of each: those who logged in last."""
KEPT_EVERY = HOUR
"""A login that only brings the time forward is written down so often."""
BRUTE_FORCE = "attack.t1110"
"""ATT&CK: Brute Force, with its sub-techniques."""

Failure = tuple[int, str, int]
"""Time, user, how often."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What a brute-force rule counts. of: the rules of one failure, or their groups."""

    of: tuple[str, ...]
    threshold: int
    timespan: int


def counting_of(rule: Rule) -> Counting | None:
    """How the rule counts failures of one address; None where it is no brute-force rule that does."""
    correlate, response = rule.correlate, rule.response
    if correlate is None or response is None or not any(tag.startswith(BRUTE_FORCE) for tag in rule.tags):
        return None
    if correlate.kind is not CorrelationKind.EVENT_COUNT or correlate.preceding or len(correlate.threshold) != 1:
        return None
    if correlate.group_by != ("source.ip",) or response.target != "source.ip":
        return None
    (bound,) = correlate.threshold
    if bound.comparison not in (Comparison.GTE, Comparison.GT):
        return None
    threshold = ceil(bound.value) if bound.comparison is Comparison.GTE else floor(bound.value) + 1
    return Counting(correlate.of, threshold, correlate.timespan)


class _Stored(msgspec.Struct):
    name: str
    version: int
    users: dict[str, int]
    failures: dict[str, list[Failure]]
    held: dict[str, Finding]


@dataclass(slots=True)
class _Address:
    """users: name -> last login, the latest at the end. failures, held: by rule."""

    users: dict[str, int] = field(default_factory=dict)
    failures: dict[str, deque[Failure]] = field(default_factory=dict)
    held: dict[str, Finding] = field(default_factory=dict)
    written: int = 0


class KnownLogins:
    """Of one host. In terms of event times, microseconds; one thread owns it.

    Failures of a user at an address from which they logged in within the window weigh 1/factor there. Everybody
    else's weigh 1, so that whoever owns one account gains nothing against others. A finding whose failures weigh
    less than its rule's threshold is held back until they do not.
    """

    def __init__(self, settings: KnownLoginSettings, rules: Iterable[Rule]) -> None:
        self._addresses: dict[str, _Address] = {}
        self._changed: set[str] = set()
        self._touched: set[tuple[str, str]] = set()
        self._released: list[Finding] = []
        self.configure(settings, rules)

    def configure(self, settings: KnownLoginSettings, rules: Iterable[Rule]) -> None:
        """Take other settings and rules from now on."""
        self._window = parse_duration(settings.window)
        self._factor = settings.factor
        self.counting = {rule.id: found for rule in rules if (found := counting_of(rule)) is not None}

    # ------------------------------------------------------------------------------------------ what happens
    def succeeded(self, user: str, address: str, at: int) -> None:
        """A login that nobody could have made up."""
        if self._factor <= 1:
            return
        known = self._addresses.pop(address, None) or _Address()
        self._addresses[address] = known
        before = known.users.pop(user, None)
        known.users[user] = max(at, before or 0)
        if len(known.users) > USERS:
            del known.users[next(iter(known.users))]
        # What is written of this user may be older than what is written of the address: others log in there too.
        if before is None or at - min(before, known.written) >= KEPT_EVERY:
            known.written = at
            self._changed.add(address)
        if len(self._addresses) > ADDRESSES:
            oldest = next(iter(self._addresses))
            self._release(self._addresses.pop(oldest), at)
            self._changed.add(oldest)

    def knows(self, address: str) -> bool:
        """Whether anybody logged in from there, however long ago."""
        return address in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def failed(self, rule_id: str, user: str, address: str, at: int, times: int = 1) -> None:
        """A failure that the brute-force rule counts; of no interest where nobody ever logged in from there."""
        known = self._addresses.get(address)
        counting = self.counting.get(rule_id)
        if known is None or counting is None:
            return
        # More than these never matter: if all of them weigh least, they reach the threshold.
        most = counting.threshold * self._factor
        failures = known.failures.setdefault(rule_id, deque(maxlen=most))
        failures.append((at, user, times))
        while failures[0][0] < at - counting.timespan:
            failures.popleft()
        self._changed.add(address)
        if rule_id in known.held:
            self._touched.add((address, rule_id))

    # ------------------------------------------------------------------------------------------ what follows
    def holds_back(self, finding: Finding, address: str, now: int) -> bool:
        """Whether its failures weigh less than the threshold; it is kept then, and `ripe` gives it back in time."""
        known, counting = self._addresses.get(address), self.counting.get(finding.rule_id)
        if known is None or counting is None or not self._recent(known, now):
            return False
        held = known.held.get(finding.rule_id)
        if held is None or held.id != finding.id:
            self._count_unseen(known, counting, finding)
        if self._reached(known, counting, finding.rule_id, now):
            if known.held.pop(finding.rule_id, None) is not None:
                self._changed.add(address)
            return False
        known.held[finding.rule_id] = finding
        self._changed.add(address)
        return True

    def ripe(self, now: int) -> list[Finding]:
        """Findings that were held back and are not any more, with the time of the failure that decided it."""
        found, self._released = self._released, []
        for address, rule_id in sorted(self._touched):
            known, counting = self._addresses.get(address), self.counting.get(rule_id)
            if known is None or counting is None or rule_id not in known.held:
                continue
            if self._reached(known, counting, rule_id, now):
                last = max(at for at, _, _ in known.failures[rule_id])
                found.append(msgspec.structs.replace(known.held.pop(rule_id), time=last))
                self._changed.add(address)
        self._touched.clear()
        return found

    def _release(self, known: _Address, now: int) -> None:
        """What was held back at an address that is known no more weighs in full, and `ripe` gives it back.

        The rule may not fire again before its failures pause: let go in silence, it would block nobody.
        """
        for rule_id, finding in known.held.items():
            last = max((at for at, _, _ in known.failures.get(rule_id, ())), default=0)
            if rule_id in self.counting and last >= now - self.counting[rule_id].timespan:
                self._released.append(msgspec.structs.replace(finding, time=last))

    def covers(self, network: Network, now: int) -> bool:
        """Whether somebody logged in lately from an address in `network`."""
        return any(self._recent(known, now) for text, known in self._addresses.items() if _lies_in(text, network))

    def _recent(self, known: _Address, now: int) -> bool:
        return any(self._is_recent(at, now) for at in known.users.values())

    def _is_recent(self, at: int, now: int) -> bool:
        return now - at <= self._window

    def _count_unseen(self, known: _Address, counting: Counting, finding: Finding) -> None:
        """What the finding counts from before anybody logged in there: nobody's, so it weighs in full."""
        failures = known.failures.setdefault(finding.rule_id, deque(maxlen=counting.threshold * self._factor))
        seen = sum(times for at, _, times in failures if at >= finding.time - counting.timespan)
        if finding.count > seen:
            failures.append((finding.time, "", finding.count - seen))

    def _reached(self, known: _Address, counting: Counting, rule_id: str, now: int) -> bool:
        failures = known.failures.get(rule_id, ())
        newest = max((at for at, _, _ in failures), default=0)
        weight = 0
        for at, user, times in failures:
            if at >= newest - counting.timespan:
                slip = self._is_recent(known.users.get(user, now - self._window - 1), now)
                weight += times * (1 if slip else self._factor)
        return weight >= counting.threshold * self._factor

    # ------------------------------------------------------------------------------------------ kept
    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """Rows to be committed since the last call, None = gone."""
        changed: dict[tuple[str, str], bytes | None] = {}
        for address in self._changed:
            known = self._addresses.get(address)
            changed[OWNER, key_text({"source.ip": address})] = None if known is None else _packed(known)
        self._changed.clear()
        return changed

    def restore(self, rows: Iterable[tuple[str, str, bytes]], now: int) -> None:
        """Take up the rows that `changes` gave, without those that are too old; StateError for damaged ones."""
        found: list[tuple[str, _Address]] = []
        try:
            for owner, key, data in rows:
                if owner == OWNER:
                    address = str(dict(msgspec.json.decode(key))["source.ip"])
                    found.append((address, self._unpacked(data)))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"the logins that are remembered are damaged: {error}") from None
        for address, known in sorted(found, key=lambda one: max(one[1].users.values(), default=0)):
            if self._recent(known, now) and self._factor > 1:
                self._addresses[address] = known
            else:
                self._release(known, now)
                self._changed.add(address)

    def _unpacked(self, data: bytes) -> _Address:
        stored = msgspec.json.decode(data, type=_Stored)
        if stored.name != OWNER or stored.version > VERSION:
            raise ValueError(f"{stored.name} version {stored.version} is newer than {VERSION}")
        known = _Address(stored.users, held=stored.held, written=max(stored.users.values(), default=0))
        for rule_id, failures in stored.failures.items():
            if (counting := self.counting.get(rule_id)) is not None:
                known.failures[rule_id] = deque(failures, maxlen=counting.threshold * self._factor)
        return known


def _lies_in(text: str, network: Network) -> bool:
    address = parse(text)
    return address is not None and address.version == network.version and address in network


def _packed(known: _Address) -> bytes:
    failures: Mapping[str, Sequence[Failure]] = {rule_id: list(some) for rule_id, some in known.failures.items()}
    return msgspec.json.encode(_Stored(OWNER, VERSION, known.users, dict(failures), known.held))  # type: ignore[arg-type]

"""Words a firing as a finding: key, evidence, ordinal, and whom it may blame and why not.
Counterpart: `correlate` hands in what fired; alerts and respond act on what is said here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat as repeated

import numpy as np

from vedette.detections.entries import Card
from vedette.detections.matches import Matches
from vedette.detections.stretch import Firing, Stretch, card_of, cards_of, scalar
from vedette.model.batch import Int32, Int64, Origin, Trust
from vedette.model.events import Scalar, Value
from vedette.model.fields import is_attacker_text
from vedette.model.findings import EVIDENCE_LIMIT, Evidence, Finding, finding_id_by_hash, key_text
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason
from vedette.model.rules import Firing as CorrelationFiring
from vedette.model.rules import Rule

MakeEvidence = Callable[[Origin, int, int], Evidence]

# The alert of an event rule that names no key is keyed by the first of these its record has (and by the host).
_DEFAULT_KEY = ("source.ip", "user.name", "file.path")
_ORDINALS_LIMIT = 65_536
_TRUSTS = {int(trust): trust for trust in Trust}


def plain_evidence(origin: Origin, position: int, time: int) -> Evidence:
    """Evidence as agents write it: the record id and its time."""
    return Evidence(origin.record_id(position), time)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a finding says beyond its firing record. target: the field whose value a response would block."""

    key: dict[str, Scalar]
    count: int
    records: tuple[Evidence, ...]
    ordinal: int
    trust: Trust
    target: str
    address: Scalar
    inexact: bool = False


class Reporter:
    """Makes findings; remembers how often equal records were seen, so that each finding has an id of its own."""

    def __init__(self, rules: Sequence[Rule], replaced: Mapping[int, Sequence[int]], evidence: MakeEvidence) -> None:
        self._rules = rules
        self._replaced = replaced
        self._evidence = evidence
        correlations = {name for rule in rules if rule.correlate for name in (rule.id, *rule.groups)}
        self._chained = {
            index
            for index, rule in enumerate(rules)
            if rule.correlate is not None and not correlations.isdisjoint(rule.correlate.of)
        }
        self._equal: dict[tuple[str, str, str, str, int, int], int] = {}

    def report(
        self, stretch: Stretch, firings: Sequence[Firing], trust: Int64, origins: Sequence[Origin]
    ) -> list[Finding]:
        """The findings of one stretch, in the order of the records that made them, then of the rules.

        trust: int64[m], forgeable records of accepted sources already lifted. origins: by entry origin.
        """
        ranked: list[tuple[tuple[int, int], int, str, Finding]] = []
        replaced: dict[int, set[int]] = {}
        for firing in firings:
            for other in self._replaced.get(firing.rule, ()) if firing.index >= 0 else ():
                replaced.setdefault(other, set()).add(firing.index)
        for firing in firings:
            if self._rules[firing.rule].silent or firing.index in replaced.get(firing.rule, ()):
                continue
            finding = self._correlated(stretch, firing, origins)
            ranked.append((firing.order, firing.rule, key_text(finding.key), finding))
        alone: dict[int, Int32] = {}
        for index, hits in stretch.matches.hits.items():
            rule = self._rules[index]
            if rule.silent or rule.correlate is not None:
                continue
            gone = replaced.get(index)
            alone[index] = hits[[at not in gone for at in hits.tolist()]] if gone else hits
        singles = self._all_singles(stretch, alone, trust)
        if not ranked:
            return [finding for _, _, finding in singles]
        ranked += [((2 * at + 1, 0), index, "", finding) for at, index, finding in singles]
        ranked.sort(key=lambda one: one[:3])
        return [finding for *_, finding in ranked]

    def _all_singles(self, stretch: Stretch, hits: Mapping[int, Int32], trust: Int64) -> list[tuple[int, int, Finding]]:
        """A finding for each matched record of each rule, with record and rule, in the order of both."""
        if not hits:
            return []
        cards = _cards(stretch, hits.values())
        findings: list[Finding] = []
        for index, rows in hits.items():
            findings += self._singles(stretch, self._rules[index], rows, trust[rows].tolist(), cards)
        places = np.concatenate(list(hits.values()))
        rules = np.repeat(np.array(list(hits), dtype=np.int64), [len(rows) for rows in hits.values()])
        order = np.lexsort((rules, places))
        ordered = map(findings.__getitem__, order.tolist())
        return list(zip(places[order].tolist(), rules[order].tolist(), ordered, strict=True))

    def _correlated(self, stretch: Stretch, firing: Firing, origins: Sequence[Origin]) -> Finding:
        rule, fired = self._rules[firing.rule], firing.fired
        target = _target(rule)
        records = tuple(
            self._evidence(origins[entry.origin], entry.position, entry.time)
            for entry in fired.entries[:EVIDENCE_LIMIT]
        )
        ordinal = fired.ordinal
        if firing.card is None or firing.entry is None:
            origin = stretch.origins[int(stretch.codes[firing.index])]
            card, check = card_of(stretch, firing.index), int(stretch.matches.check[firing.index])
        else:
            origin, card, check = origins[firing.entry.origin], firing.card, firing.entry.check
        often = rule.correlate is not None and rule.correlate.firing is not CorrelationFiring.SIGMA
        if often or rule.branch is not None or firing.rule in self._chained:
            # It may fire again at the same moment, and the window has forgotten the records that made it fire before;
            # or a window that closed later speaks of a record that was counted itself.
            ordinal = self._ordinal(rule, origin, card.time, check, before=ordinal)
        # Only an address that the whole window shares answers for it, so it is looked for in the key alone.
        address = firing.key.get(target)
        claim = _Claim(firing.key, fired.count, records, ordinal, Trust(fired.trust), target, address, fired.inexact)
        return _finding(rule, origin.host_id, card, claim)

    def _singles(
        self, stretch: Stretch, rule: Rule, rows: Int32, trust: Sequence[int], cards: dict[int, Card]
    ) -> Iterator[Finding]:
        """A finding for each of these matched records. cards: theirs."""
        matches, origins, evidence, ordinal = stretch.matches, stretch.origins, self._evidence, self._ordinal
        rule_id, name, level, clears = rule.id, rule.name, rule.level, rule.clears
        target = _target(rule)
        levels = _values(matches, rule.level_from, rows) if rule.level_from else repeated(None)
        columns = zip(
            map(cards.__getitem__, rows.tolist()),
            stretch.codes[rows].tolist(),
            matches.position[rows].tolist(),
            matches.check[rows].tolist(),
            matches.repeat[rows].tolist(),
            map(_TRUSTS.__getitem__, trust),
            _keys(rule, matches, rows),
            _values(matches, target, rows),
            levels,
            strict=False,
        )
        for card, code, position, check, repeat, its_trust, key, address, told in columns:
            time, origin = card.time, origins[code]
            own = None if told is None else _level(told)
            # By place: names cost as much as all else that is done here.
            yield Finding(
                finding_id_by_hash(rule_id, key, time, card.raw, ordinal(rule, origin, time, check)),
                rule_id,
                name,
                level if own is None else own,
                time,
                key,
                origin.host_id,
                card.host_name,
                card.source_ip or str(key.get("source.ip") or ""),
                card.user_name,
                repeat,
                (evidence(origin, position, time),),
                blame(target, scalar(address), its_trust, ambiguous=card.ambiguous),
                its_trust,
                card.sample,
                clears,
                False,
                card.created,
            )

    def _ordinal(self, rule: Rule, origin: Origin, time: int, check: int, *, before: int = 0) -> int:
        """How many equal records came before; `before`: those since the last one that was asked for."""
        equal = (rule.id, origin.host_id, origin.source, origin.generation, time, check)
        ordinal = self._equal.get(equal, 0) + before
        self._equal[equal] = ordinal + 1
        if len(self._equal) > _ORDINALS_LIMIT:
            # Equal records share their moment, so the oldest half is not asked for again.
            for old in list(self._equal)[: _ORDINALS_LIMIT // 2]:
                del self._equal[old]
        return ordinal

    def ordinals(self, since: int) -> list[tuple[str, str, str, str, int, int, int]]:
        """How often each record was seen that may yet come again (event time from `since` on)."""
        return [(*equal, count) for equal, count in self._equal.items() if equal[4] >= since]

    def restore(self, ordinals: Iterable[Sequence[str | int]]) -> None:
        """Take up what `ordinals` gave before a restart."""
        for row in ordinals:
            rule_id, host_id, source, generation, time, check, count = row
            self._equal[str(rule_id), str(host_id), str(source), str(generation), int(time), int(check)] = int(count)


def _cards(stretch: Stretch, hits: Iterable[Int32]) -> dict[int, Card]:
    """The cards of all these matched records, each made once, in the order in which the records lie in their file."""
    wanted = np.zeros(len(stretch.matches.rows), dtype=np.bool_)
    for found in hits:
        wanted[found] = True
    places = np.flatnonzero(wanted)
    return dict(zip(places.tolist(), cards_of(stretch, places), strict=True))


def _finding(rule: Rule, host_id: str, card: Card, claim: _Claim) -> Finding:
    return Finding(
        id=finding_id_by_hash(rule.id, claim.key, card.time, card.raw, claim.ordinal),
        rule_id=rule.id,
        rule_name=rule.name,
        level=rule.level,
        time=card.time,
        key=claim.key,
        host_id=host_id,
        host_name=card.host_name,
        source_ip=card.source_ip or str(claim.key.get("source.ip") or ""),
        user_name=card.user_name,
        count=claim.count,
        records=claim.records,
        blame=blame(claim.target, claim.address, claim.trust, ambiguous=card.ambiguous),
        trust=claim.trust,
        sample=card.sample,
        clears=rule.clears,
        inexact=claim.inexact,
        created=card.created,
    )


def blame(target: str, address: Scalar, trust: Trust, *, ambiguous: bool) -> BlameReason:
    """Whether `address`, found in field `target`, may be blocked (design, section 4)."""
    if address is None or address == "":
        return BlameReason.AMBIGUOUS if ambiguous else BlameReason.NO_ADDRESS
    if is_attacker_text(target):
        return BlameReason.ATTACKER_TEXT
    if trust is Trust.NETWORK:
        return BlameReason.SOURCE_NETWORK
    if trust is Trust.FORGEABLE:
        return BlameReason.SOURCE_FORGEABLE
    return BlameReason.ALLOWED


def _target(rule: Rule) -> str:
    return rule.response.target if rule.response else "source.ip"


def _level(value: Value) -> Level | None:
    return next((level for level in Level if level.label == value), None)


def _keys(rule: Rule, matches: Matches, rows: Int32) -> list[dict[str, Scalar]]:
    """The keys of a rule's findings, a dictionary of its own each."""
    if rule.key:
        columns = [_values(matches, name, rows) for name in rule.key]
        return [dict(zip(rule.key, map(scalar, values), strict=True)) for values in zip(*columns, strict=True)]
    keys: list[dict[str, Scalar]] = [{} for _ in range(len(rows))]
    for name in _DEFAULT_KEY:
        for key, value in zip(keys, _values(matches, name, rows), strict=True):
            if not key and value is not None:
                key[name] = scalar(value)
    return keys


def _values(matches: Matches, name: str, rows: Int32) -> list[Value]:
    """A field of some matched records; None where absent."""
    column = matches.fields.get(name)
    if column is None:
        return [None] * len(rows)
    return [None if code < 0 else column.values[code] for code in column.codes[rows].tolist()]

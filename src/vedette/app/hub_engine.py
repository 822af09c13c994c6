"""What a hub judges: host rules over what it reads itself, fleet rules over everything in the lake's order.
Counterpart: agents judge host rules themselves; `app.pipeline` takes one outcome from here as from one engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.stretch import Outcome
from vedette.model.batch import Batch
from vedette.model.rules import Rule, Scope

_FLEET = "fleet "
"""Before the rule ids of the fleet's correlation state, for both engines keep some under the same names."""

Stored = tuple[str, str, bytes]


def parted(rules: Sequence[Rule]) -> tuple[list[Rule], list[Rule]]:
    """The rules of scope host, and those of scope fleet with what they rest on, which says nothing itself there."""
    own = [rule for rule in rules if rule.scope is Scope.HOST]
    needed = [rule for rule in rules if rule.scope is Scope.FLEET]
    fleet = {rule.id: rule for rule in needed}
    while needed:
        rule = needed.pop()
        names = {*rule.parents, *(rule.correlate.of if rule.correlate else ())}
        for one in rules:
            if one.id not in fleet and names & {one.id, *one.groups}:
                fleet[one.id] = replace(one, silent=True)
                needed.append(one)
    return own, [fleet[rule.id] for rule in rules if rule.id in fleet]


class _Correlators:
    """Two correlators as one, their state kept apart."""

    def __init__(self, own: Correlator, fleet: Correlator) -> None:
        self._own, self._fleet = own, fleet

    @property
    def highest(self) -> int:
        """The later of both, as `Correlator.highest`."""
        return max(self._own.highest, self._fleet.highest)

    def set_back(self, now: int) -> None:
        """The clock was set back to `now`."""
        self._own.set_back(now)
        self._fleet.set_back(now)

    def advance(self, now: int) -> Outcome:
        """Close the windows that have ended by `now`."""
        return joined(self._own.advance(now), self._fleet.advance(now))

    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """What changed since it was last asked, of both."""
        changed = self._own.changes()
        changed.update({(_FLEET + rule_id, key): state for (rule_id, key), state in self._fleet.changes().items()})
        return changed

    def restore(self, stored: Iterable[Stored]) -> None:
        """Take up what `changes` gave; StateError where it cannot be read."""
        own: list[Stored] = []
        fleet: list[Stored] = []
        for rule_id, key, state in stored:
            if rule_id.startswith(_FLEET):
                fleet.append((rule_id.removeprefix(_FLEET), key, state))
            else:
                own.append((rule_id, key, state))
        self._own.restore(own)
        self._fleet.restore(fleet)


def joined(first: Outcome, second: Outcome) -> Outcome:
    """Both outcomes as one, `first` before `second`."""
    first.findings.extend(second.findings)
    first.continuations.extend(second.continuations)
    first.skewed += second.skewed
    first.undecided = (*first.undecided, *second.undecided)
    return first


class HubEngine:
    """`process` for what this host reads, `process_stored` for what was taken into the lake, in its order."""

    def __init__(self, own: Engine, fleet: Engine) -> None:
        self._own, self._fleet = own, fleet
        self.correlator = _Correlators(own.correlator, fleet.correlator)

    def process(self, batch: Batch) -> Outcome:
        """Judge what a source of this host read."""
        return self._own.process(batch)

    def process_stored(self, batch: Batch) -> Outcome:
        """Judge the next batch of the lake, whoever read it."""
        return self._fleet.process(batch)

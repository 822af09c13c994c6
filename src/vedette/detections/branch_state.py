"""What decision trees remember from record to record, bounded, and as bytes that mean the same after a restart.
Counterpart: `branches` asks and tells it; `correlate` hands its changes to the commit point."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from vedette.detections.entries import Entry
from vedette.model.errors import StateError
from vedette.model.events import Scalar
from vedette.model.findings import key_text
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.model.rules import Precedent, Rule

Key = tuple[Scalar, ...]
_NAME, _VERSION = "branch", 1
_DIFFERING = 1000
"""Records remembered of one key by a rule that asks for different values; others need no more than they count."""
_MOST_SEEN = 200_000
_KIND, _HOST = "kind", "host.id"
_EVENTS, _SEEN, _IGNORED, _QUIET, _LAST = "events", "seen", "ignored", "quiet", "last"


@dataclass(slots=True)
class Seen:
    """A record that a rule got. address: whom it names. counted: the highest weight of a rule that fired on it."""

    entry: Entry
    address: str
    counted: int


@dataclass(slots=True)
class _Of:
    """What one counting rule remembers of one key: records in ingest order, with their other values."""

    events: deque[tuple[Seen, Key]]
    newest: int = 0


class BranchState:
    """watchers: per rule the rules that count its records. track: remember what changed, for `changes`."""

    def __init__(
        self,
        rules: Sequence[Rule],
        watchers: Mapping[int, Sequence[int]],
        counter: Counter,
        *,
        max_keys: int,
        track: bool,
    ) -> None:
        self._rules, self.watchers, self._counter = rules, watchers, counter
        self._max_keys, self._track = max_keys, track
        self._by_id = {rule.id: index for index, rule in enumerate(rules) if rule.branch is not None}
        self._counted: dict[int, dict[Key, _Of]] = {}
        self._newest = 0
        self._seen: dict[tuple[str, str], int] = {}
        self._ignored: dict[tuple[str, tuple[str, ...], Key], int] = {}
        self._quiet: dict[tuple[int, str], int] = {}
        self._last: dict[tuple[int, str], str] = {}
        self._changed: set[tuple[str, int, str, Key]] = set()
        self._restored: dict[Entry, Seen] = {}

    def _precedent(self, index: int) -> Precedent:
        branch = self._rules[index].branch
        assert branch is not None
        assert branch.precedent is not None
        return branch.precedent

    def _touch(self, kind: str, index: int, host: str, key: Key) -> None:
        if self._track:
            self._changed.add((kind, index, host, key))

    # ------------------------------------------------------------------------------------------------- counting

    def remember(self, index: int, key: Key, seen: Seen, others: Key) -> None:
        """A record that counting rule `index` counts under `key`."""
        precedent = self._precedent(index)
        known = self._counted.setdefault(index, {})
        found = known.get(key)
        if found is None:
            found = known[key] = _Of(deque(maxlen=_DIFFERING if precedent.different else precedent.count))
            if len(known) > self._max_keys:
                self._evict(index, known)
        found.events.append((seen, others))
        found.newest = max(found.newest, seen.entry.time)
        self._newest = max(self._newest, seen.entry.time)
        self._touch(_EVENTS, index, "", key)

    def before(self, index: int, key: Key, others: Key, time: int) -> list[Seen] | None:
        """The records that rule `index` asks for before one at `time`, oldest first, and none of them again for it.

        None where there are too few.
        """
        precedent = self._precedent(index)
        branch = self._rules[index].branch
        assert branch is not None
        found = self._counted.get(index, {}).get(key)
        if found is None or len(found.events) < precedent.count:
            return None
        evidence: list[Seen] = []
        for seen, values in reversed(found.events):
            if time - seen.entry.time > precedent.timespan:
                return None
            if precedent.different and not _differ(others, values, told=precedent.told):
                continue
            if seen.counted >= branch.weight:
                return None
            evidence.append(seen)
            if len(evidence) == precedent.count:
                if precedent.count > 1:
                    evidence[0].counted = branch.weight
                self._touch(_EVENTS, index, "", key)
                return evidence[::-1]
        return None

    def _evict(self, index: int, known: dict[Key, _Of]) -> None:
        floor = self._newest - self._precedent(index).timespan
        gone = [key for key, of in known.items() if of.newest < floor]
        excess = len(known) - len(gone) - self._max_keys * 3 // 4
        if len(known) - len(gone) > self._max_keys * 3 // 4:
            ended = set(gone)
            # A flood of new keys must not push out one that has been filling up.
            lasting = sorted(
                (key for key in known if key not in ended),
                key=lambda key: (len(known[key].events), known[key].newest, str(key)),
            )
            gone += lasting[:excess]
            self._counter.add("records_dropped", DropReason.STATE_EVICTED, excess)
        for key in gone:
            del known[key]
            self._touch(_EVENTS, index, "", key)

    # -------------------------------------------------------------------------------------------------- one-offs

    def is_new(self, index: int, host: str, value: str) -> bool:
        """Whether nobody has asked for `value` on that host before; from now on somebody has."""
        if (host, value) in self._seen:
            return False
        self._seen[host, value] = index
        self._touch(_SEEN, index, host, (value,))
        if len(self._seen) > _MOST_SEEN:
            for (old_host, old), by in list(islice(self._seen.items(), _MOST_SEEN // 4)):
                del self._seen[old_host, old]
                self._touch(_SEEN, by, old_host, (old,))
            self._counter.add("records_dropped", DropReason.STATE_EVICTED, _MOST_SEEN // 4)
        return True

    def has_changed(self, index: int, host: str, value: str) -> bool:
        """Whether the rule's record before had another value; False of the first."""
        before = self._last.get((index, host))
        if before != value:
            self._last[index, host] = value
            self._touch(_LAST, index, host, ())
        return before is not None and before != value

    def may_speak(self, index: int, host: str, time: int) -> bool:
        """Whether the rule's quiet time after its last firing is over; a new one begins then."""
        branch = self._rules[index].branch
        assert branch is not None
        last = self._quiet.get((index, host))
        if last is not None and time - last < branch.quiet:
            return False
        self._quiet[index, host] = time
        self._touch(_QUIET, index, host, ())
        return True

    def ignore(self, index: int, host: str, fields: tuple[str, ...], values: Key) -> None:
        """Records with these values are to be ignored."""
        self._ignored.setdefault((host, fields, values), index)
        self._touch(_IGNORED, index, host, values)
        if len(self._ignored) > _MOST_SEEN:
            old_host, old_fields, old = next(iter(self._ignored))
            self._touch(_IGNORED, self._ignored.pop((old_host, old_fields, old)), old_host, old)
            self._counter.add("records_dropped", DropReason.STATE_EVICTED, 1)

    def is_ignored(self, host: str, fields: tuple[str, ...], values: Key) -> bool:
        """Whether records with these values are to be ignored."""
        return (host, fields, values) in self._ignored

    # --------------------------------------------------------------------------------------------------- storing

    def changes(self, origins: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], bytes | None]:
        """Per (rule id, key text) the state since the last call; None = forgotten."""
        out: dict[tuple[str, str], bytes | None] = {}
        for kind, index, host, key in self._changed:
            name = key_text({_KIND: kind, _HOST: host, **{str(place): value for place, value in enumerate(key)}})
            out[self._rules[index].id, name] = self._dumped(kind, index, host, key, origins)
        self._changed.clear()
        self._restored.clear()
        return out

    def _dumped(
        self, kind: str, index: int, host: str, key: Key, origins: Sequence[tuple[str, str, str]]
    ) -> bytes | None:
        value: object
        if kind == _EVENTS:
            found = self._counted.get(index, {}).get(key)
            if found is None:
                return None
            value = [
                [[*seen.entry[:3], *origins[seen.entry.origin], *seen.entry[4:6]], seen.address, seen.counted, others]
                for seen, others in found.events
            ]
        elif kind == _SEEN:
            if (host, key[0]) not in self._seen:
                return None
            value = key[0]
        elif kind == _QUIET:
            value = self._quiet[index, host]
        elif kind == _LAST:
            value = self._last[index, host]
        else:
            branch = self._rules[index].branch
            fields = branch.ignores if branch else ()
            if (host, fields, key) not in self._ignored:
                return None
            value = [*fields]
        return msgspec.json.encode([_NAME, _VERSION, value])

    def knows(self, rule_id: str) -> bool:
        """Whether state of that rule is its own."""
        return rule_id in self._by_id

    def restore(
        self, rule_id: str, pairs: Mapping[str, Scalar], data: bytes, origin_of: Mapping[tuple[str, str, str], int]
    ) -> None:
        """Take up one row that `changes` gave. StateError where it is of a newer version, ValueError where damaged."""
        name, version, value = msgspec.json.decode(data)
        if name != _NAME or version != _VERSION:
            raise StateError(f"state of a decision tree is {name} version {version}", hint="written by a newer version")
        index, kind, host = self._by_id[rule_id], pairs[_KIND], str(pairs[_HOST])
        key = tuple(pairs[str(place)] for place in range(len(pairs) - 2))
        branch = self._rules[index].branch
        assert branch is not None
        if kind == _EVENTS and branch.precedent is not None and len(key) == 1 + len(branch.precedent.same):
            for row, address, counted, others in value:
                origin = origin_of[tuple(row[3:6])]
                entry = Entry(row[0], row[1], row[2], origin, row[6], row[7], None)
                self.remember(index, key, self._shared(entry, address, counted), tuple(others))
        elif kind == _SEEN:
            self._seen[host, str(value)] = index
        elif kind == _QUIET:
            self._quiet[index, host] = int(value)
        elif kind == _LAST:
            self._last[index, host] = str(value)
        elif kind == _IGNORED:
            self._ignored.setdefault((host, tuple(value), key), index)
        self._changed.clear()

    def _shared(self, entry: Entry, address: str, counted: int) -> Seen:
        """One record that several rules count is one; the rule that fired on it wrote last how much it weighed."""
        seen = self._restored.setdefault(entry, Seen(entry, address, counted))
        seen.counted = max(seen.counted, counted)
        return seen

    def set_back(self, latest: int) -> None:
        """The clock was set back: forget what was seen after `latest`."""
        for index, known in self._counted.items():
            for key in [key for key, of in known.items() if of.newest > latest]:
                del known[key]
                self._touch(_EVENTS, index, "", key)
        for (index, host), time in list(self._quiet.items()):
            if time > latest:
                self._quiet[index, host] = latest
                self._touch(_QUIET, index, host, ())
        self._newest = min(self._newest, latest)


def origins_in(rows: Iterable[bytes]) -> list[tuple[str, str, str]]:
    """The origins (host id, source, generation) that rows of state name."""
    found: dict[tuple[str, str, str], None] = {}
    for data in rows:
        decoded = msgspec.json.decode(data)
        if decoded[:1] == [_NAME] and isinstance(decoded[2], list):
            for one in decoded[2]:
                if isinstance(one, list):
                    found.setdefault(tuple(one[0][3:6]))
    return list(found)


def _differ(mine: Key, other: Key, *, told: bool) -> bool:
    """Whether no field has the same value in both; `told`: a field that is not there does not count as different."""
    for one, two in zip(mine, other, strict=True):
        if one is None or two is None:
            if told:
                return False
        elif one == two:
            return False
    return True

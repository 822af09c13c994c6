"""Failures in the place of lines: what a connection's lines say together decides which of them counts, and for whom.
Counterpart: `linescan` says what each line is, `correlate` counts what comes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from vedette.detections.failures import Connection, Failures
from vedette.detections.lines import Groups, LineMatcher
from vedette.detections.linescan import ABSENT, ADDRESS, LINE, NAMED, SEPARATOR, UNSURE, field_of
from vedette.detections.stretch import Stretch
from vedette.model.events import Column
from vedette.model.protocols import Counter
from vedette.model.reasons import BlameReason
from vedette.model.rules import Rule
from vedette.text.addresses import canonical

_HOLDS = 2_000
"""Connections kept over a restart, the newest."""


@dataclass(slots=True)
class _State:
    """What one filter remembers of one host."""

    failures: Failures = field(default_factory=Failures)
    buffer: list[str] = field(default_factory=list)


class Gate:
    """The line filters among `rules`. Same lines in the same order give the same failures, however they are cut."""

    def __init__(self, rules: Sequence[Rule], counter: Counter) -> None:
        self._rules = {index: rule for index, rule in enumerate(rules) if rule.lines is not None}
        self._several = {
            index: LineMatcher(rule.lines)
            for index, rule in self._rules.items()
            if rule.lines is not None and rule.lines.lines > 1
        }
        self._counter = counter
        self._states: dict[tuple[int, str], _State] = {}
        self._changed: set[int] = set()

    def through(self, stretch: Stretch) -> Stretch:
        """The stretch with failures alone as the matches of line filters, and whom each names in the filter's field."""
        matches = stretch.matches
        asked = [index for index in self._rules if index in matches.hits]
        if not asked:
            return stretch
        hits, fields = dict(matches.hits), dict(matches.fields)
        for index in asked:
            name = field_of(self._rules[index].id)
            who = self._who(index, stretch, fields[name])
            codes = np.full(len(matches.rows), -1, dtype=np.int32)
            known: dict[str, int] = {}
            for at, address in who:
                codes[at] = known.setdefault(address, len(known))
            fields[name] = Column(codes, list(known))
            if who:
                hits[index] = np.array([at for at, _ in who], dtype=np.int32)
            else:
                del hits[index]
        return replace(stretch, matches=replace(matches, hits=hits, fields=fields))

    def _who(self, index: int, stretch: Stretch, column: Column) -> list[tuple[int, str]]:
        """Which matched records are failures, and of which address."""
        matches = stretch.matches
        own = matches.hits[index]
        places, codes = own.tolist(), column.codes[own].tolist()
        times, origins = matches.window[own].tolist(), stretch.codes[own].tolist()
        values, hosts = column.values, [origin.host_id for origin in stretch.origins]
        found: list[tuple[int, str]] = []
        addresses: dict[str, str | None] = {}
        named = unsure = 0
        for at, code, time, origin in zip(places, codes, times, origins, strict=True):
            kind, who, user, connection = self._parts(index, hosts[origin], str(values[code]))
            if kind[:1] == UNSURE:
                unsure += 1
                continue
            if connection == ABSENT:
                if "n" in kind[1:] or kind[:1] not in (ADDRESS, NAMED):
                    continue
            else:
                groups = _groups(kind, who, user, connection)
                self._changed.add(index)
                failure = self._state(index, hosts[origin]).failures.take(groups, time)
                if failure is None or failure.who is None:
                    continue
                who = failure.who
            if who not in addresses:
                addresses[who] = canonical(who)
            address = addresses[who]
            if address is None:
                named += 1
                continue
            found.append((at, address))
        if unsure:
            self._counter.add("records_not_blamed", BlameReason.AMBIGUOUS, unsure)
        if named:
            self._counter.add("records_not_blamed", BlameReason.NO_ADDRESS, named)
        return found

    def _parts(self, index: int, host: str, said: str) -> Sequence[str]:
        if said[:1] != LINE:
            return said.split(SEPARATOR)
        state = self._state(index, host)
        self._changed.add(index)
        matcher = self._several[index]
        buffer = [*state.buffer, said[1:]][-matcher.filter.lines :]
        hit, state.buffer = matcher.match_lines(buffer)
        if hit is None:
            return ("-", "", ABSENT, ABSENT)
        groups = hit.groups
        address = groups.get("ip4") or groups.get("ip6")
        named = groups.get("fid") or groups.get("dns")
        kind = NAMED if groups.get("fid") else ADDRESS if address else NAMED if named else "-"
        if kind == ADDRESS and matcher.is_ambiguous(hit, "\n".join(hit.lines)):
            kind = UNSURE
        flags = "".join(letter for letter, name in _FLAGS if groups.get(name))
        who = groups.get("fid") or address or named or ""
        return (kind + flags, who, groups.get("user", ABSENT), groups.get("mlfid", ABSENT))

    def _state(self, index: int, host: str) -> _State:
        return self._states.setdefault((index, host), _State())

    # ---------------------------------------------------------------------------------------------- over a restart

    def changes(self) -> dict[str, bytes]:
        """Per rule id what changed since the last call, whole."""
        out = {}
        for index in self._changed:
            kept = {
                host: (
                    state.buffer,
                    [_plain(name, one) for name, one in list(state.failures.connections.items())[-_HOLDS:]],
                )
                for (of, host), state in self._states.items()
                if of == index
            }
            out[self._rules[index].id] = msgspec.json.encode(kept)
        self._changed.clear()
        return out

    def restore(self, rule_id: str, data: bytes) -> None:
        """Take up what `changes` gave; ValueError or a MsgspecError where it is damaged."""
        index = next((index for index, rule in self._rules.items() if rule.id == rule_id), None)
        if index is None:
            return
        for host, (buffer, connections) in msgspec.json.decode(data).items():
            state = self._state(index, host)
            state.buffer = [str(line) for line in buffer]
            for name, seen, groups, users, pending, matches, quiet in connections:
                one = Connection(int(seen), dict(groups), set(users), bool(pending), int(matches), int(quiet))
                state.failures.connections[str(name)] = one


_FLAGS = (("n", "nofail"), ("f", "mlfforget"), ("g", "mlfgained"))


def _groups(kind: str, who: str, user: str, connection: str) -> Groups:
    groups = {"mlfid": connection}
    for letter, name in _FLAGS:
        if letter in kind[1:]:
            groups[name] = "1"
    if kind[0] == ADDRESS:
        groups["ip6" if ":" in who else "ip4"] = who
    elif kind[0] == NAMED:
        groups["fid"] = who
    if user != ABSENT:
        groups["user"] = user
    return groups


def _plain(name: str, one: Connection) -> list[object]:
    return [name, one.seen, one.groups, sorted(one.users), one.pending, one.matches, one.quiet]

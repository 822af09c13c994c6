"""Failures in the place of lines: what a connection's lines say together decides which of them counts, and for whom.
Counterpart: `linescan` says what each line is, `correlate` counts what comes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from vedette.detections.failures import NOBODY, Connection, Failures
from vedette.detections.lines import LineMatcher
from vedette.detections.linescan import ABSENT, ADDRESS, NAMED, NOTHING, SEPARATOR, UNSURE, field_of, said_of
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
        states: dict[str, _State] = {}
        named = unsure = 0
        several = index in self._several
        for at, code, time, origin in zip(places, codes, times, origins, strict=True):
            host = hosts[origin]
            state = states.get(host)
            if state is None:
                state = states[host] = self._states.setdefault((index, host), _State())
                self._changed.add(index)
            said = str(values[code])
            if several:
                said = self._over_lines(index, state, said[1:])
            kind, who, user, connection = said.split(SEPARATOR)
            first = kind[0]
            if first == UNSURE:
                unsure += 1
                continue
            nobody = first != ADDRESS and first != NAMED
            if connection == ABSENT:
                if nobody or "n" in kind:
                    continue
                whom = who
            else:
                flags = kind[1:]
                one = state.failures.line(
                    connection,
                    None if nobody else who,
                    NOBODY if nobody else 1 if first == ADDRESS else 2,
                    "" if user == ABSENT else user,
                    "n" in flags,
                    "g" in flags,
                    "f" in flags,
                    time,
                )
                if one is None or one.who is None:
                    continue
                whom = one.who
            address = addresses.get(whom, "")
            if address == "":
                address = addresses[whom] = canonical(whom)
            if address is None:
                named += 1
                continue
            found.append((at, address))
        if unsure:
            self._counter.add("records_not_blamed", BlameReason.AMBIGUOUS, unsure)
        if named:
            self._counter.add("records_not_blamed", BlameReason.NO_ADDRESS, named)
        return found

    def _over_lines(self, index: int, state: _State, line: str) -> str:
        """What the newest line makes of those before it."""
        matcher = self._several[index]
        hit, state.buffer = matcher.match_lines([*state.buffer, line][-matcher.filter.lines :])
        return NOTHING if hit is None else said_of(matcher, hit, "\n".join(hit.lines))

    # ---------------------------------------------------------------------------------------------- over a restart

    def changes(self) -> dict[str, bytes]:
        """Per rule id what changed since the last call, whole."""
        out = {}
        for index in self._changed:
            kept = {
                host: (
                    state.buffer,
                    list(state.failures.connections.items())[-_HOLDS:],
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
            state = self._states.setdefault((index, host), _State())
            state.buffer = [str(line) for line in buffer]
            for name, one in connections:
                state.failures.connections[str(name)] = msgspec.convert(one, Connection)

"""Faults of our own that last: each is one finding when it begins and one when it is over, also over restarts.
Counterpart: `app.pipeline` has one of these for each such fault; `app.own` has the rules."""

from __future__ import annotations

from collections.abc import Callable

from vedette.model.alerts import AlertState
from vedette.model.rules import Rule
from vedette.store.queries import AlertFilter
from vedette.store.state import State

UNRESOLVED = frozenset({AlertState.OPEN, AlertState.ACKNOWLEDGED})
Say = Callable[[Rule, dict[str, str], int, str], None]
"""Makes a finding of our own: rule, key, microseconds, words."""


class Standing:
    """Where one fault stands, by what it is about: the one field of its rules' key, if they have any.

    fault, over: rules, of which `over` clears `fault`. What was open from an earlier run ends with the first good news.
    """

    def __init__(self, fault: Rule, over: Rule, state: State, say: Say) -> None:
        self._fault, self._over, self._say = fault, over, say
        self._about = next(iter(fault.key), "")
        chosen = AlertFilter(states=UNRESOLVED, rule_id=fault.id)
        self._open = {alert.labels.get(self._about, "") for alert in state.alerts(chosen)}
        self._said: set[str] = set()

    def tell(self, why: str, now: int, words: str, name: str = "") -> bool:
        """why: the fault, "" where all is well. words: said where it is over. Whether that was news to this run."""
        if name in self._said if why else name not in self._open:
            return False
        key = {self._about: name} if self._about else {}
        if why:
            self._open.add(name)
            self._said.add(name)
            self._say(self._fault, key, now, why)
        else:
            self._open.discard(name)
            self._said.discard(name)
            self._say(self._over, key, now, words)
        return True

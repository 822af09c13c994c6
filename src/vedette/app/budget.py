"""A rule that pages more often than allowed goes no further than mail, until a person says otherwise.
Counterpart: `app.pipeline` asks which rules are held back and tells of pages; its alert keeps it over restarts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from vedette.alerts.keys import alert_key
from vedette.alerts.routes import ReceiverKind
from vedette.app.own import PAGE_BUDGET_SPENT
from vedette.app.own import RULES as OWN
from vedette.model.alerts import Alert, AlertState
from vedette.model.clock import DAY
from vedette.model.notifications import NotificationKind, OutboxItem
from vedette.model.protocols import Transaction
from vedette.model.rules import NotifyStep, Rule
from vedette.store.queries import AlertFilter
from vedette.store.state import State

RULE = "vedette.rule"
"""The key field of the alert: which rule is held back."""

_OWN = frozenset(rule.id for rule in OWN)


class PageBudget:
    """Counts incidents per rule over a day.

    limit: incidents a rule may open on the pager in 24 hours. pagers: names of receivers that page. What is held
    back is what has an unresolved alert of `PAGE_BUDGET_SPENT`: whoever resolves it lets the rule page again.
    """

    def __init__(self, limit: int, pagers: Set[str], host_id: str) -> None:
        self._limit = limit
        self._pagers = pagers
        self._host_id = host_id
        self._pages: dict[str, dict[str, int]] = defaultdict(dict)
        """rule id -> incident (dedup_key) -> when it was first paged."""
        self._held: set[str] = set()
        self._untold: set[str] = set()
        """Held back, and the alert that says so is not stored yet."""

    def restore(self, items: Iterable[OutboxItem], alerts: Iterable[Alert], now: int) -> None:
        """Take up what was paged and held back before a restart; alerts: of `PAGE_BUDGET_SPENT`, resolved ones too."""
        begun: dict[str, int] = {}
        for alert in alerts:
            rule_id = alert.labels.get(RULE, "")
            if alert.state is AlertState.RESOLVED:
                begun[rule_id] = max(begun.get(rule_id, 0), alert.resolved_at)
            else:
                self._held.add(rule_id)
        for item in sorted(items, key=lambda one: one.created_at):
            self._count(item, now, begun)

    def rules(self, tx: Transaction, rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
        """`rules` with those that are held back one step lower; those a person let go are not any more."""
        for rule_id in sorted(self._held):
            key = alert_key(PAGE_BUDGET_SPENT.id, {RULE: rule_id, "host.id": self._host_id})
            if tx.unresolved_alert(key) is not None:
                self._untold.discard(rule_id)
            elif rule_id not in self._untold:
                self._held.discard(rule_id)
                self._pages.pop(rule_id, None)
        lowered = {
            rule_id: replace(rules[rule_id], step=NotifyStep.MAIL)
            for rule_id in self._held
            if rule_id in rules and rules[rule_id].step is NotifyStep.PAGE
        }
        return {**rules, **lowered} if lowered else rules

    def spent(self, items: Sequence[OutboxItem], now: int) -> list[str]:
        """Count what was just told to people; the rules whose budget is spent by it, each told once."""
        found: dict[str, None] = {}
        for item in items:
            for rule_id in self._count(item, now, {}):
                if rule_id not in self._held and len(self._pages[rule_id]) >= self._limit:
                    self._held.add(rule_id)
                    self._untold.add(rule_id)
                    found[rule_id] = None
        return list(found)

    def words(self, rule_id: str) -> str:
        """What the alert says."""
        incidents = "incident" if self._limit == 1 else "incidents"
        return f"{rule_id} opened {self._limit} {incidents} on the pager within a day: its next alerts are mail"

    def _count(self, item: OutboxItem, now: int, begun: Mapping[str, int]) -> list[str]:
        """The rules for which `item` is an incident of the last day that was not counted yet."""
        notification = item.notification
        if notification.kind is not NotificationKind.TRIGGER or notification.receiver not in self._pagers:
            return []
        counted = []
        for rule_id in sorted({member.rule_id for member in notification.members} - _OWN):
            pages = self._pages[rule_id]
            for old in [incident for incident, at in pages.items() if at <= now - DAY]:
                del pages[old]
            at = item.created_at
            if notification.dedup_key not in pages and at > max(now - DAY, begun.get(rule_id, 0)):
                pages[notification.dedup_key] = at
                counted.append(rule_id)
        return counted


_PAGES_LIMIT = 10_000
"""Of what was told to people as much is looked at when a run begins."""


def budget_of(
    limit: int | None, receivers: Mapping[str, ReceiverKind], state: State, host_id: str, now: int
) -> PageBudget | None:
    """The budget as the settings and the state have it; None where there is none."""
    if limit is None:
        return None
    pagers = {name for name, kind in receivers.items() if kind is ReceiverKind.PAGE}
    budget = PageBudget(limit, pagers, host_id)
    told = state.alerts(AlertFilter(rule_id=PAGE_BUDGET_SPENT.id), limit=_PAGES_LIMIT)
    budget.restore(state.outbox(limit=_PAGES_LIMIT), told, now)
    return budget

"""Alerts to notifications: groups along the routes, when each is told, and what of it.
Counterpart: `store` keeps groups and outbox between restarts, `notify` delivers the items made here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

import msgspec

from vedette.alerts.keys import step_of
from vedette.alerts.routes import Inhibition, ReceiverKind, Route, Sources, build_tree, default_tree
from vedette.alerts.settings import AlertsSettings
from vedette.alerts.silences import silenced_by
from vedette.model.alerts import Alert, AlertChange, AlertState, ChangeKind, ResolveReason, Silence
from vedette.model.ids import uuid7
from vedette.model.levels import Level
from vedette.model.notifications import GroupState, MemberAlert, Notification, NotificationKind, OutboxItem
from vedette.model.protocols import Counter, Transaction
from vedette.model.rules import NotifyStep

MEMBERS_LIMIT = 50

_NEVER = 2**62

# What `GroupState.notified` holds for a member that was resolved before anybody was told of it.
_UNTOLD = ""


class MuteReason(StrEnum):
    """Why an alert is not notified; counted as `alerts_muted` each time its group is looked at."""

    SILENCED = "silenced"
    INHIBITED = "inhibited"


def dedup_key(route: str, labels: Mapping[str, str], episode: int) -> str:
    """What ties the trigger, acknowledgement and resolution of one episode together (32 hex digits)."""
    return blake2b(msgspec.json.encode([route, sorted(labels.items()), episode]), digest_size=16).hexdigest()


def group_key(route: Route, labels: Mapping[str, str]) -> str:
    """Receiver, route and group labels as one text, in Alertmanager's manner."""
    written = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    return f"{route.receiver}:{route.id}:{{{written}}}"


@dataclass
class _Pass:
    """One call of plan or flush: its transaction and time, groups read once, items made."""

    tx: Transaction
    now: int
    groups: dict[str, GroupState] = field(default_factory=dict)
    items: list[OutboxItem] = field(default_factory=list)
    silences: Sequence[Silence] | None = None
    inhibitors: list[tuple[Inhibition, Sources]] | None = None

    def active_silences(self) -> Sequence[Silence]:
        if self.silences is None:
            self.silences = self.tx.silences(self.now)
        return self.silences

    def active_inhibitions(self, inhibitions: Sequence[Inhibition]) -> list[tuple[Inhibition, Sources]]:
        if self.inhibitors is None:
            unresolved = self.tx.unresolved_alerts() if inhibitions else ()
            self.inhibitors = [(each, each.sources(unresolved)) for each in inhibitions]
        return self.inhibitors

    def send(self, group: GroupState, notification: Notification, *, order_key: str) -> None:
        group.sequence += 1
        item = OutboxItem(
            id=uuid7(self.now),
            notification=notification,
            order_key=order_key,
            sequence=group.sequence,
            next_try_at=self.now,
            created_at=self.now,
        )
        self.tx.enqueue(item)
        self.items.append(item)

    def finish(self) -> list[OutboxItem]:
        for group in self.groups.values():
            self.tx.save_group(group)
        return self.items


def _sooner(due_at: int, other: int) -> int:
    return min(due_at, other) if due_at else other


class Router:
    """The routing tree with its groups. Holds no state of its own: groups lie in the transaction.

    After every change of alerts `plan`, and `flush` whenever `next_due` has come, each inside a transaction.
    ConfigError when the settings name a receiver that is not among `receivers` (name -> kind).
    """

    def __init__(self, settings: AlertsSettings, receivers: Mapping[str, ReceiverKind], counter: Counter) -> None:
        self.tree = build_tree(settings.route or default_tree(receivers), receivers)
        self._receivers = dict(receivers)
        self._mail = next((name for name, kind in receivers.items() if kind is ReceiverKind.MAIL), "")
        capped = (route.up_to(step, self._mail) for route in self.tree.walk() for step in NotifyStep)
        self._routes = {(route.id, route.receiver): route for route in capped if route is not None}
        self._inhibitions = [Inhibition.of(each) for each in settings.inhibit]
        self._url = settings.external_url
        self._counter = counter

    # ---------------------------------------------------------------- what changed
    def plan(self, changes: Iterable[AlertChange], tx: Transaction, now: int) -> list[OutboxItem]:
        """Mark the groups of changed alerts and when they are due.

        Items come of it only where a group opens anew before its last episode was told to be over: the
        resolution of that one goes first.
        """
        work = _Pass(tx, now)
        for change in changes:
            if change.kind is not ChangeKind.UPDATED:
                self._plan(change, work)
        return work.finish()

    def _plan(self, change: AlertChange, work: _Pass) -> None:
        alert = change.alert
        step = step_of(alert.labels)
        for taken in self.tree.matching(alert.labels):
            if not taken.receiver:
                continue
            route = taken.up_to(step, self._mail)
            if route is None:
                if change.kind is ChangeKind.OPENED:
                    self._counter.add("alerts_kept_back", step)
                continue
            group = self._group(route, alert.labels, work)
            match change.kind:
                case ChangeKind.OPENED:
                    self._opened(alert, group, route, work)
                case ChangeKind.RESOLVED:
                    self._resolved(alert, group, route, work)
                case ChangeKind.ACKNOWLEDGED if route.kind is ReceiverKind.PAGE and group.triggered:
                    # Whoever is on call should not be called on for what somebody already looks after.
                    group.due_at = _sooner(group.due_at, work.now)

    def _group(self, route: Route, labels: Mapping[str, str], work: _Pass) -> GroupState:
        own = route.group_labels(labels)
        key = group_key(route, own)
        if key not in work.groups:
            work.groups[key] = work.tx.group(key) or GroupState(key, route.id, route.receiver, own)
        group = work.groups[key]
        # A clock that was set back must not hold a page for as long.
        group.last_notified_at = min(group.last_notified_at, work.now)
        return group

    def _opened(self, alert: Alert, group: GroupState, route: Route, work: _Pass) -> None:
        if alert.id in group.members:
            return
        if not group.members:
            self._close(group, route, work)
            group.episode += 1
        group.members.append(alert.id)
        group.due_at = _sooner(group.due_at, max(work.now + route.group_wait, self._pause(group, route)))

    def _resolved(self, alert: Alert, group: GroupState, route: Route, work: _Pass) -> None:
        if alert.id not in group.members:
            return
        group.members.remove(alert.id)
        group.notified.setdefault(alert.id, _UNTOLD)
        if route.kind is ReceiverKind.PAGE:
            if not group.members:
                group.due_at = _sooner(group.due_at, work.now)
        elif group.triggered:
            group.due_at = _sooner(group.due_at, max(work.now, self._pause(group, route)))

    @staticmethod
    def _pause(group: GroupState, route: Route) -> int:
        """Until when this group's receiver is left alone; 0 where it was never told anything."""
        return group.last_notified_at + route.group_interval if group.last_notified_at else 0

    # ---------------------------------------------------------------- what is told
    def flush(self, tx: Transaction, now: int) -> list[OutboxItem]:
        """Look at every group that is due and enqueue what its receiver must be told; the items made."""
        items: list[OutboxItem] = []
        # Once more for the groups that members of a vanished route were handed to.
        for _ in range(2):
            due = tx.due_groups(now)
            if not due:
                break
            work = _Pass(tx, now)
            for group in due:
                group = work.groups.setdefault(group.key, group)
                route = self._routes.get((group.route, group.receiver))
                if route is None:
                    self._rehome(group, work)
                else:
                    self._look(group, route, work)
            items += work.finish()
        return items

    def set_back(self, tx: Transaction, by: int) -> None:
        """The clock was set back by `by` microseconds: what is planned is so much earlier in the new time."""
        for group in tx.due_groups(_NEVER):
            group.due_at = max(group.due_at - by, 1)
            group.last_notified_at = max(group.last_notified_at - by, 1) if group.last_notified_at else 0
            tx.save_group(group)

    def next_due(self, tx: Transaction) -> int:
        """When to `flush` next, microseconds; 0 = not before something changes."""
        return tx.next_due()

    def _look(self, group: GroupState, route: Route, work: _Pass) -> None:
        now = work.now
        opened = [alert for alert in work.tx.alerts(group.members) if alert.state is not AlertState.RESOLVED]
        still = {alert.id for alert in opened}
        for alert_id in group.members:
            if alert_id not in still:
                group.notified.setdefault(alert_id, _UNTOLD)
        group.members = [alert.id for alert in opened]
        if not opened:
            self._close(group, route, work)
            group.due_at = 0
            return
        heard = [alert for alert in opened if not self._muted(alert, work)]
        unacknowledged = [alert for alert in heard if alert.state is AlertState.OPEN]
        fresh = [alert for alert in unacknowledged if alert.id not in group.notified]
        gone = self._gone(group, route, still, work)
        pause = self._pause(group, route)
        repeat_at = group.last_notified_at + route.repeat_interval
        if now >= pause and (
            (unacknowledged and (fresh or not group.triggered or now >= repeat_at)) or (gone and group.triggered)
        ):
            order = sorted(heard, key=lambda alert: (alert.id in group.notified, -alert.level, -alert.last_event_at))
            self._tell(NotificationKind.TRIGGER, group, route, [*order, *gone], work)
            group.triggered = True
            group.last_notified_at = now
            repeat_at = now + route.repeat_interval
            if unacknowledged:
                group.acknowledged = False
            self._forget(group, route, still)
            group.notified |= {alert.id: alert.state.value for alert in heard}
            fresh, gone = [], []
        if group.triggered and heard and not unacknowledged and not group.acknowledged:
            group.acknowledged = True
            if route.kind is ReceiverKind.PAGE:
                self._tell(NotificationKind.ACKNOWLEDGE, group, route, heard, work)
        later = [pause] if fresh or gone else []
        if len(heard) < len(opened):
            later.append(now + route.group_interval)
        later.append(max(repeat_at, now + 1) if unacknowledged and group.triggered else now + route.repeat_interval)
        group.due_at = min(later)

    def _gone(self, group: GroupState, route: Route, still: set[str], work: _Pass) -> list[Alert]:
        """Members this receiver was told of and must be told are resolved, while others are not.

        A pager is told when all are; that low alerts became quiet is no news by itself.
        """
        ids = [alert_id for alert_id, state in group.notified.items() if alert_id not in still]
        told = [alert_id for alert_id in ids if group.notified[alert_id] != _UNTOLD]
        if route.kind is not ReceiverKind.PAGE and route.resolved and told:
            gone = work.tx.alerts(told)
            if any(alert.resolve_reason is not ResolveReason.QUIET for alert in gone):
                return list(gone)
        self._forget(group, route, still)
        return []

    @staticmethod
    def _forget(group: GroupState, route: Route, still: set[str]) -> None:
        """Drop resolved members: a group that never empties must not remember everyone who ever was in it.

        Of those a pager was told of a few stay, so that the end of the incident can name some.
        """
        told = [name for name, state in group.notified.items() if name not in still and state != _UNTOLD]
        kept = set(told[-MEMBERS_LIMIT:]) if route.kind is ReceiverKind.PAGE else set()
        group.notified = {name: state for name, state in group.notified.items() if name in still or name in kept}

    def _close(self, group: GroupState, route: Route, work: _Pass) -> None:
        """The episode is over: say so to whoever was told it began."""
        ended = [
            alert
            for alert in work.tx.alerts(list(group.notified))
            if group.notified[alert.id] != _UNTOLD or not self._muted(alert, work)
        ]
        if route.kind is ReceiverKind.PAGE:
            unsent = work.tx.supersede(group.key) if group.triggered else ()
            if unsent:
                self._counter.add("pages_superseded", n=len(unsent))
            if group.triggered:
                # Also where no trigger left, as far as we know: one that is on its way at this moment would
                # leave an incident nobody closes, and a pager ignores the end of what it never heard of.
                self._tell(NotificationKind.RESOLVE, group, route, ended, work)
            if ended and (unsent or not group.triggered):
                self._mail_instead(group, route, ended, work)
        elif group.triggered and route.resolved:
            told = [alert for alert in ended if group.notified[alert.id] != _UNTOLD]
            if any(alert.resolve_reason is not ResolveReason.QUIET for alert in told):
                self._tell(NotificationKind.RESOLVE, group, route, told, work)
        group.triggered = group.acknowledged = False
        group.notified = {}

    def _mail_instead(self, group: GroupState, route: Route, ended: Sequence[Alert], work: _Pass) -> None:
        """What was over before the pager could be told is a mail, not a page."""
        if not self._mail:
            self._counter.add("pages_without_mail")
            return
        notification = self._notification(NotificationKind.RESOLVE, group, route, ended, work.now)
        notification.receiver = self._mail
        work.send(group, notification, order_key=f"{self._mail}:instead:{group.key}")

    def _rehome(self, group: GroupState, work: _Pass) -> None:
        """The settings no longer have this group's route: it ends, its open members go where they now belong."""
        opened = [alert for alert in work.tx.alerts(group.members) if alert.state is not AlertState.RESOLVED]
        if group.triggered and self._receivers.get(group.receiver) is ReceiverKind.PAGE:
            work.tx.supersede(group.key)
            members = work.tx.alerts(list({**dict.fromkeys(group.members), **group.notified}))
            notification = self._notification(NotificationKind.RESOLVE, group, None, members, work.now)
            work.send(group, notification, order_key=group.key)
        group.members, group.notified, group.due_at = [], {}, 0
        group.triggered = group.acknowledged = False
        for alert in opened:
            self._plan(AlertChange(alert, ChangeKind.OPENED, work.now), work)

    def _muted(self, alert: Alert, work: _Pass) -> bool:
        if silenced_by(work.active_silences(), alert.labels, work.now) is not None:
            self._counter.add("alerts_muted", MuteReason.SILENCED)
            return True
        inhibitions = work.active_inhibitions(self._inhibitions)
        if any(each.mutes(alert.labels, sources) for each, sources in inhibitions):
            self._counter.add("alerts_muted", MuteReason.INHIBITED)
            return True
        return False

    def _tell(
        self, kind: NotificationKind, group: GroupState, route: Route, alerts: Sequence[Alert], work: _Pass
    ) -> None:
        work.send(group, self._notification(kind, group, route, alerts, work.now), order_key=group.key)

    def _notification(
        self, kind: NotificationKind, group: GroupState, route: Route | None, alerts: Sequence[Alert], now: int
    ) -> Notification:
        return Notification(
            kind=kind,
            receiver=group.receiver,
            group_key=group.key,
            group_labels=dict(group.labels),
            episode=group.episode,
            dedup_key=dedup_key(group.route, group.labels, group.episode),
            level=max((alert.level for alert in alerts), default=Level.INFORMATIONAL),
            members=[_member(alert) for alert in alerts[:MEMBERS_LIMIT]],
            total=len(alerts),
            created_at=now,
            digest=route is not None and route.digest,
            external_url=self._url,
        )


def _member(alert: Alert) -> MemberAlert:
    return MemberAlert(
        id=alert.id,
        rule_id=alert.rule_id,
        rule_name=alert.rule_name,
        level=alert.level,
        state=alert.state.value,
        labels=dict(alert.labels),
        summary=alert.summary,
        advice=alert.advice,
        sample=alert.sample,
        count=alert.count,
        opened_at=alert.opened_at,
        last_event_at=alert.last_event_at,
        resolved_at=alert.resolved_at,
    )


def group_of_incident(groups: Iterable[GroupState], key: str) -> GroupState | None:
    """The group whose present episode has this dedup_key (what a pager's webhook speaks of); None = over or unknown."""
    return next((group for group in groups if dedup_key(group.route, group.labels, group.episode) == key), None)

"""What is told to people: one notification a group and receiver, as it lies in the outbox.
Counterpart: `alerts` plan them, `notify` delivers them, `store` keeps the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from vedette.model.levels import Level
from vedette.model.reasons import DeliveryReason


class NotificationKind(StrEnum):
    """What a notification asks of its receiver."""

    TRIGGER = "trigger"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"


@dataclass(slots=True)
class MemberAlert:
    """What a notification says of one alert (all text still raw; renderers escape)."""

    id: str
    rule_id: str
    rule_name: str
    level: Level
    state: str
    labels: dict[str, str]
    summary: str
    advice: str
    sample: str
    count: int
    opened_at: int
    last_event_at: int
    resolved_at: int = 0


@dataclass(slots=True)
class Notification:
    """One thing to tell one receiver about one group.

    dedup_key: hash of route, group labels and episode (design, section 5): stable over retries and shared
    by trigger, acknowledge and resolve of one episode. members: at most 50 in full; total says how many.
    level: the highest among the members. digest: may wait and be joined with others of the receiver.
    """

    kind: NotificationKind
    receiver: str
    group_key: str
    group_labels: dict[str, str]
    episode: int
    dedup_key: str
    level: Level
    members: list[MemberAlert]
    total: int
    created_at: int
    digest: bool = False
    external_url: str = ""


class OutboxState(StrEnum):
    """Where an outbox item stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPERSEDED = "superseded"


@dataclass(slots=True)
class OutboxItem:
    """A notification to be delivered at least once. id: UUIDv7, also the stable part of Message-ID.

    order_key: items with the same one are delivered in order of `sequence` (a resolve never overtakes
    its trigger). next_try_at: microseconds. fallback_of: id of the item this one replaces at a fallback
    receiver.
    """

    id: str
    notification: Notification
    order_key: str
    sequence: int
    state: OutboxState = OutboxState.PENDING
    attempts: int = 0
    next_try_at: int = 0
    created_at: int = 0
    delivered_at: int = 0
    last_reason: DeliveryReason | None = None
    last_detail: str = ""
    fallback_of: str = ""
    fallback_sent: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one attempt. retry: try again later (429, 5xx and network errors only).

    retry_after: microseconds to wait at least, 0 = as the outbox thinks. detail: for people, no secrets.
    """

    reason: DeliveryReason
    retry: bool = False
    retry_after: int = 0
    detail: str = ""


@dataclass(slots=True)
class GroupState:
    """Alertmanager's group, as the store keeps it between restarts.

    members: alert ids not resolved yet when last looked at. episode: counts up when the group goes from no
    open member to one. due_at: when it must be looked at next, microseconds, 0 = nothing planned.
    notified: the alert ids (with their state) that the last notification spoke of. sequence: of the last
    outbox item made for this group.
    """

    key: str
    route: str
    receiver: str
    labels: dict[str, str]
    episode: int = 0
    members: list[str] = field(default_factory=list)
    due_at: int = 0
    last_notified_at: int = 0
    triggered: bool = False
    acknowledged: bool = False
    notified: dict[str, str] = field(default_factory=dict)
    sequence: int = 0

"""Notifications, outbox items and a counter as the tests of this room want them.
Counterpart: tests/notify/test_*.py."""

from __future__ import annotations

from collections import Counter as Tally
from enum import Enum
from typing import Any

from vedette.model.levels import Level
from vedette.model.notifications import Delivery, MemberAlert, Notification, NotificationKind, OutboxItem
from vedette.model.reasons import DeliveryReason
from vedette.testing.clock import START
from vedette.testing.state import MemoryState

HOSTILE = "x\r\nBcc: victim@example.org\r\n\r\n\x1b[31m\u202egnp\x00\x9b<script>alert(1)</script>"


class Counts:
    """A Counter that remembers."""

    def __init__(self) -> None:
        self.counted: Tally[tuple[str, str]] = Tally()

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        self.counted[name, str(reason)] += n

    def of(self, name: str) -> dict[str, int]:
        return {reason: n for (counted, reason), n in self.counted.items() if counted == name}


class State(MemoryState):
    """The state in memory, with doors for what only tests do."""

    def put(self, *items: OutboxItem) -> None:
        with self.transaction() as transaction:
            for item in items:
                transaction.enqueue(item)

    def item(self, item_id: str) -> OutboxItem:
        (found,) = [item for item in self.outbox(limit=1_000_000) if item.id == item_id]
        return found


def member(**changes: Any) -> MemberAlert:
    values: dict[str, Any] = {
        "id": "01930000-0000-7000-8000-000000000001",
        "rule_id": "ssh-brute-force-address",
        "rule_name": "SSH brute force by one address",
        "level": Level.HIGH,
        "state": "open",
        "labels": {
            "rule.id": "ssh-brute-force-address",
            "level": "high",
            "host.id": "0" * 32,
            "host.name": "web01",
            "source.ip": "198.51.100.7",
        },
        "summary": "5 failed logins of 198.51.100.7 in 10 minutes",
        "advice": "Block the address; look for a success after the failures.",
        "sample": "Failed password for root from 198.51.100.7 port 4242 ssh2",
        "count": 5,
        "opened_at": START,
        "last_event_at": START + 1_000_000,
    }
    return MemberAlert(**(values | changes))


def notification(**changes: Any) -> Notification:
    values: dict[str, Any] = {
        "kind": NotificationKind.TRIGGER,
        "receiver": "pager",
        "group_key": "default/rule.id=ssh-brute-force-address",
        "group_labels": {"rule.id": "ssh-brute-force-address"},
        "episode": 1,
        "dedup_key": "d" * 64,
        "level": Level.HIGH,
        "members": [member()],
        "total": 1,
        "created_at": START,
    }
    return Notification(**(values | changes))


def item(name: str, *, order: str = "", sequence: int = 1, at: int = START, **changes: Any) -> OutboxItem:
    """An item called `name`; its dedup_key is its order, else its name. `changes` are of the notification."""
    told = notification(**({"dedup_key": order or name, "created_at": at} | changes))
    return OutboxItem(name, told, order or name, sequence, next_try_at=at, created_at=at)


DELIVERED = Delivery(DeliveryReason.DELIVERED)
DOWN = Delivery(DeliveryReason.NETWORK_ERROR, retry=True)
BROKEN = Delivery(DeliveryReason.SERVER_ERROR, retry=True)
REFUSED = Delivery(DeliveryReason.REFUSED, detail="400 no")

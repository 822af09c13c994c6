"""Ids that sort by time: UUIDv7 (RFC 9562 section 5.7), for alerts, decisions and outbox items.
Counterpart: `alerts`, `respond` and `store` name things with them."""

from __future__ import annotations

import secrets
import uuid


def uuid7(now: int) -> str:
    """A new UUIDv7 for `now` (microseconds UTC)."""
    value = (now // 1000 & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))

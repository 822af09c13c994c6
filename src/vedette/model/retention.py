"""What is kept for a time and then let go, by kind.
Counterpart: `store` deletes what is older, `app` asks for it in small batches, `store.settings` say how old."""

from __future__ import annotations

from enum import StrEnum

from vedette.model.clock import DAY

EVIDENCE_SLACK = DAY
"""An alert may open so much later than the record it begins with was read."""


class Kept(StrEnum):
    """Kinds of rows that would grow without bound. What is still unfinished is never let go, however old."""

    ALERTS = "alerts"
    """Resolved ones; their age counts from the last change."""
    FINDINGS = "findings"
    """By when the record was read; evidence of an unresolved alert stays."""
    OUTBOX = "outbox"
    """Items delivered, failed or superseded; by when they were made."""
    REFUSALS = "refusals"
    DECISIONS = "decisions"
    """Those that block no more; by the end of their lease."""
    SILENCES = "silences"
    """By their end."""
    GROUPS = "groups"
    """Groups without an open member and with nothing planned; by when anybody was last told of them."""

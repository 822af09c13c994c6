"""Counts by name and reason, from any thread: what doctor, metrics and summaries show.
Counterpart: every stage is handed one as the model's Counter."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from enum import Enum


class Counters:
    """The counters of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Tally[tuple[str, str]] = Tally()

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        """Add `n` to counter `name` for `reason`."""
        with self._lock:
            self._counts[name, str(reason.value if isinstance(reason, Enum) else reason)] += n

    def value(self, name: str, reason: Enum | str = "") -> int:
        """What has been counted so far."""
        with self._lock:
            return self._counts[name, str(reason.value if isinstance(reason, Enum) else reason)]

    def snapshot(self) -> dict[tuple[str, str], int]:
        """Every (name, reason) with its count."""
        with self._lock:
            return dict(self._counts)

"""Whether the hub still answers, said once when it does not for too long and once when it does again.
Counterpart: `app.agent_control` asks it; the rules `fleet-hub-lost` and `fleet-hub-back` make an alert and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from vedette.model.clock import SECOND

log = structlog.get_logger()

Say = Callable[[str, str, Mapping[str, object]], None]
"""Action, message, and what stands under `vedette.fleet`."""


class HubEye:
    """after: microseconds without an answer until it is said, 0 = never. In terms of the clock of the caller."""

    def __init__(self, after: int, say: Say, now: int) -> None:
        self._after, self._say = after, say
        self._answered_at = now
        self._lost = False
        # An alert of an earlier run may be open: the first answer ends it, and nothing else may.
        self._owed = True

    def answered(self, now: int) -> None:
        """It did."""
        self._answered_at = now
        if self._after and (self._lost or self._owed):
            self._say("hub-back", "the hub answers", {})
        self._lost = self._owed = False

    def silent(self, now: int) -> None:
        """It did not, now."""
        self._answered_at = min(self._answered_at, now)  # the clock may have been set back
        gone = now - self._answered_at
        if self._after and not self._lost and gone >= self._after:
            self._lost = True
            self._say("hub-lost", f"the hub has not answered for {gone // SECOND} s", {"reason": "no-answer"})
            log.error("THE HUB DOES NOT ANSWER", seconds=gone // SECOND)

"""Keeps hard floor and allowlist as they are now: the host gets addresses, people and other processes write entries.
Counterpart: `app.pipeline` asks before it decides, and lifts what must not be blocked any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from vedette.model.clock import SECOND
from vedette.model.errors import ConfigError, EnforcementError
from vedette.respond.allowlist import Entry, Guard
from vedette.respond.enforcers import allowlist_of, refresh_floor
from vedette.respond.settings import RespondSettings

log = structlog.get_logger()

FLOOR_EVERY = 30 * SECOND
TELL_AGAIN = 10 * SECOND

_Seen = tuple[int, int, int] | None


class GuardWatch:
    """Looks after one guard; one thread owns both. more: allowlist files besides those of the settings.

    tell: told the entries at first and when they have changed; what cannot be told is tried again.
    """

    def __init__(
        self,
        guard: Guard,
        settings: RespondSettings,
        more: Sequence[Path],
        now: int,
        tell: Callable[[Sequence[Entry]], None] = lambda _entries: None,
    ) -> None:
        self._guard = guard
        self._tell = tell
        self._untold, self._tell_at, self._said = True, now, False
        self._settings = settings
        self._more = list(more)
        self._files = [*map(Path, settings.allowlist_files), *more]
        self._floor_at = now + FLOOR_EVERY
        # What was read before this must be read again: it may have changed between the two.
        self._seen: list[_Seen] | None = None

    def changed(self, now: int) -> bool:
        """Bring the guard up to date; whether it holds something else now. Cheap where nothing happened."""
        changed = False
        if now >= self._floor_at or now < self._floor_at - FLOOR_EVERY:  # the clock was set back
            self._floor_at = now + FLOOR_EVERY
            changed = refresh_floor(self._guard, self._settings)
        seen = [_look(path) for path in self._files]
        if seen != self._seen:
            self._seen = seen
            changed |= self._read()
        if self._untold and not now < self._tell_at <= now + TELL_AGAIN:
            self._tell_at = now + TELL_AGAIN
            self._tell_entries()
        return changed

    def _tell_entries(self) -> None:
        try:
            self._tell(self._guard.entries)
        except EnforcementError as error:
            if not self._said:
                log.warning("the enforcer does not know the allowlist", reason=str(error))
            self._said = True
        else:
            self._untold = self._said = False

    def _read(self) -> bool:
        try:
            entries = allowlist_of(self._settings, self._more)
        except ConfigError as error:
            log.error("ALLOWLIST CANNOT BE READ: the entries read before stay", reason=str(error))
            return False
        if entries == self._guard.entries:
            return False
        self._guard.set_allowlist(entries)
        self._untold, self._tell_at = True, 0
        return True


def _look(path: Path) -> _Seen:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

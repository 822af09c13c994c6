"""Errors of SQLite in our words, with what a person can do about them.
Counterpart: `store.connections` says those of every database; `store.lake.listing` reads without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from vedette.model.errors import StateError

BUSY_TIMEOUT_MS = 10_000

HINTS = {
    "SQLITE_FULL": "make room on the disk: nothing of this transaction was kept, the next one works again",
    "SQLITE_IOERR": "look at the disk (kernel log): nothing of this transaction was kept",
    "SQLITE_READONLY": "the file or its file system is read-only: mount it writable or name another folder",
    "SQLITE_CANTOPEN": "the folder must exist, be writable and have room",
    "SQLITE_BUSY": "another program holds the database: end it, or wait",
    "SQLITE_LOCKED": "another program holds the database: end it, or wait",
    "SQLITE_CORRUPT": "the file is damaged: move it away (it is started anew) or restore a copy",
    "SQLITE_NOTADB": "the file is no state database: move it away or name another folder",
}


def hint_of(error: BaseException | None) -> str:
    """What to do about an error of the driver; "" where nothing is known."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return next((hint for prefix, hint in HINTS.items() if name.startswith(prefix)), "")


@contextmanager
def in_our_words(place: str) -> Iterator[None]:
    """Errors of the driver as StateError, said of `place`; statements and values stay out of the text."""
    try:
        yield
    except sqlite3.Error as error:
        hint = hint_of(error) or "look at the disk (kernel log)"
        raise StateError(f"state in {place}: {error}", hint=hint) from error

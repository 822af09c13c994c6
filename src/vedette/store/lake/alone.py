"""Who may replace files of a lake: one program at a time, the one that writes it or one that erases beside it.
Counterpart: `lake` holds this to compact and let go, `erasing` from a command; a program's end gives it back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "rewriting"


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Inside, nobody else replaces files; False where somebody does and we were not to wait. OSError as it comes."""
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)

"""Whether the folder in which the broker keeps its streams is still the one it began with, whole.
Counterpart: `broker` looks every second, for a server whose files are deleted goes on writing into them."""

from __future__ import annotations

import os
from pathlib import Path

from vedette.fleet import subjects

_PARTS = ("msgs", "meta.inf", f"obs/{subjects.CONSUMER}/meta.inf")
"""What a server that runs cannot do without, in the folder of each of its streams."""


class StoreWatch:
    """Looks at `folder`. parts: all that was seen of its streams since the server began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: set[Path] = set()
        self._gone: set[Path] = set()
        self._began_with: tuple[int, int] | None = None

    def begin(self) -> None:
        """Another server begins: what is there from now on is its."""
        self._began_with = None
        self.parts, self._gone = set(), set()

    def is_taken(self) -> bool:
        """Whether the folder is not there any more, or a part of it is not at two looks, for the hub makes its
        consumer anew when it starts. OSError where that cannot be told: what cannot be looked at is not gone.
        """
        found, parts = _identity(self.folder), _parts_in(self.folder)
        if self._began_with is None:
            self._began_with = found
        gone = self.parts - parts
        taken = not gone.isdisjoint(self._gone)
        self.parts, self._gone = self.parts | parts, gone
        return self._began_with is not None and (found != self._began_with or taken)


def _identity(place: Path) -> tuple[int, int] | None:
    """Device and inode; None where nothing is there."""
    try:
        found = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _parts_in(store: Path) -> set[Path]:
    streams = [stream for account in _inside(store / "jetstream") for stream in _inside(account / "streams")]
    return {place for stream in streams for part in _PARTS if _identity(place := stream / part) is not None}


def _inside(folder: Path) -> list[Path]:
    # Not Path.glob, to which a folder that may not be read is an empty one.
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []

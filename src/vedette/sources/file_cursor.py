"""What is kept of a followed log between two runs: versioned JSON text, name and version first.
Counterpart: follow.py writes it into every batch and begins after it; siblings.py finds its places again."""

from __future__ import annotations

import msgspec

from vedette.model.errors import StateError
from vedette.sources.siblings import Place

CURSOR = "vedette-file-cursor"
VERSION = 1


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept between two runs. number: of the next batch. generation: of the next file that appears."""

    name: str = CURSOR
    version: int = VERSION
    number: int
    generation: int
    places: tuple[Place, ...]


def read_cursor(text: str, source: str) -> Cursor:
    """The stored cursor; StateError when it is not one of ours or newer than we are."""
    try:
        head = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        name = msgspec.json.decode(head.get("name", msgspec.Raw(b'""')))
        version = msgspec.json.decode(head.get("version", msgspec.Raw(b"0")))
        if name == CURSOR and isinstance(version, int) and version > VERSION:
            raise StateError(
                f"the cursor of {source} was written by a newer version ({version}, this one knows {VERSION})",
                hint="start the newer version again, or remove the cursor to begin anew",
            )
        cursor = msgspec.json.decode(text, type=Cursor)
    except msgspec.DecodeError as error:
        raise StateError(f"the cursor of {source} cannot be read: {error}", hint="remove it to begin anew") from None
    if cursor.name != CURSOR or cursor.version != VERSION:
        raise StateError(f"the cursor of {source} is not a file cursor", hint="remove it to begin anew")
    return cursor

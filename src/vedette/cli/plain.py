"""A replay spelled the plain way, read without Typer, whose import takes longer than many a replay.
Counterpart: `replay` is the command; what is not plain is left to it, and a test holds both to the same reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vedette.cli.output import Format

_FLAGS = {"--no-packs": "no_packs", "--keep-going": "keep_going"}
_TEXTS = {"--format": "format", "--timezone": "timezone"}
_NUMBERS = {"--year": "year", "--workers": "workers"}


def plain_replay(words: Sequence[str]) -> dict[str, Any] | None:
    """Arguments of `replaying.replay_files` by name; None where the words want a closer look."""
    files: list[Path] = []
    rules: list[Path] = []
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            files.append(Path(word))
            continue
        if word in _FLAGS:
            found[_FLAGS[word]] = True
            continue
        value = next(rest, "")
        if not value or value.startswith("-"):
            return None
        if word == "--rules":
            rules.append(Path(value))
        elif word in _TEXTS:
            found[_TEXTS[word]] = value
        elif word in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 10:
            found[_NUMBERS[word]] = int(value)
        elif word == "--output" and value in tuple(Format):
            found["output"] = Format(value)
        else:
            return None
    if not files or "" in words:
        return None
    return {"files": files, **found, **({"rules": rules} if rules else {})}

"""Which files are rules: those named, those in the folders named, and our packs.
Counterpart: `loading` reads them; whoever asks whether any changed need not import what compiles them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vedette.model.errors import Location, RuleError

PACKS = Path(__file__).parent / "packs"
SUFFIXES = (".yml", ".yaml")


def rule_files(path: Path) -> list[Path]:
    """The rule files of a path: itself, or those in a folder, recursively, in byte order of their whole names."""
    if not path.is_dir():
        if not path.exists():
            raise RuleError("no such file or folder", location=Location(str(path)))
        return [path]
    found = [file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}") if file.is_file()]
    return sorted(found, key=lambda file: str(file).encode("utf-8", "surrogateescape"))


def iter_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files `load` would read for `paths`, in its order."""
    for path in paths:
        yield from rule_files(path)

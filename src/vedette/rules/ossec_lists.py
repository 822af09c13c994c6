"""Lists that OSSEC and Wazuh rules look things up in: `key:value` lines, found by their base name.
Counterpart: `ossec_conditions` makes tests of them; `files` tells lists from rules."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vedette.model.errors import Location, RuleError

FILE_LIMIT = 16 * 1024 * 1024
ENTRIES = 250_000
"""Entries of one list; more than these would make every start slow."""
_DEEPEST = 4
_NOT_LISTS = frozenset({".xml", ".yml", ".yaml", ".conf", ".local", ".ini", ".log", ".md"})


class ListStore:
    """The lists under some paths. A path is a list, or a folder with lists at any depth."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._found: dict[str, Path] | None = None
        self._read: dict[Path, list[tuple[str, str]]] = {}

    def __call__(self, name: str) -> list[tuple[str, str]]:
        """Keys and values of the list that a rule calls `name`. FileNotFoundError where there is none."""
        base = name.rsplit("/", 1)[-1]
        path = self._all().get(base.removesuffix(".cdb"))
        if path is None:
            raise FileNotFoundError(name)
        if path not in self._read:
            self._read[path] = read_list(path)
        return self._read[path]

    def files(self) -> list[Path]:
        """Every list there is."""
        return sorted(self._all().values())

    def _all(self) -> dict[str, Path]:
        if self._found is None:
            self._found = {}
            for path in self._paths:
                for file in _files(path):
                    if file.suffix not in _NOT_LISTS:
                        self._found.setdefault(file.name.removesuffix(".txt"), file)
        return self._found


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        yield path
        return
    depth = len(path.parts)
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders.sort()
        if len(here.parts) - depth >= _DEEPEST:
            folders.clear()
        # A pipe or a device would hold up whoever reads it.
        yield from (file for name in sorted(names) if (file := here / name).is_file())


def read_list(path: Path) -> list[tuple[str, str]]:
    """The entries of a list; RuleError with its place where it is too large or no list."""
    where = Location(str(path))
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise RuleError(f"a list of more than {FILE_LIMIT >> 20} MiB", location=where)
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror}", location=where) from None
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith('"') and (end := line.find('"', 1)) > 0:
            key, value = line[1:end], line[end + 1 :].removeprefix(":").strip('"')
        else:
            key, _, value = line.partition(":")
        entries.append((key, value))
        if len(entries) > ENTRIES:
            raise RuleError(f"a list of more than {ENTRIES} entries", location=Location(str(path), number))
    return entries

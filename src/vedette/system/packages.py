"""Which package of the distribution a file came with, read from the databases of dpkg and rpm themselves.
Counterpart: `sources.ports.inside` says with it what a listener's program is part of."""

# dpkg: deb-files in /var/lib/dpkg/info, dpkg-query(1). rpm: rpmdb.sqlite.
from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from vedette.system.rpm_header import BASE_NAMES, DIR_INDEXES, DIR_NAMES, NAME, read_header

_RPM_DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
_DPKG = "var/lib/dpkg/info"
_MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/")
"""Folders that are links into /usr today, while packages may still name them."""
_WANTED = frozenset({NAME, DIR_INDEXES, BASE_NAMES, DIR_NAMES})


def owners(paths: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """Package names by path, of the absolute paths that a package has; without version and architecture."""
    wanted = {path for path in paths if path.startswith("/")}
    found = _dpkg(wanted, root / _DPKG) if wanted else {}
    missing = wanted - found.keys()
    for name in _RPM_DATABASES:
        if missing and (root / name).is_file():
            found |= _rpm(missing, root / name)
            missing -= found.keys()
    return found


def _spellings(path: str) -> tuple[str, ...]:
    if path.startswith("/usr") and path[4:].startswith(_MERGED):
        return path, path[4:]
    return (path, "/usr" + path) if path.startswith(_MERGED) else (path,)


def _dpkg(paths: set[str], folder: Path) -> dict[str, str]:
    wanted = [(spelling.encode("utf-8", "surrogateescape"), path) for path in paths for spelling in _spellings(path)]
    found: dict[str, str] = {}
    try:
        lists = sorted(folder.glob("*.list"))
    except OSError:
        return found
    for file in lists:
        try:
            raw = file.read_bytes()
        except OSError:
            continue
        for spelling, path in wanted:
            # A look for the bytes first: most files have none of them.
            if spelling in raw and spelling in raw.splitlines():
                found.setdefault(path, file.name.removesuffix(".list").partition(":")[0])
        if len(found) == len(paths):
            break
    return found


def _rpm(paths: set[str], database: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        # immutable: the database of a running system is not locked, and never written, by a look into it.
        connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error:
        return found
    try:
        for path in paths:
            for spelling in _spellings(path):
                name = _rpm_owner(connection, PurePosixPath(spelling))
                if name:
                    found[path] = name
                    break
    except sqlite3.Error:
        return found  # of another version than we know
    finally:
        connection.close()
    return found


def _rpm_owner(connection: sqlite3.Connection, path: PurePosixPath) -> str:
    rows = connection.execute(
        "SELECT p.blob FROM Basenames b JOIN Packages p ON p.hnum = b.hnum WHERE b.key = ?", (path.name,)
    )
    for (blob,) in rows:
        tags = read_header(bytes(blob), _WANTED)
        names, places, folders = (tags.get(tag, []) for tag in (BASE_NAMES, DIR_INDEXES, DIR_NAMES))
        wanted, folder = os.fsencode(path.name), os.fsencode(f"{path.parent}/")
        for name, at in zip(names, places, strict=False):
            if name == wanted and isinstance(at, int) and at < len(folders) and folders[at] == folder:
                owner = next(iter(tags.get(NAME, [])), b"")
                return owner.decode("utf-8", "replace") if isinstance(owner, bytes) else ""
    return ""

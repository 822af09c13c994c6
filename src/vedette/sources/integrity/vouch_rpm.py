"""What rpm's own database says of a file: a hint where it fits, and a contradiction where it does not.
Counterpart: `vouch_package` has the signed archives of Debian; of rpm no signature is looked at, so none vouches."""

# rpmdb.sqlite
from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from vedette.model.integrity import Change, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import held, spellings
from vedette.system.rpm_header import (
    ALGORITHM,
    BASE_NAMES,
    DIGESTS,
    DIR_INDEXES,
    DIR_NAMES,
    FLAGS,
    LINKS,
    NAME,
    RELEASE,
    VERSION,
    Tags,
    read_header,
)
from vedette.text.escape import decode, terminal

PACKAGE = "package"
_DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
_WANTED = frozenset({NAME, VERSION, RELEASE, DIGESTS, LINKS, FLAGS, DIR_INDEXES, BASE_NAMES, DIR_NAMES, ALGORITHM})
_SHA256 = 8
_CONFIGURATION, _GHOST = 1, 64
_PATIENCE, _GLANCE = 30.0, 0.25


@dataclass(frozen=True, slots=True)
class _Listed:
    package: str
    version: str
    digest: bytes
    target: bytes
    flags: int


class RpmVoucher:
    """Asks the database of `root`. patience: seconds to wait while rpm runs, which writes down last what it did."""

    def __init__(
        self, root: Path = Path("/"), *, patience: float = _PATIENCE, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._root = root
        self._patience = patience
        self._sleep = sleep

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        database = next((self._root / one for one in _DATABASES if (self._root / one).is_file()), None)
        if database is None:
            return [None] * len(changes)
        answers = self._look(database, changes)
        waited = 0.0
        while waited < self._patience and _unsure(answers) and held(database.with_name(".rpm.lock")):
            self._sleep(_GLANCE)
            waited += _GLANCE
            answers = self._look(database, changes)
        return answers

    def _look(self, database: Path, changes: Sequence[Change]) -> list[Vouching | None]:
        # The second way sees no transaction that still runs, and needs no right to write beside the database.
        for how in ("mode=ro", "mode=ro&immutable=1"):
            with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?{how}", uri=True)) as connection:
                return [self._verdict(connection, change) for change in changes]
        return [None] * len(changes)  # of another version than we know

    def _verdict(self, connection: sqlite3.Connection, change: Change) -> Vouching | None:
        now = change.after
        if now is None or now.type not in (FileType.FILE, FileType.SYMLINK):
            return None
        found = [one for path in spellings(self._inside(change.path)) for one in _listed(connection, path)]
        against: Vouching | None = None
        for one in found:
            name = f"{one.package} {one.version}"
            wrong = now.sha256 != one.digest if now.type is FileType.FILE else now.target != one.target
            if not (one.digest or one.target) or one.flags & _GHOST or (now.type is FileType.FILE and not now.sha256):
                continue
            if not wrong:
                detail = f"it is as {name} in this host's own rpm database, which whoever is root can edit"
                return Vouching(PACKAGE, Verdict.HINT, detail, one.package, one.version, one.digest)
            if not one.flags & _CONFIGURATION:
                expected = (
                    f"SHA-256 {one.digest.hex()[:16]}…" if one.digest else f"a link to {terminal(decode(one.target))}"
                )
                detail = f"not what {name} ships, by this host's own rpm database: it should be {expected}"
                against = Vouching(PACKAGE, Verdict.CONTRADICTED, detail, one.package, one.version, one.digest)
        return against

    def _inside(self, path: bytes) -> bytes:
        return path.removeprefix(str(self._root).encode()) if self._root != Path("/") else path


def _unsure(answers: Sequence[Vouching | None]) -> bool:
    return any(one is not None and one.verdict is Verdict.CONTRADICTED for one in answers)


def _listed(connection: sqlite3.Connection, path: bytes) -> Iterator[_Listed]:
    """What each package says of a path, of digests in SHA-256 alone."""
    folder, _, name = path.rpartition(b"/")
    rows = connection.execute(
        "SELECT p.blob FROM Basenames b JOIN Packages p ON p.hnum = b.hnum WHERE b.key = ?", (decode(name),)
    )
    for (blob,) in rows:
        tags = read_header(bytes(blob), _WANTED)
        names, places, folders = (tags.get(tag, []) for tag in (BASE_NAMES, DIR_INDEXES, DIR_NAMES))
        for at, (one, place) in enumerate(zip(names, places, strict=False)):
            if one == name and isinstance(place, int) and place < len(folders) and folders[place] == folder + b"/":
                version = b"-".join(_text(tags, tag, 0) for tag in (VERSION, RELEASE))
                digest = _text(tags, DIGESTS, at) if tags.get(ALGORITHM) == [_SHA256] else b""
                flags = tags.get(FLAGS, [])
                yield _Listed(
                    terminal(decode(_text(tags, NAME, 0))),
                    terminal(decode(version)),
                    bytes.fromhex(digest.decode("ascii", "replace")) if len(digest) == 64 else b"",
                    _text(tags, LINKS, at),
                    flag if at < len(flags) and isinstance(flag := flags[at], int) else 0,
                )


def _text(tags: Tags, tag: int, at: int) -> bytes:
    values = tags.get(tag, [])
    value = values[at] if at < len(values) else b""
    return value if isinstance(value, bytes) else b""

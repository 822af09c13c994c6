"""What rpm's database says of a file: it vouches where the header that says so is signed by a key that counts.
Counterpart: `vouch_package` asks the signed archives of Debian; `system.rpm_header` knows which bytes were signed."""

# rpmdb.sqlite. The database is this host's, but a header in it carries the signature of whoever made the package.
from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vedette.model.integrity import Attribute, Change, ChangeKind, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import held, spellings
from vedette.sources.integrity.vouch_keyrings import Keyrings
from vedette.system.rpm_header import (
    ALGORITHM,
    BASE_NAMES,
    DIGESTS,
    DIR_INDEXES,
    DIR_NAMES,
    FLAGS,
    GROUPS,
    LINKS,
    MODES,
    NAME,
    RELEASE,
    USERS,
    VERSION,
    Tags,
    as_signed,
    read_header,
)
from vedette.text.escape import decode, terminal

PACKAGE = "package"
_DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
_WANTED = frozenset({NAME, VERSION, RELEASE, DIGESTS, LINKS, FLAGS, DIR_INDEXES, BASE_NAMES, DIR_NAMES, ALGORITHM})
_WANTED |= {MODES, USERS, GROUPS}
_SET_ID = 0o6000
_MOST_KNOWN = 20_000
_SHA256 = 8
_CONFIGURATION, _GHOST = 1, 64
_PATIENCE, _GLANCE = 30.0, 0.25


class RpmLack(StrEnum):
    """Why a header vouches for nothing."""

    NO_VERIFIER = "no-verifier"
    """The program gpgv is not installed."""
    NO_KEY = "no-key"
    KEY_CHANGED = "key-changed"
    """A key is not the one that was there at the start, which still is what counts: start anew where it may."""
    NOT_SIGNED = "not-signed"
    """Nothing in the header is a signature over it."""
    BAD_SIGNATURE = "bad-signature"
    """None of its signatures is of a key that counts."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """signer: whose good signature says so; empty = this host alone."""

    package: str
    version: str
    digest: bytes
    target: bytes
    flags: int
    mode: int
    user: bytes
    group: bytes
    signer: str


class RpmVoucher:
    """Asks the database of `root`. keys: whose signature over a header counts. lacks: headers that vouch for nothing,
    by reason. patience: seconds to wait while rpm runs, which writes down last what it did.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        keys: Sequence[Path] = (),
        *,
        patience: float = _PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._keys = Keyrings(keys)
        self._patience = patience
        self._sleep = sleep
        self._signers: dict[bytes, str] = {}
        self.lacks: dict[RpmLack, int] = {}

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
        found = [one for path in spellings(self._inside(change.path)) for one in self._listed(connection, path)]
        said = [(bool(one.signer), answer) for one in found if (answer := self._against(change, one)) is not None]
        # What is not signed is not heard where something signed speaks: this host can write it.
        answers = [answer for signed, answer in said if signed] or [answer for _, answer in said]
        # Two packages may share a file, and either version may have put it there while one replaces the other.
        order = (Verdict.VOUCHED, Verdict.HINT, Verdict.CONTRADICTED)
        return min(answers, key=lambda one: order.index(one.verdict), default=None)

    def _against(self, change: Change, one: _Listed) -> Vouching | None:
        now = change.after
        assert now is not None
        name = f"{one.package} {one.version}"
        if not (one.digest or one.target) or one.flags & _GHOST or (now.type is FileType.FILE and not now.sha256):
            return None
        says = f"signed by {one.signer}" if one.signer else "by this host's own rpm database"
        if now.sha256 != one.digest if now.type is FileType.FILE else now.target != one.target:
            if one.flags & _CONFIGURATION:
                return None
            expected = (
                f"SHA-256 {one.digest.hex()[:16]}…" if one.digest else f"a link to {terminal(decode(one.target))}"
            )
            detail = f"not what {name} ships, {says}: it should be {expected}"
            return Vouching(PACKAGE, Verdict.CONTRADICTED, detail, one.package, one.version, one.digest)
        if not one.signer:
            detail = f"it is as {name} in this host's own rpm database, which whoever is root can edit"
            return Vouching(PACKAGE, Verdict.HINT, detail, one.package, one.version, one.digest)
        mode = one.mode & 0o7777
        if now.type is FileType.FILE and now.mode & _SET_ID & ~mode:
            detail = (
                f"the content is that of {name}, but it was made set-uid or set-gid ({now.mode:o}, shipped {mode:o})"
            )
            return Vouching(PACKAGE, Verdict.CONTRADICTED, detail, one.package, one.version, one.digest)
        extra = {Attribute.XATTR, Attribute.ACL, Attribute.CAPABILITY} & set(change.attributes)
        # What a capability that is shipped comes to as bytes is rpm's to say: such a file is told when it comes.
        extra_added = change.kind is ChangeKind.ADDED and (now.acl or now.capability)
        owned = (now.uid, now.gid) == (self._number("passwd", one.user), self._number("group", one.group))
        if extra or extra_added or not owned or (now.type is FileType.FILE and now.mode != mode):
            return None
        return Vouching(
            PACKAGE, Verdict.VOUCHED, f"as {name} ships it, {says}", one.package, one.version, one.digest
        )  # fmt: skip

    def _number(self, file: str, name: bytes) -> int:
        """Of a user or group; -1 where there is none of that name."""
        if name == b"root":
            return 0
        with suppress(OSError, ValueError):
            for line in (self._root / "etc" / file).read_bytes().splitlines():
                fields = line.split(b":")
                if fields[0] == name and len(fields) > 2:
                    return int(fields[2])
        return -1

    def _inside(self, path: bytes) -> bytes:
        return path.removeprefix(str(self._root).encode()) if self._root != Path("/") else path

    def _listed(self, connection: sqlite3.Connection, path: bytes) -> Iterator[_Listed]:
        """What each package says of a path, of digests in SHA-256 alone."""
        folder, _, name = path.rpartition(b"/")
        rows = connection.execute(
            "SELECT p.blob FROM Basenames b JOIN Packages p ON p.hnum = b.hnum WHERE b.key = ?", (decode(name),)
        )
        for (blob,) in rows:
            header, signer = self._signed(bytes(blob))
            tags = read_header(header, _WANTED)
            names, places, folders = (tags.get(tag, []) for tag in (BASE_NAMES, DIR_INDEXES, DIR_NAMES))
            for at, (one, place) in enumerate(zip(names, places, strict=False)):
                if one == name and isinstance(place, int) and place < len(folders) and folders[place] == folder + b"/":
                    version = b"-".join(_text(tags, tag, 0) for tag in (VERSION, RELEASE))
                    digest = _text(tags, DIGESTS, at) if tags.get(ALGORITHM) == [_SHA256] else b""
                    yield _Listed(
                        terminal(decode(_text(tags, NAME, 0))),
                        terminal(decode(version)),
                        bytes.fromhex(digest.decode("ascii", "replace")) if len(digest) == 64 else b"",
                        _text(tags, LINKS, at),
                        _integer(tags, FLAGS, at),
                        _integer(tags, MODES, at),
                        _text(tags, USERS, at),
                        _text(tags, GROUPS, at),
                        signer,
                    )

    def _signed(self, blob: bytes) -> tuple[bytes, str]:
        """The part of a header that a key which counts has signed, and who; all of it and nobody where none has."""
        part, message, signatures = as_signed(blob)
        digest = hashlib.sha256(blob).digest()
        if digest not in self._signers:
            if len(self._signers) >= _MOST_KNOWN:
                self._signers.clear()
            self._signers[digest] = self._asked(message, signatures)
        signer = self._signers[digest]
        return (part, signer) if signer else (blob, "")

    def _asked(self, message: bytes, signatures: Sequence[bytes]) -> str:
        for _ in range(self._keys.changed):
            self._lack(RpmLack.KEY_CHANGED)
        if not signatures:
            self._lack(RpmLack.NOT_SIGNED)
            return ""
        for signature in signatures:
            try:
                signer = self._keys.signer(message, signature)
            except OSError:
                self._lack(RpmLack.NO_VERIFIER)
                return ""
            if signer is None:
                self._lack(RpmLack.NO_KEY)
                return ""
            if signer:
                return terminal(signer)
        self._lack(RpmLack.BAD_SIGNATURE)
        return ""

    def _lack(self, why: RpmLack) -> None:
        self.lacks[why] = self.lacks.get(why, 0) + 1


def _unsure(answers: Sequence[Vouching | None]) -> bool:
    return any(one is not None and one.verdict is Verdict.CONTRADICTED for one in answers)


def _text(tags: Tags, tag: int, at: int) -> bytes:
    values = tags.get(tag, [])
    value = values[at] if at < len(values) else b""
    return value if isinstance(value, bytes) else b""


def _integer(tags: Tags, tag: int, at: int) -> int:
    values = tags.get(tag, [])
    value = values[at] if at < len(values) else 0
    return value if isinstance(value, int) else 0

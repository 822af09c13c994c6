"""What changed in a configuration file, line by line, with secrets masked before anything is kept; never of keys.
Counterpart: `source` adds it to the record; docs/integrity.md says of which files there is one."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from vedette.model.integrity import Attribute, Change, ChangeKind
from vedette.text.escape import decode, shorten, terminal

_HEADER = b"vedette-copy 2\n"
_LONGEST, _MOST_READ_LINES, _MOST_LINES, _WIDEST, _MOST_FILES = 256 << 10, 5_000, 60, 300, 20_000
_LONGEST_LINE = 1_000
_CONFIGURATION = (
    "/etc/*",
    "/usr/lib/systemd/*",
    "/lib/systemd/*",
    "/var/spool/cron/*",
    "/boot/grub/*.cfg",
    "/usr/local/etc/*",
)
_NEVER = (
    "*shadow*", "*/ssl/private/*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.keytab", "*.gpg", "*.asc",
    "*_key", "*_key.pub", "*/id_*", "*/authorized_keys*", "*/.ssh/*", "*secret*", "*password*", "*credential*",
    "*/.pgpass", "*/.netrc", "*htpasswd*", "*/wpa_supplicant*", "*/system-connections/*", "*/wireguard/*", "*/ipsec.*",
    "*token*", "*opasswd*", "*.passwd",
    "*/ppp/*", "*/machine-id", "*.kubeconfig", "*/kubernetes/*.conf",
)  # fmt: skip
_READ_BY_ROOT = ("/etc/sudoers", "/etc/sudoers.d/*", "/var/spool/cron/*", "/boot/grub/*.cfg")
"""Closed to others, but not for what stands in them."""
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|pw(?![a-z])|secret|token|api[_-]?key|credentials?|private[_-]?key|"
    r"access[_-]?key|psk|community|requirepass|masterauth|bearer|authorization|cookie)"
)
# Each begins where a word does and goes on for so long: whoever may write a crontab may not keep us busy with it.
_ASSIGNED = re.compile(
    rf"(?i)(?<![\w.\-\"'])([\w.\-\"']*{_WORDS}[\w.\-]{{0,64}}(?:[\"']?\s*(?:=>|[:=])|[\"']\s*,)\s*)(\S.*)"
)
_SPACED = re.compile(rf"(?i)(^\s*(?:set\s+)?[\w.\-]*{_WORDS}\s+)([^\s=:].*)")
_VALUES = (
    # --password x; secret "x" within a line; <password>x</password>
    re.compile(rf"(?i)(?<!\S)(--?[\w\-]{{0,40}}{_WORDS}[\w\-]{{0,40}}[ \t]+)(\"[^\"]*\"?|'[^']*'?|\S+)"),
    re.compile(rf"(?i)(?<![\w.\-])({_WORDS}[ \t]+\")([^\"]+)"),
    re.compile(rf"(?i)(<[\w:.\-]{{0,40}}{_WORDS}[\w:.\-]{{0,40}}\s*>)([^<]+)"),
    # curl -u user:x, mysqldump -px, sshpass -p x
    re.compile(r"(?<!\S)((?:-u|--user|--proxy-user)[ \t=]*[\"']?[^\s:\"']{1,200}:)(\S+)"),
    re.compile(r"((?<!\w)(?:mysql|mariadb)[\w\-]{0,40}[ \t](?:[^|;&]*[ \t])?-p)([^\s\-]\S*)"),
    re.compile(r"((?<!\w)sshpass[ \t]+-p[ \t]*)(\S+)"),
)
_IN_URL = re.compile(r"((?<!\w)\w+://[^\s/:@]*:)([^\s/@]+)(@)")
_HASHED = re.compile(r"\$[0-9a-z]{1,4}\$[^\s:]{8,}|\{SSHA?\}\S+")
_LONG = re.compile(r"(?<![\w/.+-])(?=[\w+/=]*\d)(?=[\w+/=]*[A-Za-z])[A-Za-z0-9+/_]{32,}={0,2}(?![\w/.-])")
_MASK = "[masked]"
_SWITCHES = frozenset({"yes", "no", "true", "false", "on", "off", "none", "0", "1"})


class NoDifference(StrEnum):
    """Why a change of content comes without one."""

    NOT_CONFIGURATION = "not-configuration"
    HOLDS_KEYS = "holds-keys"
    """Files of that name hold keys or passwords."""
    NOT_FOR_ALL = "not-for-all"
    """Only its owner may read it, so that its content is nobody else's business."""
    NOT_TEXT = "not-text"
    TOO_LONG = "too-long"
    NOT_KEPT = "not-kept"
    """What stood there before is not known."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Difference:
    """A unified difference, each line masked, cut and escaped; or why there is none."""

    text: str = ""
    why: NoDifference | None = None


class Differences:
    """Keeps masked copies of configuration files in `folder`, and says what changed since; from any thread.

    A value that is masked is never written anywhere; where nothing but masked values changed, that is said.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def learn(self, trees: Iterable[bytes]) -> int:
        """Keep a copy of every configuration file in `trees` of which there is none; how many were kept."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = 0
        for start in sorted({start for tree in trees for start in _starts(tree)}):
            for folder, folders, files in os.walk(start):
                folders.sort()
                for name in sorted(files):
                    path = folder + b"/" + name
                    if kept >= _MOST_FILES:
                        return kept
                    if not self._copy(path).exists() and not isinstance(lines := _masked_lines(path), NoDifference):
                        self._keep(path, lines)
                        kept += 1
        return kept

    def of(self, change: Change) -> Difference | None:
        """What changed in the content of a file; None where its content did not. The copy is then the new content."""
        if change.kind is ChangeKind.CHANGED and Attribute.CONTENT not in change.attributes:
            return None
        if (why := _forbidden(change.path)) is not None:
            return Difference(why=why)
        with self._lock:
            return self._against_copy(change)

    def _against_copy(self, change: Change) -> Difference:
        before = self._kept(change.path)
        after = [] if change.after is None else _masked_lines(change.path)
        if isinstance(after, NoDifference):
            with suppress(OSError):
                self._copy(change.path).unlink(missing_ok=True)
            return Difference(why=after)
        with suppress(OSError):
            if change.after is None:
                self._copy(change.path).unlink(missing_ok=True)
            else:
                self._keep(change.path, after)
        if before is None and change.kind is not ChangeKind.ADDED:
            return Difference(why=NoDifference.NOT_KEPT)
        return Difference(_shown(before or [], after))

    def _copy(self, path: bytes) -> Path:
        return self._folder / hashlib.blake2b(path, digest_size=16).hexdigest()

    def _keep(self, path: bytes, lines: list[str]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = self._copy(path)
        # Not forced to the disk: what is lost in a crash is a difference, and thousands are kept at the start.
        new = copy.with_suffix(".new")
        new.write_bytes(_HEADER + "\n".join(lines).encode("utf-8", "surrogateescape"))
        new.replace(copy)

    def _kept(self, path: bytes) -> list[str] | None:
        try:
            raw = self._copy(path).read_bytes()
        except OSError:
            return None
        if not raw.startswith(_HEADER):
            return None  # of another version: it is kept anew
        text = raw[len(_HEADER) :].decode("utf-8", "surrogateescape")
        return text.split("\n")


def _starts(tree: bytes) -> Iterable[bytes]:
    """Where in a tree configuration files may be."""
    for pattern in _CONFIGURATION:
        base = os.fsencode(pattern.partition("*")[0].rstrip("/"))
        if f"{os.fsdecode(base)}/".startswith(f"{os.fsdecode(tree).rstrip('/')}/"):
            yield base
        elif tree.startswith(base + b"/"):
            yield tree


def _forbidden(path: bytes) -> NoDifference | None:
    name = os.fsdecode(path)
    if not any(fnmatchcase(name, pattern) for pattern in _CONFIGURATION):
        return NoDifference.NOT_CONFIGURATION
    lower = name.lower()
    return NoDifference.HOLDS_KEYS if any(fnmatchcase(lower, pattern) for pattern in _NEVER) else None


def _masked_lines(path: bytes) -> list[str] | NoDifference:
    """The lines of a file, masked; or why it is not looked into."""
    if (why := _forbidden(path)) is not None:
        return why
    name = os.fsdecode(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return NoDifference.NOT_TEXT
            if not status.st_mode & stat.S_IROTH and not any(fnmatchcase(name, one) for one in _READ_BY_ROOT):
                return NoDifference.NOT_FOR_ALL
            raw = stream.read(_LONGEST + 1)
    except OSError:
        return NoDifference.UNREADABLE
    if len(raw) > _LONGEST:
        return NoDifference.TOO_LONG
    if b"\0" in raw:
        return NoDifference.NOT_TEXT
    if b"PRIVATE KEY" in raw:
        return NoDifference.HOLDS_KEYS
    # Of PAM, `password` is a kind of line and no secret.
    spaced = "/pam" not in name
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    if len(lines) > _MOST_READ_LINES:
        return NoDifference.TOO_LONG
    return [mask(line[:_LONGEST_LINE], spaced=spaced) for line in lines]


def mask(line: str, *, spaced: bool = True) -> str:
    """A line of a configuration without what looks like a secret. spaced: in `password x` x is one, too."""
    line = _IN_URL.sub(rf"\1{_MASK}\3", line)
    for pattern in _VALUES:
        line = pattern.sub(rf"\1{_MASK}", line)
    line = _ASSIGNED.sub(_masked, line)
    if spaced:
        line = _SPACED.sub(_masked, line)
    return _LONG.sub(_MASK, _HASHED.sub(_MASK, line))


def _masked(found: re.Match[str]) -> str:
    """A switch is no secret, and the most telling line of many a file."""
    return found[0] if found[2].strip().lower() in _SWITCHES else f"{found[1]}{_MASK}"


def _shown(before: list[str], after: list[str]) -> str:
    if before == after:
        return "(nothing but masked values, or how lines end)"
    lines = list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:]
    shown = [
        shorten(terminal(decode(line.encode("utf-8", "surrogateescape"))), _WIDEST) for line in lines[:_MOST_LINES]
    ]
    more = [f"({len(lines) - _MOST_LINES} more lines)"] if len(lines) > _MOST_LINES else []
    return "\n".join([*shown, *more])

"""What the script of a signed package asks for when it is installed: units enabled, services at start, system accounts.
Counterpart: `vouch_package` knows signed scripts, `vouch_generated` explains what programs make of other files."""

# deb-systemd-helper(1p), update-rc.d(8), adduser(8); systemd.unit(5); passwd(5), shadow(5), group(5), gshadow(5).
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vedette.model.integrity import Change, ChangeKind, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.text.escape import decode, terminal

PACKAGE = "package"
_LATELY = 3_600_000_000
"""Microseconds in which a package that dpkg worked on may have changed accounts."""
_UNIT_LINK = re.compile(
    rb"/etc/systemd/system/(?:[\w.@-]+\.(?:wants|requires)/)?([\w.@\\-]+\.(?:service|timer|socket|path|target|mount))"
)
_UNIT_HOMES = (b"/lib/systemd/system/", b"/usr/lib/systemd/system/")
_RC_LINK = re.compile(rb"/etc/rc[0-6S]\.d/[SK]\d\d([\w.-]+)")
_ACCOUNTS = {
    # Where the name, what lets nobody in, and who else is in it stand.
    b"/etc/passwd": 7,
    b"/etc/shadow": 9,
    b"/etc/group": 4,
    b"/etc/gshadow": 4,
}
_NO_SHELL = frozenset({b"/usr/sbin/nologin", b"/sbin/nologin", b"/bin/false", b"/usr/bin/false"})
_FIRST_OF_PEOPLE = 1000
_MOST = 8 << 20


class Scripts(Protocol):
    """Whose scripts are signed, and what of packages stands as shipped."""

    def scripts(self, packages: Collection[str]) -> Mapping[str, bytes]:
        """By name and version of the package."""
        ...

    def standing(self, paths: Sequence[bytes]) -> Mapping[bytes, Vouching | None]:
        """By path; what is not there is left out."""
        ...


class ScriptVoucher:
    """Vouches for links that enable units and services, and for accounts that let nobody in.

    Of account files it knows those that were there when it began, and those it was asked about since.
    """

    def __init__(self, database: DpkgDatabase, packages: Scripts) -> None:
        self._database = database
        self._packages = packages
        self._contents: dict[bytes, dict[bytes, bytes]] = {}
        for path in _ACCOUNTS:
            self._learn(path)

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        return [self._explain(change) for change in changes] if self._database.there else [None] * len(changes)

    def _explain(self, change: Change) -> Vouching | None:
        path = self._database.inside(change.path)
        if path is None:
            return None
        with suppress(OSError, ValueError):
            if path in _ACCOUNTS:
                return self._accounts(path, change)
            if change.after is not None and change.after.type is FileType.SYMLINK:
                return self._link(path, change.after.target)
        return None

    # ---------------------------------------------------------------------------------------------- links

    def _link(self, path: bytes, target: bytes) -> Vouching | None:
        whole = os.path.normpath(path.rpartition(b"/")[0] + b"/" + target) if not target.startswith(b"/") else target
        if (unit := _UNIT_LINK.fullmatch(path)) is not None:
            # An alias has another name than what it leads to: the script names that.
            name = whole.rpartition(b"/")[2]
            if not whole.startswith(_UNIT_HOMES) or (path.count(b"/") > 4 and name != unit[1]):
                return None
            return self._asked_for(whole, rb"deb-systemd-helper[ \t]+(?:--\S+[ \t]+)*enable", name)
        if (service := _RC_LINK.fullmatch(path)) is not None and whole == b"/etc/init.d/" + service[1]:
            return self._asked_for(whole, rb"update-rc\.d", service[1])
        return None

    def _asked_for(self, shipped: bytes, command: bytes, name: bytes) -> Vouching | None:
        """What `shipped` belongs to has a signed script that gives this name to the command, and it is as shipped."""
        said = self._packages.standing([shipped]).get(shipped)
        if said is None or not said.lowers:
            return None
        wanted = re.compile(rb"\b" + command + rb"[ \t]+['\"]?" + re.escape(name) + rb"['\"]?(?=[\s;])")
        for package, script in self._packages.scripts({said.package}).items():
            if wanted.search(script):
                detail = f"the script of {package} enables {terminal(decode(name))}, which is as shipped"
                return Vouching(PACKAGE, Verdict.VOUCHED, detail, said.package, said.version)
        return None

    # ---------------------------------------------------------------------------------------------- accounts

    def _learn(self, path: bytes) -> bytes:
        """Keep what stands there now, by its digest; only the last few are."""
        root = self._database.root
        where = Path(os.fsdecode(path if root == Path("/") else os.fsencode(root) + path))
        content = b""
        with suppress(OSError), where.open("rb") as stream:
            content = stream.read(_MOST)
            kept = self._contents.setdefault(path, {})
            digest = hashlib.sha256(content).digest()
            kept.pop(digest, None)
            kept[digest] = content
            for old in list(kept)[:-4]:
                del kept[old]
        return content

    def _accounts(self, path: bytes, change: Change) -> Vouching | None:
        after, before = change.after, change.before
        content = self._learn(path)
        if after is None or before is None or hashlib.sha256(content).digest() != after.sha256:
            return None
        former = self._contents.get(path, {}).get(before.sha256)
        if former is None or change.kind is not ChangeKind.CHANGED or (after.mode, after.uid, after.gid) != (
            before.mode, before.uid, before.gid
        ):  # fmt: skip
            return None
        old, new = former.splitlines(), content.splitlines()
        added = [line for line in new if line not in set(old)]
        if [line for line in new if line in set(old)] != old or not added:
            return None
        lately = {
            one.package
            for one in self._database.steps()
            if one.action in ("install", "upgrade") and change.at - one.at < _LATELY
        }
        scripts = self._packages.scripts(lately)
        by: set[str] = set()
        for line in added:
            fields = line.split(b":")
            if len(fields) != _ACCOUNTS[path] or not _lets_nobody_in(path, fields):
                return None
            makes = re.compile(
                rb"\b(?:adduser|useradd|addgroup|groupadd)\b[^\n;&|]*[ \t]['\"]?" + re.escape(fields[0]) + rb"(?![\w-])"
            )
            package = next((name for name, script in scripts.items() if makes.search(_joined(script))), None)
            if package is None:
                return None
            by.add(package)
        names = ", ".join(sorted(by))
        return Vouching(
            PACKAGE, Verdict.VOUCHED, f"system accounts that the script of {names} makes, and nobody logs in by"
        )


def _joined(script: bytes) -> bytes:
    """Lines that go on behind a backslash, as one."""
    return script.replace(b"\\\n", b" ")


def _lets_nobody_in(path: bytes, fields: Sequence[bytes]) -> bool:
    if path == b"/etc/passwd":
        small = (
            fields[2].isdigit() and 0 < int(fields[2]) < _FIRST_OF_PEOPLE and fields[3].isdigit() and int(fields[3]) > 0
        )
        return small and fields[1] in (b"x", b"*", b"!") and fields[6] in _NO_SHELL
    if path == b"/etc/shadow":
        return fields[1].startswith((b"!", b"*"))
    if path == b"/etc/group":
        return fields[2].isdigit() and 0 < int(fields[2]) < _FIRST_OF_PEOPLE and not fields[3]
    return fields[1].startswith((b"!", b"*")) and not fields[2] and not fields[3]

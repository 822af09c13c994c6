"""The package vouches: a file is as a .deb ships it that a signed archive knows; one that is not is said aloud.
Counterpart: `vouch_dpkg` says which package and version to ask for; a running upgrade excuses nothing."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_archive import ArchiveLack, SignedArchive
from vedette.sources.integrity.vouch_deb import Manifest, NotADebError, Shipped, read_deb
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase, Installed, original, spellings
from vedette.text.escape import decode, terminal

PACKAGE = "package"
ARCHIVES = Path("/var/cache/apt/archives")
_SET_ID = 0o6000
_CHMOD = re.compile(rb"\bchmod\s+(0?[0-7]{3,4})\s")
_MOST_READ = 1 << 30
_MOST_KEPT = 100_000
"""So many paths of manifests are kept in memory from one time to the next, some 300 bytes each."""
_PATIENCE = 30.0
"""Seconds to wait for a running dpkg where only its end can tell."""
_GLANCE = 0.25
Key = tuple[str, int, int]


class PackageVoucher:
    """Vouches for files of packages of this file tree.

    pools: folders with .deb files, by whomever they were put there: each counts only if `archive` knows its digest.
    patience: seconds to wait for dpkg's lock. sleep: takes seconds. A manifest that was read once holds on
    when apt has taken the .deb away.
    """

    def __init__(
        self,
        database: DpkgDatabase,
        archive: SignedArchive,
        pools: Sequence[Path] = (ARCHIVES,),
        *,
        patience: float = _PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._archive = archive
        self._pools = pools
        self._patience = patience
        self._sleep = sleep
        self._read: set[Key] = set()
        self._signed: dict[tuple[str, str, str], tuple[Manifest, str]] = {}
        self._from: dict[tuple[str, str, str], Key] = {}
        database.learn()

    @property
    def lacks(self) -> Mapping[ArchiveLack, int]:
        """Why no signed archive could say anything, and how often."""
        return self._archive.lacks

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        if not self._database.there:
            return [None] * len(changes)
        # As this file tree names them; what is outside of it is nobody's.
        changes = [replace(one, path=self._database.inside(one.path) or b"") for one in changes]
        answers, unsure = self._look(changes)
        waited = 0.0
        # A file that dpkg has put there before it wrote down that it did.
        while unsure and waited < self._patience and self._database.busy():
            self._sleep(_GLANCE)
            waited += _GLANCE
            answers, unsure = self._look(changes)
        return answers

    def standing(self, paths: Sequence[bytes]) -> dict[bytes, Vouching | None]:
        """What is said of regular files and links as they stand there now, by path within this file tree."""
        found = [one for path in dict.fromkeys(paths) if (one := _as_it_stands(self._database.root, path)) is not None]
        return dict(zip([one.path for one in found], self._look(found)[0], strict=True))

    def scripts(self, packages: Collection[str]) -> dict[str, bytes]:
        """Signed scripts that run when these were unpacked, of the versions that are here: by name and version."""
        self._authenticate(set(packages))
        found = {}
        for one in self._database.packages().values():
            said = self._signed.get((one.package, one.version, one.architecture)) if one.package in packages else None
            if said is not None:
                found[f"{one.package} {one.version}"] = said[0].configures
        return found

    def _look(self, changes: Sequence[Change]) -> tuple[list[Vouching | None], bool]:
        owners = self._database.owners({change.path for change in changes})
        wanted = {(one.package, one.architecture) for ones in owners.values() for one in ones}
        wanted |= {(name, "") for change in changes if (name := self._database.once_owned(change.path))}
        self._forget()
        self._authenticate({name for name, _ in wanted})
        targets = self._targets()
        judge = _Judge(self._database, self._signed, targets)
        answers = [judge.verdict(change, owners.get(change.path, [])) for change in changes]
        return answers, judge.unsure

    def _targets(self) -> Mapping[str, frozenset[str]]:
        """Versions that a running dpkg is putting in, by package: its log is heeded only while its lock is held."""
        if not self._database.busy():
            return {}
        targets: dict[str, set[str]] = {}
        for step in self._database.steps()[-2000:]:
            if step.action in ("upgrade", "install"):
                # The last word counts: what was put in earlier is what stands in the status.
                targets[step.package] = {step.new}
        return {name: frozenset(versions) for name, versions in targets.items()}

    def _authenticate(self, packages: set[str]) -> None:
        """Read the .deb files of these packages that were not read yet, and keep those that a signed archive knows."""
        fresh: dict[Key, Manifest] = {}
        for pool in self._pools:
            with suppress(OSError):
                for entry in os.scandir(pool):
                    if not entry.name.endswith(".deb") or entry.name.partition("_")[0] not in packages:
                        continue
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        key = (entry.path, status.st_size, status.st_mtime_ns)
                        if key in self._read:
                            continue
                        self._read.add(key)
                        with Path(entry.path).open("rb") as stream, suppress(NotADebError):
                            fresh[key] = read_deb(stream)
        if not fresh:
            return
        known = self._archive.find([one.archive_sha256 for one in fresh.values()])
        for key, manifest in fresh.items():
            listing = known.get(manifest.archive_sha256)
            if listing is None:
                # Its list may come later than it did.
                self._read.discard(key)
            elif (listing.package, listing.version) == (manifest.package, manifest.version):
                name = (manifest.package, manifest.version, manifest.architecture)
                self._signed[name], self._from[name] = (manifest, listing.origin), key

    def _forget(self) -> None:
        """Let the oldest manifests go where there are too many; they can be read again while their .deb is there."""
        kept = sum(len(manifest.files) for manifest, _ in self._signed.values())
        for name in list(self._signed):
            if kept <= _MOST_KEPT:
                return
            kept -= len(self._signed.pop(name)[0].files)
            self._read.discard(self._from.pop(name))


class _Judge:
    """Judges changes by one reading of the database. unsure: a running dpkg may yet make another answer of one."""

    def __init__(
        self,
        database: DpkgDatabase,
        signed: Mapping[tuple[str, str, str], tuple[Manifest, str]],
        targets: Mapping[str, frozenset[str]],
    ) -> None:
        self._database = database
        self._signed = signed
        self._targets = targets
        self._overrides = database.overrides()
        self.unsure = False

    def verdict(self, change: Change, owners: Sequence[Installed]) -> Vouching | None:
        """What the packages say of a change; None where it is none of theirs, or they say nothing."""
        if not owners:
            return self._formerly(change)
        answers = [answer for owner in owners if (answer := self._owned(change, owner)) is not None]
        # A folder is of many packages; a file of one, or of the one that replaced another's.
        order = (Verdict.VOUCHED, Verdict.CONTRADICTED, Verdict.HINT)
        return min(answers, key=lambda one: order.index(one.verdict), default=None)

    def _formerly(self, change: Change) -> Vouching | None:
        """A path that no package lists. It was taken away with its package, or with the version that had it."""
        name = self._database.once_owned(change.path)
        if change.kind is not ChangeKind.REMOVED or not name:
            return None
        now = next((one for one in self._database.packages().values() if one.package == name), None)
        if now is None:
            return Vouching(PACKAGE, Verdict.VOUCHED, f"it went with {name}, which is not installed any more", name)
        said = self._signed.get((now.package, now.version, now.architecture))
        if said is not None and _find(said[0], change.path) is None:
            detail = f"{name} {now.version} does not ship it any more ({said[1]})"
            return Vouching(PACKAGE, Verdict.VOUCHED, detail, name, now.version)
        detail = f"{name} {now.version} does not list it any more; this host alone says so"
        return Vouching(PACKAGE, Verdict.HINT, detail, name, now.version)

    def _owned(self, change: Change, owner: Installed) -> Vouching | None:
        if change.path != original(change.path):
            # dpkg puts new files beside those they replace, and these aside until all are there; seen late, the
            # database may speak of the new version alone. What is left lying there is judged as what it stands for.
            if not os.path.lexists(_on_this_machine(self._database.root, change.path)):
                detail = f"dpkg had it there while it changed {owner.package}, and it is gone again"
                return Vouching(PACKAGE, Verdict.VOUCHED, detail, owner.package, owner.version)
            self.unsure = True
        versions = [owner.version, *sorted(self._targets.get(owner.package, frozenset()) - {owner.version})]
        manifests = [
            found
            for version in versions
            if (found := self._signed.get((owner.package, version, owner.architecture))) is not None
        ]
        answers = [
            answer
            for manifest, origin in manifests
            if (shipped := _find(manifest, original(change.path))) is not None
            and (answer := self._against(change, manifest, shipped, origin, owner)) is not None
        ]
        best = next((one for one in answers if one.verdict is Verdict.VOUCHED), answers[0] if answers else None)
        half_way = owner.state != "installed" or len(versions) > 1
        if best is None or best.verdict is not Verdict.VOUCHED:
            # While a package is half-way, a version whose .deb nobody has may be what stands there.
            self.unsure |= half_way and len(manifests) < len(versions)
        return best if manifests else self._by_md5(change, owner)

    def _against(
        self, change: Change, manifest: Manifest, shipped: Shipped, origin: str, owner: Installed
    ) -> Vouching | None:
        """A change against what a signed package ships at its place."""
        name = f"{manifest.package} {manifest.version}"
        conffile = original(change.path) in manifest.conffiles or original(change.path) in owner.conffiles
        now = change.after
        if now is None:
            if conffile or shipped.type is FileType.DIRECTORY or self._leaving(owner):
                return None
            detail = f"{name} ships it, and it is gone ({origin})"
            return _made(Verdict.CONTRADICTED, detail, manifest, shipped)
        if now.type is not shipped.type and now.target == b"usr" + change.path:
            return None  # of merged folders, packages may still ship what is a link today
        if now.type is not shipped.type:
            detail = f"{name} ships a {shipped.type.value} here, it is a {now.type.value}"
            return None if conffile else _made(Verdict.CONTRADICTED, detail, manifest, shipped)
        if shipped.type is FileType.FILE and now.sha256 != shipped.sha256:
            if conffile or not now.sha256:
                # A configuration file is there to be edited; what could not be read nobody can judge.
                return None
            expected = shipped.sha256.hex()[:16]
            detail = f"not what {name} ships: SHA-256 {now.sha256.hex()[:16]}…, it should be {expected}… ({origin})"
            return _made(Verdict.CONTRADICTED, detail, manifest, shipped)
        if shipped.type is FileType.SYMLINK and now.target != shipped.target:
            target = terminal(decode(shipped.target))
            return _made(Verdict.CONTRADICTED, f"{name} ships a link to {target}", manifest, shipped)
        return self._rights(change, now, manifest, shipped, origin)

    def _rights(self, change: Change, now: Entry, manifest: Manifest, shipped: Shipped, origin: str) -> Vouching | None:
        """Of what has the right content: whether mode and owner are as shipped too, and nothing else was added."""
        name = f"{manifest.package} {manifest.version}"
        override = next((self._overrides[one] for one in spellings(change.path) if one in self._overrides), None)
        modes = {override[2] if override is not None else shipped.mode}
        own = manifest.configures
        modes |= {int(one, 8) for one in _CHMOD.findall(own) if _names(own, rb"chmod[ \t]+" + one, change.path)}
        mode = now.mode if now.mode in modes else min(modes)
        if now.type is not FileType.SYMLINK and now.mode & _SET_ID & ~mode:
            detail = (
                f"the content is that of {name}, but it was made set-uid or set-gid ({now.mode:o}, shipped {mode:o})"
            )
            return _made(Verdict.CONTRADICTED, detail, manifest, shipped)
        extra = {Attribute.XATTR, Attribute.ACL, Attribute.CAPABILITY} & set(change.attributes)
        added = change.kind is ChangeKind.ADDED and (now.capability or now.acl)
        owned = (now.uid, now.gid) == (shipped.uid, shipped.gid) or override is not None
        owned = owned or _names(own, rb"ch(?:own|grp)[ \t]+\S+", change.path)
        if extra or added or not owned or (now.type is not FileType.SYMLINK and now.mode != mode):
            return None
        return _made(Verdict.VOUCHED, f"as {name} ships it ({origin})", manifest, shipped)

    def _leaving(self, owner: Installed) -> bool:
        return owner.state != "installed"

    def _by_md5(self, change: Change, owner: Installed) -> Vouching | None:
        """Where no signed package says anything: the list on this host, which vouches for nothing."""
        path = original(change.path)
        if change.after is None or change.after.type is not FileType.FILE or path in owner.conffiles:
            return None
        sums = self._database.md5sums(owner)
        expected = next((sums[one] for one in spellings(path) if one in sums), None)
        actual = _md5(self._database.root, change)
        if expected is None or actual is None:
            return None
        name = f"{owner.package} {owner.version}"
        if actual == expected:
            detail = f"its MD5 is that of {name} in this host's own list, which whoever is root can edit"
            return Vouching(PACKAGE, Verdict.HINT, detail, owner.package, owner.version)
        if owner.state != "installed" or self._targets.get(owner.package):
            self.unsure = True
        detail = f"not what {name} ships, by this host's own list: MD5 {actual}, it should be {expected}"
        return Vouching(PACKAGE, Verdict.CONTRADICTED, detail, owner.package, owner.version)


def _names(script: bytes, command: bytes, path: bytes) -> bool:
    """Whether a line of the script gives the path to the command, as openssh-client makes ssh-agent set-gid."""
    return any(
        re.search(rb"\b" + command + rb"[ \t]+(?:[^\s]+[ \t]+)*" + re.escape(one) + rb"(?![\w./-])", script)
        for one in spellings(path)
    )


def _made(verdict: Verdict, detail: str, manifest: Manifest, shipped: Shipped) -> Vouching:
    return Vouching(PACKAGE, verdict, detail, manifest.package, manifest.version, shipped.sha256)


def _find(manifest: Manifest, path: bytes) -> Shipped | None:
    return next((manifest.files[one] for one in spellings(path) if one in manifest.files), None)


def _on_this_machine(root: Path, path: bytes) -> bytes:
    return path if root == Path("/") else os.fsencode(root) + path


def _as_it_stands(root: Path, path: bytes) -> Change | None:
    """A path as if it had just been added; None where it is not there, or is neither a file nor a link."""
    where = _on_this_machine(root, path)
    try:
        status = os.lstat(where)
        target = os.readlink(where) if stat.S_ISLNK(status.st_mode) else b""  # noqa: PTH115 (bytes)
        digest = b""
        if stat.S_ISREG(status.st_mode):
            with os.fdopen(os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None
    if not target and not digest:
        return None
    kind = FileType.SYMLINK if target else FileType.FILE
    entry = Entry(
        path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns,
        status.st_ctime_ns, status.st_ino, status.st_dev, status.st_nlink, target, digest,
    )  # fmt: skip
    return Change(ChangeKind.ADDED, path, after=entry)


def _md5(root: Path, change: Change) -> str | None:
    """The MD5 of the very content that the change speaks of; None where that stands there no more."""
    assert change.after is not None
    md5, sha256, read = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        path = _on_this_machine(root, change.path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            while data := stream.read(1 << 18):
                read += len(data)
                if read > _MOST_READ:
                    return None
                md5.update(data)
                sha256.update(data)
    except OSError:
        return None
    return md5.hexdigest() if sha256.digest() == change.after.sha256 else None

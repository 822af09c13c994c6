"""What dpkg's own database says: who owns a path, which version is installed, what is being changed right now.
Counterpart: `vouch_package` judges with it. All of it is this host's own word: it says where to look."""

# dpkg(1), deb-md5sums(5), deb-conffiles(5), dpkg-divert(1), dpkg-statoverride(1).
from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vedette.sources.integrity.vouch_deb import stanza

_MERGED = (b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/")
_TRANSIENT = (b".dpkg-new", b".dpkg-tmp")
_TAIL = 1 << 20
"""So much of the end of dpkg's log is read."""
_MOST_STATUS = 256 << 20
_CHANGING = frozenset({"upgrade", "install", "remove", "purge"})


@dataclass(frozen=True, slots=True)
class Installed:
    """A package in dpkg's status. state: `installed`, `half-installed`, `unpacked`, ... conffiles: path to MD5."""

    package: str
    version: str
    architecture: str
    state: str
    conffiles: Mapping[bytes, str] = field(default_factory=dict)
    stems: tuple[str, ...] = ()
    """How its files in the folder `info` may be named."""


@dataclass(frozen=True, slots=True)
class Step:
    """A line of dpkg's log. at: microseconds UTC, exact to a second. action: upgrade, install, remove or purge."""

    at: int
    action: str
    package: str
    old: str
    new: str


class DpkgDatabase:
    """One reading after the other of `root`'s dpkg; never raises, never writes. log: where dpkg writes what it does."""

    def __init__(self, root: Path = Path("/"), log: Path | None = None) -> None:
        self.root = root
        self.folder = root / "var/lib/dpkg"
        self._log = log or root / "var/log/dpkg.log"
        self._packages: dict[str, Installed] = {}
        self._as_of: tuple[tuple[str, int, int], ...] = ()
        self._lists: dict[str, tuple[int, frozenset[int]]] = {}
        self._gone: dict[int, str] = {}

    @property
    def there(self) -> bool:
        """Whether this file tree has such a database."""
        return (self.folder / "status").is_file()

    def inside(self, path: bytes) -> bytes | None:
        """A path of this machine as this file tree names it; None where it is outside of it."""
        root = os.fsencode(self.root)
        if root == b"/":
            return path
        return path[len(root) :] if path.startswith(root + b"/") else None

    def packages(self) -> Mapping[str, Installed]:
        """What is installed, whole or in part, by the name of its files in `info`."""
        try:
            # What a running dpkg did stands in `updates` until it is done.
            files = [
                self.folder / "status",
                *sorted(one for one in self.folder.glob("updates/*") if one.name.isdigit()),
            ]
            as_of = tuple((one.name, (status := one.stat()).st_mtime_ns, status.st_size) for one in files)
            if as_of != self._as_of:
                found: dict[str, Installed] = {}
                for file in files:
                    with file.open("rb") as stream:
                        for text in stream.read(_MOST_STATUS).split(b"\n\n"):
                            _take(found, text)
                self._packages, self._as_of = found, as_of
        except OSError:
            pass  # taken away meanwhile: what was known holds until the next look
        return self._packages

    def owners(self, paths: Iterable[bytes]) -> dict[bytes, list[Installed]]:
        """Which packages list each of these paths, in any spelling of merged folders; diversions are heeded."""
        packages = self.packages()
        self._read_lists(packages)
        diverted = self._diversions()
        found: dict[bytes, list[Installed]] = {}
        for path in paths:
            real = original(path)
            asked, only = diverted.get(real, (real, ""))
            hashes = {_hash(one) for one in spellings(asked)}
            for stem, (_, listed) in self._lists.items():
                one = packages.get(stem)
                if one is None or not hashes & listed:
                    continue
                # Of what is diverted, `only` put its own file there.
                if not only or (one.package == only.removeprefix("!")) is not only.startswith("!"):
                    found.setdefault(path, []).append(one)
        return found

    def once_owned(self, path: bytes) -> str:
        """The package that listed this path when it was looked at before and does not any more; empty where none."""
        return next((name for one in spellings(path) if (name := self._gone.get(_hash(one)))), "")

    def learn(self) -> None:
        """Remember what packages list now, so that it is known later what they once did."""
        self._read_lists(self.packages())

    def _read_lists(self, packages: Mapping[str, Installed]) -> None:
        for stem in packages.keys() | self._lists.keys():
            before = self._lists.get(stem, (0, frozenset[int]()))
            try:
                path = self.folder / "info" / f"{stem}.list"
                stamp = path.stat().st_mtime_ns
                if stamp == before[0]:
                    continue
                now = frozenset(_hash(line) for line in path.read_bytes().splitlines() if line)
                self._lists[stem] = (stamp, now)
            except OSError:
                now = frozenset()
                self._lists.pop(stem, None)
            for gone in before[1] - now:
                self._gone[gone] = stem.partition(":")[0]

    def md5sums(self, package: Installed) -> dict[bytes, str]:
        """What the package's list on this host says of its files, path to MD5: a hint, which root can edit."""
        for stem in package.stems:
            with suppress(OSError):
                raw = (self.folder / "info" / f"{stem}.md5sums").read_bytes()
                lines = (line.split(None, 1) for line in raw.splitlines())
                return {b"/" + parts[1]: parts[0].decode("ascii", "replace") for parts in lines if len(parts) == 2}
        return {}

    def busy(self) -> bool:
        """Whether somebody holds dpkg's lock: a transaction is running. Where it may not be asked: no."""
        return any(held(self.folder / name) for name in ("lock-frontend", "lock"))

    def steps(self) -> list[Step]:
        """What dpkg did lately, oldest first, as its log says in this machine's time zone."""
        try:
            with self._log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(size - _TAIL, 0))
                text = stream.read(_TAIL).decode("utf-8", "replace")
        except OSError:
            return []
        return [one for line in text.splitlines() if (one := _step(line)) is not None]

    def overrides(self) -> dict[bytes, tuple[str, str, int]]:
        """Owner, group and mode that the administrator set for paths."""
        found = {}
        with suppress(OSError):
            for line in (self.folder / "statoverride").read_bytes().splitlines():
                parts = line.split(None, 3)
                if len(parts) == 4:
                    with suppress(ValueError):
                        owner, group = (one.decode("ascii", "replace") for one in parts[:2])
                        found[parts[3]] = (owner, group, int(parts[2], 8))
        return found

    def _diversions(self) -> dict[bytes, tuple[bytes, str]]:
        """Path to (the path under which packages list it, whose file stands there; `!name` = anybody's but its)."""
        found: dict[bytes, tuple[bytes, str]] = {}
        with suppress(OSError):
            lines = (self.folder / "diversions").read_bytes().splitlines()
            for source, target, who in zip(lines[::3], lines[1::3], lines[2::3], strict=False):
                name = "" if who == b":" else who.decode("utf-8", "replace")
                found[target] = (source, f"!{name}")
                if name:
                    found[source] = (source, name)
        return found


def held(path: Path) -> bool:
    """Whether another process holds a lock on the file."""
    with suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # struct flock: type, whence, start, length, pid. F_GETLK says who would stand in the way.
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
            return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
        finally:
            os.close(descriptor)
    return False


def original(path: bytes) -> bytes:
    """The path that a file of dpkg's on its way in or out will have or had."""
    for suffix in _TRANSIENT:
        if path.endswith(suffix):
            return path.removesuffix(suffix)
    return path


def spellings(path: bytes) -> tuple[bytes, ...]:
    """A path as packages may name it: /bin, /sbin and /lib are links into /usr today."""
    if path.startswith(b"/usr/") and path[4:].startswith(_MERGED):
        return path, path[4:]
    return (path, b"/usr" + path) if path.startswith(_MERGED) else (path,)


def _hash(path: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest())


def _take(found: dict[str, Installed], raw: bytes) -> None:
    if b"Package:" not in raw:
        return
    fields = stanza(raw.decode("utf-8", "replace"))
    package, version, state = fields.get("package", ""), fields.get("version", ""), fields.get("status", "").split()
    if not package or not state:
        return
    conffiles = {}
    for line in fields.get("conffiles", "").splitlines():
        path, _, rest = line.rpartition(" ") if not line.endswith((" obsolete", " remove-on-upgrade")) else ("", "", "")
        if path:
            conffiles[path.encode("utf-8", "surrogateescape")] = rest
    architecture = fields.get("architecture", "")
    # Packages that may be installed for several architectures at once have it in the name of their files.
    named = f"{package}:{architecture}"
    stems = (named, package) if fields.get("multi-arch") == "same" else (package, named)
    if state[-1] in ("not-installed", "config-files"):
        found.pop(stems[0], None)
    else:
        found[stems[0]] = Installed(package, version, architecture, state[-1], conffiles, stems)


def _step(line: str) -> Step | None:
    parts = line.split(" ")
    if len(parts) != 6 or parts[2] not in _CHANGING:
        return None
    try:
        at = int(datetime.fromisoformat(f"{parts[0]}T{parts[1]}").astimezone().timestamp()) * 1_000_000
    except (ValueError, OverflowError):
        return None
    none = "<none>"
    return Step(at, parts[2], parts[3].partition(":")[0], parts[4].replace(none, ""), parts[5].replace(none, ""))

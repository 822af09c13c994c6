"""Files that give rights, that anybody may write or nobody may change; keys that let in; how people are let in at all.
Counterpart: `rootcheck` has known names, which the same walk looks for; `source` keeps what was there before."""

# inode(7), ioctl_iflags(2), sshd(8) AUTHORIZED_KEYS FILE FORMAT, pam.d(5).
from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vedette.model.levels import Level
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.system.packages import owners
from vedette.text.escape import decode, shorten, terminal

TREES = (
    "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/run", "/sbin", "/srv", "/tmp", "/usr",
    "/var", "/dev",
)  # fmt: skip
SYSTEM = ("/bin/", "/boot/", "/etc/", "/lib/", "/lib64/", "/sbin/", "/usr/")
"""Where nobody but root may write."""
_FLAGGED = (
    "/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/", "/etc/", "/boot/", "/root/", "/var/spool/cron/",
    "/usr/lib/systemd/", "/lib/systemd/",
)  # fmt: skip
"""Where nothing is immutable by itself, and whoever wants to stay makes it so. To ask costs opening the file."""
_NO_PLACE_FOR_SET_ID = ("/tmp/", "/var/tmp/", "/dev/", "/home/", "/run/", "/srv/", "/root/")
_FS_IOC_GETFLAGS = 0x80086601
_FLAGS = {0x10: "immutable", 0x20: "append-only"}
_KEY = re.compile(rb"(?:^|[\s,\"])((?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+)\s+([A-Za-z0-9+/=]+)(?:\s+(.*))?$")
_KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")
AUTHENTICATION = (
    "etc/pam.conf", "etc/pam.d/*", "etc/ssh/sshd_config", "etc/ssh/sshd_config.d/*.conf", "etc/sudoers",
    "etc/sudoers.d/*", "etc/nsswitch.conf", "etc/security/*.conf",
)  # fmt: skip
_MODULE_FOLDERS = re.compile(r"(?:/usr)?/lib(?:32|64|x32)?/(?:[a-z0-9_-]+/)?security/[^/]+\.so")
_PAM_ABSOLUTE = re.compile(r"^\s*-?(?:auth|account|session|password)\s+(?:\[[^\]]*\]|\S+)\s+(/\S+)", re.MULTILINE)
_PAM_OPEN = re.compile(
    r"^\s*-?auth\s+(?:\[[^\]]*success=done[^\]]*\]|sufficient)\s+(?:\S*/)?pam_permit\.so", re.MULTILINE
)
_MOST_READ = 4 << 20
_MOST_KEYS, _MOST_NEW_KEYS, _MOST_SET_ID = 1_000, 100, 1_000
"""Of one file, and told of one look: anybody may make any number of keys and of set-uid files of their own."""
_MOST_STATUS = 256 << 20


@dataclass(slots=True)
class Known:
    """What was there at an earlier look. Empty tables before the first one, which learns and tells nothing of them."""

    set_id: dict[str, str] = field(default_factory=dict)
    """Path to mode and inode, as text."""
    keys: dict[str, str] = field(default_factory=dict)
    """Path and fingerprint to the key's comment."""
    authentication: dict[str, str] = field(default_factory=dict)
    """Path to SHA-256."""
    listeners: dict[str, str] = field(default_factory=dict)
    """Transport, address and port; and units: path to what it leads to or holds. Told to be compared among hosts."""
    units: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    learned: bool = False


@dataclass(slots=True)
class Walk:
    """Goes through file trees once for all who look at files. most: entries at most. skipped: folders not entered."""

    root: Path = Path("/")
    trees: Sequence[str] = TREES
    most: int = 3_000_000
    skip: frozenset[str] = frozenset(
        {"/proc", "/sys", "/dev/pts", "/var/lib/docker", "/var/lib/containerd", "/run/user"}
    )

    def entries(self, look: Look) -> Iterator[tuple[str, str, os.stat_result]]:
        """Path as seen from the root, path on this machine, and its own status; no link is followed."""
        prefix = "" if self.root == Path("/") else str(self.root)
        seen: set[tuple[int, int]] = set()
        left = self.most
        stack = [tree for tree in reversed(self.trees) if not Path(prefix + tree).is_symlink()]
        unread = 0
        while stack:
            folder = stack.pop()
            look.go_on()
            try:
                with os.scandir(prefix + folder) as listing:
                    found = list(listing)
            except OSError as error:
                unread += error.errno not in (errno.ENOENT, errno.ENOTDIR)
                continue
            for entry in found:
                left -= 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                path = f"{folder.rstrip('/')}/{entry.name}"
                yield path, prefix + path, status
                here = (status.st_dev, status.st_ino)
                if stat.S_ISDIR(status.st_mode) and path not in self.skip and here not in seen:
                    seen.add(here)
                    stack.append(path)
            if left <= 0:
                look.missed(Check.FILES, Blind.TOO_MUCH)
                break
        look.missed(Check.FILES, Blind.NOT_PERMITTED, unread)


def walk_files(
    look: Look, known: Known, walk: Walk, named: Callable[[Look, str], None] = lambda _look, _path: None
) -> None:
    """Set-uid and set-gid files that were not there before, or where none belongs; what anybody may write; flags.

    named: asked about every path, for what is known by its name alone.
    """
    now: dict[str, str] = {}
    given: list[tuple[str, int, bool]] = []
    unread = 0
    for path, real, status in walk.entries(look):
        named(look, path)
        mode = status.st_mode
        regular, folder = stat.S_ISREG(mode), stat.S_ISDIR(mode)
        shown = terminal(path)
        if regular and mode & (stat.S_ISUID | stat.S_ISGID) and mode & 0o111:
            now[path] = f"{stat.S_IMODE(mode):o}/{status.st_uid}/{status.st_gid}/{status.st_ino}"
            misplaced = path.startswith(_NO_PLACE_FOR_SET_ID)
            before = known.set_id.get(path)
            if misplaced or (known.learned and before is None):
                given.append((path, stat.S_IMODE(mode), misplaced))
        writable = mode & stat.S_IWOTH and (regular or (folder and not mode & stat.S_ISVTX))
        if writable and path.startswith(SYSTEM):
            detail = f"anybody may change it (mode {stat.S_IMODE(mode):o})"
            look.found(TraceKind.WORLD_WRITABLE, shown, Level.MEDIUM, detail, file__path=shown)
        if path.startswith(_FLAGGED) and (regular or folder):
            flags = _flags(real)
            unread += flags is None
            if flags:
                detail = f"it is {flags}: upgrades fail on it, and whoever set that did not want it mended"
                look.found(TraceKind.IMMUTABLE_FILE, shown, Level.MEDIUM, detail, file__path=shown)
    look.missed(Check.ATTRIBUTES, Blind.NOT_PERMITTED, unread)
    # Those where only root may put one come first; what is beyond is not learned, so that it is no news later.
    given.sort(key=lambda one: one[2])
    for path, *_ in given[_MOST_SET_ID:]:
        del now[path]
    look.missed(Check.FILES, Blind.TOO_MUCH, max(len(given) - _MOST_SET_ID, 0))
    given = given[:_MOST_SET_ID]
    brought = owners([path for path, *_ in given], walk.root)
    for path, permissions, misplaced in given:
        package = brought.get(path, "")
        level = Level.HIGH if misplaced or not package else Level.LOW
        where = "where no such file belongs" if misplaced else "and was not there before"
        detail = f"it gives the rights of its owner or group (mode {permissions:o}), {where}" + (
            f"; {package} lists it" if package else ""
        )
        shown = terminal(path)
        look.found(TraceKind.SET_ID_FILE, shown, level, detail, file__path=shown, package__name=package)
    known.set_id = now


def _flags(path: str) -> str | None:
    """The flags of a file that keep it from being changed, in words; None where they may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EPERM) else ""
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8)))
    except OSError:
        return ""  # a file system without them
    finally:
        os.close(descriptor)
    return " and ".join(word for bit, word in _FLAGS.items() if flags & bit)


# ------------------------------------------------------------------------------------------------ who is let in


def authorised_keys(look: Look, known: Known, root: Path = Path("/")) -> None:
    """Keys with which somebody may log in by ssh and that were not there before."""
    now: dict[str, str] = {}
    for user, home in sorted(_homes(root).items()):
        for name in _KEY_FILES:
            path = root / home.lstrip("/") / name
            shown = terminal(f"{home.rstrip('/')}/{name}")
            try:
                text = _read_regular(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                look.missed(Check.KEYS, Blind.UNREADABLE)
                continue
            told = 0
            for number, (kind, fingerprint, comment) in enumerate(keys_in(text)):
                key = f"{shown} {fingerprint}"
                new = known.learned and key not in known.keys
                if number >= _MOST_KEYS or (new and told >= _MOST_NEW_KEYS):
                    look.missed(Check.KEYS, Blind.TOO_MUCH)
                    continue
                now[key] = comment
                if new:
                    told += 1
                    detail = f"{user} may log in with a {kind} key that was not there before: {fingerprint} {comment}"
                    look.found(
                        TraceKind.AUTHORISED_KEY, key, Level.HIGH if user == "root" else Level.MEDIUM, detail,
                        file__path=shown, user__name=terminal(user), vedette__ssh__fingerprint=fingerprint,
                        vedette__ssh__key_type=kind,
                    )  # fmt: skip
    known.keys = now


def _read_regular(path: Path) -> bytes:
    """The beginning of a file that its user put there; OSError where it is something to wait at, as a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return stream.read(_MOST_READ)


def keys_in(text: bytes) -> Iterator[tuple[str, str, str]]:
    """Type, fingerprint as ssh-keygen prints it, and comment of each key of an authorized_keys file."""
    for line in text.splitlines():
        if line.lstrip().startswith(b"#") or (found := _KEY.search(line)) is None:
            continue
        try:
            blob = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            continue
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        yield found[1].decode(), f"SHA256:{digest}", shorten(terminal(decode(found[3] or b"")), 100)


def _homes(root: Path) -> Mapping[str, str]:
    homes = {}
    with suppress(OSError):
        for line in (root / "etc/passwd").read_bytes().decode("utf-8", "replace").splitlines():
            parts = line.split(":")
            if len(parts) >= 7 and parts[5].startswith("/"):
                homes[parts[0]] = parts[5]
    return homes


def enabled_units(known: Known, root: Path = Path("/")) -> None:
    """Units of systemd that somebody wrote or enabled here, for hosts to be held against each other."""
    known.units = {}
    folder = root / "etc/systemd/system"
    for path in sorted((*folder.glob("*"), *folder.glob("*.wants/*"), *folder.glob("*.d/*"))):
        name = terminal(f"/{path.relative_to(root)}")
        with suppress(OSError):
            if path.is_symlink():
                known.units[name] = f"to {terminal(str(path.readlink()))}"
            elif path.is_file():
                known.units[name] = hashlib.sha256(path.read_bytes()[:_MOST_READ]).hexdigest()[:32]


def installed_packages(known: Known, root: Path = Path("/")) -> None:
    """Packages and their versions, as dpkg's database says, for hosts to be held against each other."""
    known.packages = {}
    with suppress(OSError):
        for stanza in (root / "var/lib/dpkg/status").read_bytes()[:_MOST_STATUS].split(b"\n\n"):
            found = dict(re.findall(rb"^(Package|Version|Architecture|Status): (.+)$", stanza, re.MULTILINE))
            if found.get(b"Status", b"").endswith(b" installed"):
                name = b":".join(found.get(one, b"") for one in (b"Package", b"Architecture"))
                known.packages[terminal(decode(name))] = terminal(decode(found.get(b"Version", b"")))


def authentication(look: Look, known: Known, root: Path = Path("/")) -> None:
    """How people are let in: what changed since the last look, and what lets in everybody whenever it was written."""
    now: dict[str, str] = {}
    for pattern in AUTHENTICATION:
        for path in sorted(root.glob(pattern)):
            name = f"/{path.relative_to(root)}"
            shown = terminal(name)
            try:
                content = path.read_bytes()[:_MOST_READ] if path.is_file() else None
            except OSError:
                look.missed(Check.AUTHENTICATION, Blind.UNREADABLE)
                continue
            if content is None:
                continue
            now[name] = hashlib.sha256(content).hexdigest()
            if known.learned and known.authentication.get(name) != now[name]:
                how = "it changed" if name in known.authentication else "it was not there before"
                _changed(look, shown, Level.MEDIUM, how)
            if "/pam" in name:
                _pam(look, shown, content.decode("utf-8", "replace"), root)
    if known.learned:
        for name in sorted(known.authentication.keys() - now.keys()):
            _changed(look, terminal(name), Level.MEDIUM, "it is there no more")
    known.authentication = now


def _pam(look: Look, shown: str, text: str, root: Path) -> None:
    if _PAM_OPEN.search(text):
        _changed(look, shown, Level.HIGH, "pam_permit lets in everybody, whatever the password")
    named = {one for one in _PAM_ABSOLUTE.findall(text) if not _MODULE_FOLDERS.fullmatch(one)}
    for module in sorted(named - owners(named, root).keys()):
        _changed(look, shown, Level.HIGH, f"a PAM module that no package brought has a say: {terminal(module)}")


def _changed(look: Look, shown: str, level: Level, detail: str) -> None:
    subject = f"{shown}: {detail}" if level is Level.HIGH else shown
    look.found(TraceKind.AUTHENTICATION_CHANGED, subject, level, detail, file__path=shown)

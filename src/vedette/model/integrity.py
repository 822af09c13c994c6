"""What a file was and is, how it changed, who changed it, and whether something vouches for that.
Counterpart: `sources.integrity` makes changes, a `Voucher` is asked about them, a rule pack gives levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


class Attribute(StrEnum):
    """What of a file can differ, spelled as the command contract does."""

    CONTENT = "content"
    TYPE = "type"
    MODE = "mode"
    OWNER = "owner"
    GROUP = "group"
    TARGET = "target"
    LINKS = "links"
    XATTR = "xattr"
    ACL = "acl"
    CAPABILITY = "capability"
    TIMES = "times"


class ChangeKind(StrEnum):
    """How a path differs. A rename is `removed` and `added`, each with the other as `related`."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class FileType(StrEnum):
    """What an inode is (`st_mode`, inode(7)), in ECS `file.type` words where it has one."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK = "block"
    CHARACTER = "character"
    UNKNOWN = "unknown"


class Unread(StrEnum):
    """Why the content of a regular file has no digest."""

    DENIED = "denied"
    """Opening or reading it was refused."""
    CHANGING = "changing"
    """It changed each time while it was read."""
    VANISHED = "vanished"
    """It was gone before it could be read."""
    FAILED = "failed"
    """The disk or file system said no."""
    SPARSE = "sparse"
    """It claims to be far longer than the disk it takes: reading it would keep whoever watches from the others."""
    NOT_ASKED = "not-asked"
    """Digests of this tree are not kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path as it was at one time.

    path: absolute bytes, as the kernel gives them. mode: permission bits with set-uid, set-gid and sticky (`st_mode`
    & 0o7777). size: bytes. mtime_ns, ctime_ns: nanoseconds since 1970 UTC. target: of a symlink. sha256: 32 bytes, of a
    regular file; empty where it was not read, `unread` says why. xattrs: without the two that follow. acl: the bytes
    of `system.posix_acl_access` and `_default` one after the other, each after its length (4 bytes, little-endian);
    capability: of `security.capability`; empty where there is none.
    """

    path: bytes
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    target: bytes = b""
    sha256: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: _NOTHING)
    acl: bytes = b""
    capability: bytes = b""
    unread: Unread | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc showed it; empty where it was gone by then."""

    pid: int
    executable: str = ""
    command_line: tuple[str, ...] = ()
    user_id: int = -1


@dataclass(frozen=True, slots=True)
class Who:
    """Who changed it: the process, its parents from the nearest on, and the session they belong to.

    login_uid: the audit login uid (`/proc/PID/loginuid`), -1 = none; login_user: its name, empty where none. session:
    the audit session id (`/proc/PID/sessionid`), empty where none. It says who, never why: it lowers no level.
    """

    pid: int
    executable: str = ""
    command_line: tuple[str, ...] = ()
    user_id: int = -1
    user: str = ""
    parents: tuple[Process, ...] = ()
    login_uid: int = -1
    login_user: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs. `before` is None for `added`, `after` for `removed`.

    attributes: what differs, of `changed` alone. related: the other path of a rename. who: where it is known.
    at: microseconds UTC, when it happened as far as that is known, else when it was found.
    """

    kind: ChangeKind
    path: bytes
    attributes: tuple[Attribute, ...] = ()
    before: Entry | None = None
    after: Entry | None = None
    related: bytes | None = None
    who: Who | None = None
    at: int = 0


class Verdict(StrEnum):
    """What a vouching says of a change."""

    VOUCHED = "vouched"
    """It is as it should be: the level becomes informational."""
    HINT = "hint"
    """Something weak speaks for it (a local md5sum): told, lowers no level."""
    CONTRADICTED = "contradicted"
    """It is not what whoever should have made it ships: loud, even during an upgrade."""


@dataclass(frozen=True, slots=True)
class Vouching:
    """What speaks for a change, or against it. by: `package`, `configuration-management`, `image`, `generated`, ..."""

    by: str
    verdict: Verdict
    detail: str = ""
    """For people: which package and version, which run, which file it was made from."""
    package: str = ""
    version: str = ""
    expected_sha256: bytes = b""
    """What should have been there, 32 bytes; empty where that is not known."""

    @property
    def lowers(self) -> bool:
        """Whether the change becomes informational."""
        return self.verdict is Verdict.VOUCHED


class Voucher(Protocol):
    """Asked about changes before they are told. May read files and block for seconds; runs in a thread of its own."""

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """One answer a change, in their order; None = nothing is known of it. Never raises."""
        ...

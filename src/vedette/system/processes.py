"""What /proc says of processes: name, user, unit, executable, since when, and which sockets each holds.
Counterpart: `sources.ports.inside` says with it who listens; `packages` says where an executable came from."""

# proc(5), cgroups(7), systemd.unit(5).
from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vedette.system.namespaces import process_ids

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|slice)")
_TICKS = os.sysconf("SC_CLK_TCK")
_START = 19
"""Where, behind the name, /proc/PID/stat says when it started."""
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One process. name: bytes as it calls itself, whatever they are. uid: effective, -1 = not known. unit: of
    systemd. executable: its path, empty where it may not be read or is not of this machine's own file tree (a
    container's). since: microseconds UTC, exact to a hundredth of a second and the clock's steps; 0 = not known."""

    pid: int
    name: bytes = b""
    uid: int = -1
    unit: str = ""
    executable: str = ""
    since: int = 0
    own_files: bool = True


@dataclass(slots=True)
class Holders:
    """Which processes hold which sockets. unread: processes whose descriptors may not be read."""

    by_inode: dict[int, list[int]] = field(default_factory=dict)
    unread: int = 0


def socket_holders(inodes: Iterable[int], root: Path = Path("/")) -> Holders:
    """Who holds these sockets, of every process that may be read; those that end meanwhile are left out."""
    wanted = set(inodes)
    found = Holders()
    for pid in process_ids(root):
        folder = root / "proc" / str(pid) / "fd"
        try:
            descriptors = list(folder.iterdir())
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            found.unread += 1
            continue
        held = set()
        refused = False
        for descriptor in descriptors:
            try:
                link = _SOCKET.fullmatch(str(descriptor.readlink()))
            except OSError as error:
                refused = refused or error.errno in (errno.EACCES, errno.EPERM)
                continue  # else closed meanwhile
            if link is not None and int(link[1]) in wanted:
                held.add(int(link[1]))
        found.unread += refused
        for inode in held:
            found.by_inode.setdefault(inode, []).append(pid)
    return found


def process(pid: int, root: Path = Path("/")) -> Process | None:
    """What is known of a process; None where it ended."""
    folder = root / "proc" / str(pid)
    stat = _read(folder / "stat")
    # The name stands in brackets and may hold brackets, spaces and line ends itself.
    begin, end = stat.find(b"("), stat.rfind(b")")
    if begin < 0 or end < begin:
        return None
    rest = stat[end + 1 :].split()
    started = int(rest[_START]) if len(rest) > _START and rest[_START].isdigit() else 0
    own_files = _own_files(folder, root)
    return Process(
        pid,
        stat[begin + 1 : end],
        _uid(_read(folder / "status")),
        unit_of(_read(folder / "cgroup").decode("utf-8", "replace")),
        _executable(folder) if own_files else "",
        boot_time(root) + started * 1_000_000 // _TICKS if started and boot_time(root) else 0,
        own_files,
    )


def boot_time(root: Path = Path("/")) -> int:
    """When the machine started, microseconds UTC; 0 = not known."""
    found = re.search(rb"^btime (\d+)$", _read(root / "proc" / "stat"), re.MULTILINE)
    return int(found[1]) * 1_000_000 if found else 0


def unit_of(cgroup: str) -> str:
    """The innermost unit of systemd in what /proc/PID/cgroup says, or nothing; slices do not count."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controllers != "name=systemd":
            continue
        for part in reversed(path.split("/")):
            if _UNIT.fullmatch(part) and not part.endswith(".slice"):
                return part
    return ""


def user_names(root: Path = Path("/")) -> Mapping[int, str]:
    """Names of users by number, of the file alone: no directory service is asked."""
    names: dict[int, str] = {}
    for line in _read(root / "etc" / "passwd", 16 * 1024 * 1024).decode("utf-8", "replace").splitlines():
        parts = line.split(":")
        if len(parts) > 2 and parts[2].isascii() and parts[2].isdigit():
            names.setdefault(int(parts[2]), parts[0])
    return names


def _uid(status: bytes) -> int:
    found = re.search(rb"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else -1


def _executable(folder: Path) -> str:
    try:
        return str((folder / "exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def _own_files(folder: Path, root: Path) -> bool:
    """Whether its root is ours: names of users and packages are of one file tree."""
    try:
        theirs, ours = (folder / "root").stat(), root.stat()
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _read(path: Path, limit: int = _LONGEST) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError:
        return b""

"""Network namespaces of this machine: which there are, and running something inside of one.
Counterpart: `sources.ports.inside` lists the sockets of each; `processes` says who lives in it."""

# namespaces(7), setns(2), ip-netns(8).
from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_LINK = re.compile(r"net:\[(\d+)\]")
_FOLDERS = ("run/netns", "run/docker/netns")
"""Where `ip netns`, podman, CNI and docker keep namespaces that nobody need live in."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """One network namespace. name: empty = the one of this process; else the name somebody gave it, or `net:[inode]`.

    entrance: a file to enter it by; None where there is none that may be opened. pids: who lives in it, ascending.
    """

    inode: int
    name: str
    entrance: Path | None = None
    pids: tuple[int, ...] = ()

    @property
    def own(self) -> bool:
        """Whether this process is in it."""
        return not self.name


def network_namespaces(root: Path = Path("/")) -> tuple[list[NetworkNamespace], int]:
    """Every network namespace, our own first; and of how many processes it could not be read where they live."""
    unread = 0
    living: dict[int, list[int]] = {}
    for pid in process_ids(root):
        try:
            inode = _inode(root / "proc" / str(pid) / "ns" / "net")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        except OSError:
            unread += 1
            continue
        if inode:
            living.setdefault(inode, []).append(pid)
    named: dict[int, tuple[str, Path]] = {}
    own, device = _own(root)
    for folder in _FOLDERS:
        for path in _entries(root / folder):
            try:
                status = path.stat()
            except OSError:
                continue  # taken away meanwhile
            if device in (0, status.st_dev):  # else the namespace is gone, and its file was left
                named.setdefault(status.st_ino, (path.name, path))
    found = []
    for inode in sorted(living.keys() | named.keys() | ({own} if own else set()), key=lambda one: (one != own, one)):
        pids = tuple(sorted(living.get(inode, ())))
        name, entrance = named.get(inode, (f"net:[{inode}]", None))
        if entrance is None and pids:
            entrance = root / "proc" / str(pids[0]) / "ns" / "net"
        found.append(NetworkNamespace(inode, "" if inode == own else name, entrance, pids))
    return found, unread


def process_ids(root: Path = Path("/")) -> list[int]:
    """Every process there is now, ascending; OSError where `/proc` itself cannot be read."""
    return sorted(int(one.name) for one in (root / "proc").iterdir() if one.name.isascii() and one.name.isdigit())


def inside(entrance: Path, call: Callable[[], T]) -> T:
    """What `call` returns, run in a thread of its own inside of the namespace; a program it starts is inside too.

    Its errors are raised here; OSError where the namespace may not be entered (CAP_SYS_ADMIN), or is gone.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with entrance.open("rb") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), str(entrance))
            results.append(call())
        except BaseException as failure:  # noqa: BLE001 (raised again in the caller's thread)
            failures.append(failure)

    thread = threading.Thread(target=work, name="network-namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _own(root: Path) -> tuple[int, int]:
    """Of the namespace this thread is in: its inode, and the device of all of them; 0 = not known."""
    for name in ("thread-self", "self"):
        path = root / "proc" / name / "ns" / "net"
        try:
            inode = _inode(path)
        except OSError:
            continue
        try:
            return inode, path.stat().st_dev
        except OSError:
            return inode, 0
    return 0, 0


def _inode(path: Path) -> int:
    found = _LINK.fullmatch(str(path.readlink()))
    return int(found[1]) if found else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []

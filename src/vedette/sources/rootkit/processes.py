"""Processes that the listing of /proc does not show, that run without a file, or into which a library was preloaded.
Counterpart: `system.processes` says who a process is; `traces` has the words."""

# proc(5), kill(2), memfd_create(2), ld.so(8).
from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vedette.model.levels import Level
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.system.namespaces import process_ids
from vedette.system.packages import owners
from vedette.system.processes import process
from vedette.text.escape import decode, shorten, terminal
from vedette.text.times import rfc3339

_PROC = Path("/proc")
_DELETED, _MEMORY = " (deleted)", "/memfd:"
_PAUSE, _ROUNDS = 0.02, 5
"""A process that is just beginning or ending is not hidden: what is suspected is looked at again, seconds apart."""
_AT_ONCE = 4096
_MOUNTED_OVER = re.compile(r"/proc/(\d+)(?:/|$)")
_HIDING = re.compile(r"\bhidepid=(?:[12]|noaccess|invisible)\b")
_PRELOAD = (b"LD_PRELOAD=", b"LD_AUDIT=")
_MOST_READ = 256 << 20
_MOST_NAMES, _LONGEST_NAME = 20, 4096
WRITABLE_BY_ALL = ("/tmp/", "/var/tmp/", "/dev/shm/", "/dev/mqueue/", "/run/shm/", "/home/", "/run/user/")
_CLONED = re.compile(r"/memfd:(?:runc_cloned:/proc/self/exe|crun_|lxc)")
_RUNTIMES = ("/usr/bin/runc", "/usr/sbin/runc", "/usr/local/sbin/runc", "/usr/bin/crun", "/usr/libexec/crio/runc")


@dataclass(frozen=True, slots=True)
class Alive:
    """Asks the kernel whether a process id is somebody's, without /proc."""

    def some(self, ids: range) -> list[int]:
        """Those of `ids` that are alive; thread ids too."""
        kill = ctypes.CDLL(None, use_errno=True).kill
        found = []
        for pid in ids:
            if kill(pid, 0) == 0 or ctypes.get_errno() == errno.EPERM:
                found.append(pid)
        return found


def hidden_processes(
    look: Look,
    *,
    proc: Path = _PROC,
    alive: Callable[[range], list[int]] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Every process id is asked for with kill(2), and held against the listing, before it and after it.

    Two more ways: a listed process that lives and whose own folder is not its own, and a mount over such a folder.
    """
    asked = alive or Alive().some
    mounts = _read(proc / "self/mountinfo").decode("utf-8", "replace").splitlines()
    own = next((line for line in reversed(mounts) if line.split()[4:5] == [str(proc)]), "")
    covered = {int(found[1]) for line in mounts if (found := _MOUNTED_OVER.match((line.split() + [""] * 5)[4]))}
    root = proc.parent
    try:
        listed = set(process_ids(root))
        if _HIDING.search(own) and 1 not in listed:
            look.missed(Check.PROCESSES, Blind.HIDEPID)
            return
        living: list[int] = []
        last = _last_id(proc)
        for first in range(1, last + 1, _AT_ONCE):
            look.go_on()
            living += asked(range(first, min(first + _AT_ONCE, last + 1)))
        listed |= set(process_ids(root))
    except OSError:
        look.missed(Check.PROCESSES, Blind.UNREADABLE)
        return
    suspects = {pid for pid in living if pid not in listed and not _is_thread(pid, proc)}
    suspects |= {pid for pid in living if pid in listed and (pid in covered or not _own_folder(pid, proc))}
    for number in range(_ROUNDS):
        if not suspects:
            return
        if number:
            sleep(_PAUSE)
        listed = set(process_ids(root))
        suspects = {
            pid
            for pid in suspects
            if asked(range(pid, pid + 1))
            and (pid in covered if pid in listed and pid in covered else _hides(pid, listed, proc))
        }
    for pid in sorted(suspects):
        how = (
            "something is mounted over its folder in /proc"
            if pid in covered
            else "the kernel knows it, and the listing of /proc does not show it"
            if pid not in listed
            else "it is listed, and its folder in /proc is not its own"
        )
        look.found(TraceKind.HIDDEN_PROCESS, f"pid {pid}", Level.CRITICAL, how, process__pid=pid, **_about(pid, proc))


def _hides(pid: int, listed: set[int], proc: Path) -> bool:
    return not _own_folder(pid, proc) if pid in listed else not _is_thread(pid, proc)


def _last_id(proc: Path) -> int:
    text = _read(proc / "sys/kernel/pid_max").strip()
    return int(text) if text.isdigit() else 32768


def _is_thread(pid: int, proc: Path) -> bool:
    """Whether it is a thread of a process, and not its first one: those have a folder and are not listed."""
    found = re.search(rb"^Tgid:\s+(\d+)$", _read(proc / str(pid) / "status"), re.MULTILINE)
    return found is not None and int(found[1]) != pid and (proc / found[1].decode() / "task" / str(pid)).exists()


def _own_folder(pid: int, proc: Path) -> bool:
    return _read(proc / str(pid) / "stat").startswith(f"{pid} (".encode())


def _about(pid: int, proc: Path) -> dict[str, object]:
    """What can be told of a process, by field."""
    found = process(pid, proc.parent)
    if found is None:
        return {}
    try:
        executable = terminal(str((proc / str(pid) / "exe").readlink()))
    except OSError:
        executable = ""
    line = _read(proc / str(pid) / "cmdline").replace(b"\0", b" ").strip()
    return {
        "process__name": terminal(decode(found.name)),
        "process__executable": executable,
        "process__command_line": shorten(terminal(decode(line)), 300),
        "process__start": rfc3339(found.since) if found.since else "",
        "user__id": str(found.uid) if found.uid >= 0 else "",
        "service__name": terminal(found.unit),
    }


# ------------------------------------------------------------------------------------------------ without a file


def lost_executables(look: Look, *, proc: Path = _PROC) -> None:
    """Processes whose program has no file any more, or never had one.

    A service that was upgraded and not started anew runs on what was deleted: where a package brought what stands
    there now it is low. A container runtime that runs as a sealed copy of itself is none, when it is one byte for byte.
    """
    lost: list[tuple[int, str]] = []
    unread = 0
    for pid in process_ids(proc.parent):
        try:
            target = str((proc / str(pid) / "exe").readlink())
        except OSError as error:
            unread += error.errno in (errno.EACCES, errno.EPERM)
            continue  # a thread of the kernel, or it ended
        if target.startswith(_MEMORY) or target.endswith(_DELETED):
            lost.append((pid, target))
    look.missed(Check.EXECUTABLES, Blind.NOT_PERMITTED, unread)
    brought = owners({target.removesuffix(_DELETED) for _, target in lost}, proc.parent)
    for subject, (target, pids) in sorted(_grouped(lost, proc).items()):
        about = {"process__pid": pids[0], **_about(pids[0], proc), "vedette__rootkit__count": len(pids)}
        path = target.removesuffix(_DELETED)
        shown = terminal(path)
        if target.startswith(_MEMORY):
            if not (_CLONED.match(target) and _is_runtime(proc / str(pids[0]) / "exe")):
                detail = f"{len(pids)} processes run from memory alone ({shown}), from no file"
                look.found(TraceKind.MEMORY_EXECUTABLE, subject, Level.HIGH, detail, **about)
            continue
        if path in brought and Path(path).exists():
            level, detail = Level.LOW, f"{shown} was replaced since it began; {brought[path]} brought it"
            about["package__name"] = brought[path]
        elif path.startswith(WRITABLE_BY_ALL):
            level, detail = Level.HIGH, f"its program was deleted from a folder that anybody may write: {shown}"
        else:
            level, detail = Level.MEDIUM, f"its program was deleted: {shown}"
        look.found(TraceKind.DELETED_EXECUTABLE, subject, level, detail, **about)


def _grouped(lost: Iterable[tuple[int, str]], proc: Path) -> dict[str, tuple[str, list[int]]]:
    """Processes by what they run: its path, or of what is in memory alone its digest, for anybody names that."""
    found: dict[str, tuple[str, list[int]]] = {}
    for pid, target in lost:
        subject = terminal(target.removesuffix(_DELETED))
        if target.startswith(_MEMORY):
            digest = _digest(proc / str(pid) / "exe")
            subject = f"memory {digest.hex()[:32]}" if digest is not None else f"memory of pid {pid}"
        found.setdefault(subject, (target, []))[1].append(pid)
    return found


def _is_runtime(executable: Path, runtimes: Iterable[str] = _RUNTIMES) -> bool:
    digest = _digest(executable)
    return digest is not None and any(_digest(Path(one)) == digest for one in runtimes)


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_READ:
                return None
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None


# ------------------------------------------------------------------------------------------------ preloaded


def preloaded_libraries(look: Look, *, root: Path = Path("/")) -> None:
    """Libraries that /etc/ld.so.preload puts into every program, and LD_PRELOAD or LD_AUDIT into one."""
    named: dict[str, tuple[str, dict[str, object]]] = {}
    everywhere = root / "etc/ld.so.preload"
    try:
        text = everywhere.read_bytes()
    except FileNotFoundError:
        text = b""
    except OSError:
        look.missed(Check.PRELOADING, Blind.UNREADABLE)
        text = b""
    for raw in b"".join(line.partition(b"#")[0] + b" " for line in text.splitlines()).replace(b":", b" ").split():
        named[os.fsdecode(raw)] = ("/etc/ld.so.preload", {})
    unread = 0
    for pid in process_ids(root):
        path = root / "proc" / str(pid) / "environ"
        try:
            environment = path.read_bytes()
        except OSError as error:
            unread += error.errno in (errno.EACCES, errno.EPERM)
            continue
        if not any(mark in environment for mark in _PRELOAD):
            continue
        for one in environment.split(b"\0"):
            if one.startswith(_PRELOAD):
                names = one.partition(b"=")[2].replace(b":", b" ").split()
                # Anybody may name any number in the environment of a process of their own.
                look.missed(Check.PRELOADING, Blind.TOO_MUCH, max(len(names) - _MOST_NAMES, 0))
                for raw in names[:_MOST_NAMES]:
                    named.setdefault(os.fsdecode(raw), ("", {"process__pid": pid, **_about(pid, root / "proc")}))
    look.missed(Check.PRELOADING, Blind.NOT_PERMITTED, unread)
    brought = owners({str(Path(one)) for one in named}, root)
    for library, (where, about) in sorted(named.items()):
        shown = shorten(terminal(library), _LONGEST_NAME)
        package = brought.get(library, "")
        if where:
            level = Level.LOW if package else Level.CRITICAL
            detail = f"{where} puts it into every program" + (f"; {package} brought it" if package else "")
        else:
            anybody = library.startswith(WRITABLE_BY_ALL)
            level = Level.INFORMATIONAL if package else Level.HIGH if anybody else Level.MEDIUM
            detail = f"the environment of {about.get('process__name', 'a process')} puts it in"
        look.found(TraceKind.PRELOADED_LIBRARY, shown, level, detail, file__path=shown, package__name=package, **about)


def _read(path: Path, limit: int = 1 << 20) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError:
        return b""

"""Who did it: the process, its parents, the user who logged in and the session, as /proc tells while they live.
Counterpart: `watch` asks at once, for most processes end soon; who did it says nothing of why."""

# proc(5): stat, status, cmdline, exe, loginuid, sessionid.
from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from vedette.model.integrity import Process, Who
from vedette.system.processes import user_names

_UNSET = 4_294_967_295
_MOST_PARENTS = 12
_MOST = 1024
_LONGEST = 4096


class Asker:
    """Asks /proc, once a process: what it said stays for changes that come after the process has ended."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._proc = root / "proc"
        self._known: OrderedDict[int, tuple[bytes, Who]] = OrderedDict()
        self._names = user_names(root)

    def who(self, pid: int) -> Who | None:
        """What is known of a process; None for none, and bare where it has ended before it was asked."""
        if pid <= 0:
            return None
        started = self._started(pid)
        known = self._known.get(pid)
        # Another one may have been given the number meanwhile; one that has ended is told by what it said.
        if known is not None and started in (b"", known[0]):
            return known[1]
        who = self._ask(pid)
        if started:
            self._known[pid] = started, who
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return who

    def _ask(self, pid: int) -> Who:
        process, parent = self._process(pid)
        parents: list[Process] = []
        while parent > 0 and len(parents) < _MOST_PARENTS:
            one, following = self._process(parent)
            parents.append(one)
            parent = following
        login = self._number(pid, "loginuid")
        session = self._number(pid, "sessionid")
        return Who(
            pid=pid,
            executable=process.executable,
            command_line=process.command_line,
            user_id=process.user_id,
            user=self._user(process.user_id),
            parents=tuple(parents),
            login_uid=login,
            login_user=self._user(login),
            session=str(session) if session >= 0 else "",
        )

    def _process(self, pid: int) -> tuple[Process, int]:
        folder = self._proc / str(pid)
        words = tuple(
            word.decode("utf-8", "replace") for word in _read(folder / "cmdline").rstrip(b"\0").split(b"\0") if word
        )
        executable = ""
        with suppress(OSError):
            executable = os.fsencode((folder / "exe").readlink()).decode("utf-8", "replace")
        status = _read(folder / "status")
        user, parent = -1, 0
        for line in status.splitlines():
            name, _, rest = line.partition(b":")
            if name == b"Uid":
                user = int(rest.split()[0])
            elif name == b"PPid":
                parent = int(rest)
            elif name == b"Name" and not executable and not words:
                executable = rest.strip().decode("utf-8", "replace")
        # Whose file it is may not be for us to see: what it says of itself is better than nothing.
        return Process(pid, executable or (words[0] if words else ""), words, user), parent

    def _started(self, pid: int) -> bytes:
        fields = _read(self._proc / str(pid) / "stat").rpartition(b")")[2].split()
        return fields[19] if len(fields) > 19 else b""

    def _number(self, pid: int, name: str) -> int:
        text = _read(self._proc / str(pid) / name).strip()
        return int(text) if text.isdigit() and int(text) != _UNSET else -1

    def _user(self, uid: int) -> str:
        if uid >= 0 and uid not in self._names:
            self._names = user_names(self._root)
        return self._names.get(uid, "") if uid >= 0 else ""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST)
    except OSError:
        return b""

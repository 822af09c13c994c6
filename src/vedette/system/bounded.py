"""Run a program somebody else wrote the words of: bounded in time and output, its whole process group ended after it.
Counterpart: `system.exec` runs the few programs we know; `sources.attacks` runs checks through here."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOOK_EVERY = 0.1
"""Seconds between two looks at `stop` and at the program itself."""
_LOOK_SOON = 0.005
"""The same once it has closed its output, which most do as they end."""
_CHUNK = 65_536
_MARK = "VEDETTE_BOUNDED"
"""A variable that all it starts inherits, with the folder as its value: who left the process group is known by it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. returncode: as the system gives it, negative for a signal.

    timed_out: it was killed for its time. cut: it wrote more than was kept, and was killed for it.
    stopped: it was killed because we end.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    cut: bool = False
    stopped: bool = False


def run_bounded(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout: float,
    output_limit: int,
    file_limit: int,
    stop: threading.Event | None = None,
) -> Ended:
    """Run `argv` in `folder`, without a shell, a terminal or input; OSError where it cannot be started.

    timeout: seconds. output_limit: bytes kept of each of its two streams. file_limit: bytes of a file it may write.
    environment: the whole of it but for one mark. folder: no other program's. Whatever is left of its process group
    when it ends is killed, and whatever left the group and still has the mark.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**environment, _MARK: str(folder)},
        start_new_session=True,
    )
    try:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_limit, file_limit))
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        stdout, stderr, why = _gathered(process, timeout, output_limit, stop)
    finally:
        # Its leader is not reaped before, so that the group's number cannot be somebody else's by now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            code = process.wait()
        _kill_marked(folder)
    return Ended(code, stdout, stderr, why == "time", why == "output", why == "stop")


def _kill_marked(folder: Path) -> None:
    """Kill what was started in a session of its own and is left behind; what we may not look into is not ours."""
    mark = os.fsencode(f"{_MARK}={folder}")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # Held before it is looked at: its number cannot become another's meanwhile.
            process = os.pidfd_open(int(entry.name))
            try:
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)


def _gathered(
    process: subprocess.Popen[bytes], timeout: float, output_limit: int, stop: threading.Event | None
) -> tuple[bytes, bytes, str]:
    """What it wrote until it ended, and why it must be ended now where it did not by itself."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    deadline = time.monotonic() + timeout
    why = ""
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, stream)
        while not why:
            left = deadline - time.monotonic()
            ready = selector.select(max(min(left, _LOOK_EVERY if selector.get_map() else _LOOK_SOON), 0))
            for key, _ in ready:
                if _read(key.data, kept[key.data], output_limit, selector):
                    why = "output"
            if not ready and _exited(process):
                # What it left running may hold its streams open; nothing more is asked of that.
                break
            if stop is not None and stop.is_set():
                why = "stop"
            elif left <= 0:
                why = "time"
    return bytes(kept[process.stdout]), bytes(kept[process.stderr]), why


def _exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _read(stream: IO[bytes], kept: bytearray, limit: int, selector: selectors.BaseSelector) -> bool:
    """Take what is there; whether it was more than is kept."""
    try:
        chunk = os.read(stream.fileno(), _CHUNK)
    except BlockingIOError:
        return False
    if not chunk:
        selector.unregister(stream)
        return False
    room = limit - len(kept)
    kept += chunk[:room]
    return len(chunk) > room

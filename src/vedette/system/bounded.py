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
"""Seconds between two looks at `stop`, and at a program that has closed its output and goes on."""
_CHUNK = 65_536


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
    environment: the whole of it. Whatever is left of its process group is killed when it ends.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    )
    with process:
        try:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_limit, file_limit))
                resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
            return _gathered(process, timeout, output_limit, stop)
        finally:
            # The group outlives its leader while anything in it runs, and its number is not given away meanwhile.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def _gathered(
    process: subprocess.Popen[bytes], timeout: float, output_limit: int, stop: threading.Event | None
) -> Ended:
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    deadline = time.monotonic() + timeout
    timed_out = cut = stopped = False
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, stream)
        while True:
            left = deadline - time.monotonic()
            stopped = stop is not None and stop.is_set()
            timed_out = left <= 0
            if timed_out or cut or stopped:
                break
            ready = selector.select(min(left, _LOOK_EVERY))
            for key, _ in ready:
                cut |= _read(key.data, kept[key.data], output_limit, selector)
            if not ready and process.poll() is not None:
                # What it left running may hold its streams open; nothing more is asked of that.
                break
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(max(left, 0.0), _LOOK_EVERY))
                    break
    if timed_out or cut or stopped:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return Ended(code, bytes(kept[process.stdout]), bytes(kept[process.stderr]), timed_out, cut, stopped)


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

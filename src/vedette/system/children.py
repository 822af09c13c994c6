"""A program of ours that lasts: started by its argument vector, what it says is read, ended by its pid.
Counterpart: `system.exec` runs what ends by itself; `fleet.broker` keeps its server here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from vedette.system.exec import ENVIRONMENT

_LONGEST_LINE = 4096


class Child:
    """A running child. on_line: each line it writes to standard error (cut at 4096 bytes), in a thread of the child's
    own, so that it never waits for us to read; on_end: once, from there, when it ended. OSError where it cannot start.
    """

    def __init__(self, argv: Sequence[str], on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            # A Control-C at the terminal is for us; we end it in our own order.
            start_new_session=True,
        )
        assert self._process.stderr is not None
        self._on_line, self._on_end = on_line, on_end
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id, also when it has ended."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing where it has ended."""
        self._process.send_signal(number)

    def end(self, grace: float = 5.0) -> None:
        """SIGTERM, after `grace` seconds SIGKILL; waits for its end. Again is no matter."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._reader.join(grace)

    def _read(self, said: IO[bytes]) -> None:
        with said:
            while line := said.readline(_LONGEST_LINE):
                self._on_line(line)
        self._process.wait()
        self._on_end()


def end_left_behind(pid_file: Path, word: Path, grace: float = 5.0) -> int:
    """End the process a pid file names, if `word` is one of its arguments; its pid, 0 where there was none.

    The argument tells a process of ours from one that got the number since.
    """
    try:
        pid = int(pid_file.read_text("ascii"))
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return 0
    try:
        if os.fsencode(word) not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return 0
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], grace)[0]:
                break
        return pid
    except OSError:
        return 0
    finally:
        os.close(handle)

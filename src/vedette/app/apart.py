"""A process of ours that keeps a few rights where the engine gave up all: started early, asked over one stream, ended.
Counterpart: `inside_helper` and `rootkit_helper` are the two; `app.holding` starts them before privileges go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

from vedette.system.exec import ENVIRONMENT
from vedette.system.privileges import keep_only

_DYING = 1.0
"""Seconds it may take to be gone; one that hangs in the kernel stays behind, and keeps nobody."""


class Apart:
    """The process that runs `module`, whose `main` is `become` and then to answer what `stream` asks.

    uid, gid: whom it becomes. OSError where it cannot be started.
    """

    def __init__(self, module: str, uid: int, gid: int) -> None:
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-I", "-m", module, str(uid), str(gid)]
        try:
            with theirs:
                actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), descriptor) for descriptor in (0, 1)]
                self.pid = os.posix_spawnp(argv[0], argv, ENVIRONMENT, file_actions=actions)
        except OSError:
            ours.close()
            raise
        self.connection = ours
        self.stream = ours.makefile("rwb")

    def end(self) -> None:
        """End it, in the middle of an answer too; whoever waits for that gets none. Again is no matter."""
        pid, self.pid = self.pid, 0
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + _DYING
            while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < end:
                time.sleep(0.01)
        self.connection.close()
        with contextlib.suppress(OSError):
            self.stream.close()


def become(capabilities: Sequence[int]) -> None:
    """In the process: whom the command line names, with these rights and no others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the engine's to answer
    os.chdir("/")
    keep_only(capabilities, uid=int(sys.argv[1]), gid=int(sys.argv[2]))

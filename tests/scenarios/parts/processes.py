"""Starts programs by argument vector and ends them by the pid it was given, whatever happens.
Counterpart: every part that runs a program (netns.py, sshd.py, journald.py, attacker.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

# A folder is named after the process that made it, so that what a killed run left behind can be told.
FOLDER_PREFIX = "vdt-"


class PartError(RuntimeError):
    """A real part could not be set up or did not come up; the message holds what the program said."""


class Process:
    """One program of ours, in a session of its own; output goes to files, so that no pipe can fill up.

    `close` sends SIGTERM, after `grace` seconds SIGKILL, to the program and to whatever is left of its process group.
    It dies with the thread that started it (a killed test run leaves no daemon), so start it from a lasting thread.
    """

    def __init__(self, argv: Sequence[str], output: Path, *, env: Mapping[str, str] | None, stdin: bool) -> None:
        self.argv = tuple(argv)
        self.stdout_path = output.with_suffix(".out")
        self.stderr_path = output.with_suffix(".err")
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def stdin(self) -> IO[bytes]:
        """The program's input, when it was started with `stdin=True`."""
        if self._popen.stdin is None:
            raise PartError("started without stdin")
        return self._popen.stdin

    @property
    def stdout(self) -> str:
        """What the program wrote so far; undecodable bytes as surrogates."""
        return self.stdout_path.read_text(errors="surrogateescape")

    @property
    def stderr(self) -> str:
        """What the program complained about so far."""
        return self.stderr_path.read_text(errors="surrogateescape")

    def poll(self) -> int | None:
        """Exit status, None while it runs, negative signal number when killed."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int:
        """Exit status; `subprocess.TimeoutExpired` after `timeout` seconds."""
        return self._popen.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone (not to its children)."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """`kill -9` on the program alone, and reap it: the tests' sudden death."""
        self._popen.kill()
        self._popen.wait(10)

    def close(self, grace: float = 5.0) -> None:
        """End it and its process group; safe to call twice."""
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(grace)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(10)
        # The group outlives its leader while children live; its id is ours because of start_new_session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Processes:
    """Owns the programs of one test; `close` ends them, last started first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._all: list[Process] = []

    def start(
        self, argv: Sequence[str], *, name: str | None = None, env: Mapping[str, str] | None = None, stdin: bool = False
    ) -> Process:
        """Start a program; its output files are named after `name` (default: the program)."""
        label = f"{len(self._all):02d}-{name or Path(argv[0]).name}"
        process = Process(argv, self._folder / label, env=env, stdin=stdin)
        self._all.append(process)
        return process

    def close(self) -> None:
        """End every program that is still there."""
        while self._all:
            self._all.pop().close()


def run(argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 30.0) -> str:
    """Run a program to its end and return its output; `PartError` with its complaint unless it exits with 0."""
    done = subprocess.run(
        list(argv), input=stdin, capture_output=True, text=True, errors="surrogateescape", timeout=timeout, check=False
    )
    if check and done.returncode != 0:
        raise PartError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_until(what: str, condition: Callable[[], bool], timeout: float = 15.0) -> None:
    """Poll until `condition` holds. The timeout is a bound against hanging, never an expectation about speed."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise PartError(f"waited {timeout} s in vain: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A scratch folder with a short path (socket paths hold 107 bytes, a test's own folder is often longer)."""
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid():x}-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder

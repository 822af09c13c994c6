"""Run a program by its argument vector, bounded in time, never through a shell.
Counterpart: respond and sources call programs of the host only through here."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""All that a program we start gets of ours: a C locale, so that output can be parsed, and no secret."""
_GLANCE = 0.25
"""Seconds between two looks at whether it is to stop."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. returncode: as the system gives it; -9 when it was killed for its time."""

    returncode: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 10.0, stop: threading.Event | None = None
) -> Finished:
    """Run `argv` to its end. FileNotFoundError when there is no such program.

    timeout: seconds; past it, or once `stop` is set, the program is killed and returncode is -9. The environment is
    reduced to PATH and a C locale, so that output can be parsed.
    """
    with subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        end = time.monotonic() + timeout
        given: bytes | None = stdin
        try:
            while True:
                left = max(end - time.monotonic(), 0.0)
                try:
                    stdout, stderr = process.communicate(given, left if stop is None else min(left, _GLANCE))
                except subprocess.TimeoutExpired as expired:
                    given = None
                    if time.monotonic() < end and not (stop is not None and stop.is_set()):
                        continue
                    return Finished(-9, bytes(expired.stdout or b""), bytes(expired.stderr or b""))
                return Finished(process.returncode, stdout, stderr)
        finally:
            process.kill()

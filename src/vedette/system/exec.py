"""Run a program by its argument vector, bounded in time, never through a shell.
Counterpart: respond and sources call programs of the host only through here."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. returncode: as the system gives it; -9 when it was killed for its time."""

    returncode: int
    stdout: bytes
    stderr: bytes


def run(argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 10.0) -> Finished:
    """Run `argv` to its end. FileNotFoundError when there is no such program.

    timeout: seconds; past it the program is killed and returncode is -9. The environment is reduced to
    PATH and a C locale, so that output can be parsed.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as expired:
        return Finished(-9, bytes(expired.stdout or b""), bytes(expired.stderr or b""))
    return Finished(done.returncode, done.stdout, done.stderr)

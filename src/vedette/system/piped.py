"""The output of a program as it comes, for what is too long to be held at once; never through a shell.
Counterpart: `system.exec` runs a program whose output is short; `sources.integrity` reads packed lists through here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

from vedette.system.exec import ENVIRONMENT

_CHUNK = 1 << 20


def piped(argv: Sequence[str]) -> Iterator[bytes]:
    """What `argv` writes, in pieces of at most 1 MiB; OSError where it cannot be started or fails.

    It has no input; its environment is PATH and a C locale. Whoever stops asking ends it.
    """
    with subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        try:
            while data := process.stdout.read(_CHUNK):
                yield data
            if process.wait() != 0:
                raise OSError(f"{argv[0]} failed with {process.returncode}")
        finally:
            process.kill()

"""Run as a program: has `vedette up` loaded and forks a life of it for each `start FILE` on its standard input.
Counterpart: forked.py, which starts this file; answers are lines on standard output."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

# Everything that a life would load; nothing of it may start a thread before the fork.
import sqlalchemy.dialects.sqlite  # noqa: F401

import vedette.app.up
import vedette.config.load
import vedette.notify.receivers  # noqa: F401
from vedette.cli.up import up


def main(config: Path, data: Path) -> None:
    """`start FILE`: a life whose words go to FILE; its pid. `reap PID`: wait for it; its status."""
    _answer("ready")
    while line := _line():
        verb, argument = line.split(" ", 1)
        if verb == "reap":
            _answer(os.waitstatus_to_exitcode(os.waitpid(int(argument), 0)[1]))
            continue
        output = os.open(argument, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        pid = os.fork()
        if pid == 0:
            _live(output, config, data)
        os.close(output)
        _answer(pid)


def _live(output: int, config: Path, data: Path) -> None:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        up(config, data)
        status = 0
    except BaseException:  # noqa: BLE001 (said, and the child never goes on as its parent)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _answer(text: object) -> None:
    os.write(1, f"{text}\n".encode())


def _line() -> str:
    """The next line; what would be read ahead of it would belong to the children too."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        read += byte
    return read.decode().strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Sends a file over a TCP connection as fast as it is taken: one side of `bench.logging_syslog`, a process of its own.
Counterpart: `bench.logging_syslog` starts it on the other processor than the receiver."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

CHUNK = 1 << 18


def send(path: Path, port: int) -> None:
    """Send all of it and wait until the receiver has taken it from its kernel."""
    with path.open("rb", buffering=0) as file, socket.create_connection(("127.0.0.1", port)) as connection:
        while chunk := file.read(CHUNK):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    send(Path(sys.argv[1]), int(sys.argv[2]))

"""Dumps by netlink: one question to the kernel, every message of its answer.
Counterpart: `bound_sockets` and `interfaces` ask; `respond.netlink` writes sets, with acknowledgements and batches."""

# netlink(7); the numbers below are its.
from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_REQUEST_DUMP, _ERROR, _DONE = 0x301, 2, 3
_PATIENCE = 5.0
"""Seconds the kernel may take for one answer."""


@contextmanager
def connected(protocol: int) -> Iterator[socket.socket]:
    """A connection for `dump`, in the network namespace of the calling thread. OSError where there is none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as connection:
        connection.settimeout(_PATIENCE)
        yield connection


def dump(connection: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """Ask for all of one kind; the payload of each message. OSError as the kernel refuses, or does not answer."""
    connection.sendto(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_DUMP, 1, 0) + body, (0, 0))
    while True:
        data = connection.recv(1 << 17)
        at = 0
        while at + 16 <= len(data):
            length, answered = struct.unpack_from("=IH", data, at)
            if answered == _DONE or length < 16:
                return
            if answered == _ERROR:
                code = -struct.unpack_from("=i", data, at + 16)[0]
                raise OSError(code, os.strerror(code))
            yield data[at + 16 : at + length]
            at += length + 3 & ~3

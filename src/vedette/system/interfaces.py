"""Network interfaces of the calling thread's namespace, asked of the kernel: name, kind, whether it takes everything.
Counterpart: `sources.rootkit.sockets` looks for those that take what is not meant for them."""

# rtnetlink(7); linux/{if,if_link,rtnetlink}.h. The numbers below are theirs.
from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vedette.system.netlink import connected, dump

_GET_LINK = 18
_PROMISCUOUS = 0x100
_NAME, _MASTER, _PROMISCUITY, _LINK_INFO, _KIND = 3, 10, 30, 18, 1


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. promiscuous: how many ask for everything, or 1 where only its flag says so. master: index of the
    bridge or bond it is part of, 0 = none. kind: `veth`, `bridge`, ...; empty for a device."""

    name: str
    promiscuous: int
    master: int = 0
    kind: str = ""


def interfaces() -> list[Interface]:
    """All of them; OSError where the kernel cannot be asked."""
    with connected(socket.NETLINK_ROUTE) as connection:
        return [_interface(one) for one in dump(connection, _GET_LINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0))]


def _interface(message: bytes) -> Interface:
    (flags,) = struct.unpack_from("=I", message, 8)
    found = dict(_attributes(message[16:]))
    counted = _number(found.get(_PROMISCUITY, b""))
    kind = dict(_attributes(found.get(_LINK_INFO, b""))).get(_KIND, b"")
    return Interface(
        os.fsdecode(found.get(_NAME, b"").rstrip(b"\0")),
        counted or int(bool(flags & _PROMISCUOUS)),
        _number(found.get(_MASTER, b"")),
        kind.rstrip(b"\0").decode("ascii", "replace"),
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + 3 & ~3


def _number(raw: bytes) -> int:
    return int(struct.unpack_from("=I", raw)[0]) if len(raw) >= 4 else 0

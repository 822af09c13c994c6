"""Listening TCP and bound UDP sockets of a network namespace, asked of the kernel or read from /proc/net.
Counterpart: `sources.ports.inside` finds who holds each; `namespaces` leads into the others."""

# sock_diag(7); linux/{sock_diag.h,inet_diag.h}; proc(5). The numbers below are theirs.
from __future__ import annotations

import errno
import re
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import takewhile
from pathlib import Path

from vedette.system.netlink import connected, dump

_SOCK_DIAG, _BY_FAMILY = 4, 20
_LISTEN, _UNCONNECTED = 10, 7
_V6ONLY = 11
_SHORTEST = 72
_TRANSPORTS = {"tcp": (socket.IPPROTO_TCP, _LISTEN), "udp": (socket.IPPROTO_UDP, _UNCONNECTED)}
_LOCAL_ROUTE = re.compile(r"\|-- ([0-9.]+)")
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A TCP socket that listens, or a UDP socket that takes what anybody sends. address: canonical. inode: 0 = the
    kernel's own. dual: of `::`, whether it takes IPv4 too; None = not known. device: the only one it listens on."""

    transport: str
    address: str
    port: int
    inode: int
    uid: int
    dual: bool | None = None
    device: str = ""


def ask_kernel() -> list[BoundSocket]:
    """Of the namespace of the calling thread, without privileges; OSError where this kernel cannot be asked."""
    found = []
    with connected(_SOCK_DIAG) as connection:
        for transport, (protocol, state) in _TRANSPORTS.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                body = struct.pack("=BBBBI", family, protocol, 0, 0, 1 << state) + bytes(48)
                replies = dump(connection, _BY_FAMILY, body)
                found += [_socket(transport, one) for one in replies if len(one) >= _SHORTEST]
    return found


def _socket(transport: str, message: bytes) -> BoundSocket:
    family = message[0]
    (port,) = struct.unpack_from(">H", message, 4)
    device, *_ = struct.unpack_from("=I", message, 40)
    uid, inode = struct.unpack_from("=II", message, 64)
    only: int | None = None
    at = _SHORTEST
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if length < 4:
            break
        if kind == _V6ONLY:
            only = message[at + 4]
        at += length + 3 & ~3
    dual: bool | None = False
    if family == socket.AF_INET:
        address = str(IPv4Address(message[8:12]))
    else:
        address, six = _six(message[8:24])
        dual = (None if only is None else not only) if six and address == "::" else False
    return BoundSocket(transport, address, port, inode, uid, dual, _device_name(device))


def _six(packed: bytes) -> tuple[str, bool]:
    """Canonical text, and whether it is IPv6 at all."""
    address = IPv6Address(packed)
    return (str(address.ipv4_mapped), False) if address.ipv4_mapped else (str(address), True)


def _device_name(index: int) -> str:
    if not index:
        return ""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def read_tables(net: Path) -> list[BoundSocket]:
    """The same from `/proc/PID/net`; on `::` nothing is known of IPv4. OSError where it cannot be read."""
    found = []
    for transport, (_, state) in _TRANSPORTS.items():
        for name in (transport, f"{transport}6"):
            try:
                lines = (net / name).read_text("ascii", "replace").splitlines()
            except FileNotFoundError:
                if name.endswith("6"):
                    continue  # a kernel without IPv6
                raise
            found += [made for line in lines[1:] if (made := _line(transport, line, state)) is not None]
    return found


def _line(transport: str, line: str, state: int) -> BoundSocket | None:
    parts = line.split()
    try:
        place, _, port = parts[1].partition(":")
        if int(parts[3], 16) != state or not int(port, 16):
            return None
        words = bytes.fromhex(place)
        # Each 32-bit word is printed as the machine's own number.
        packed = b"".join(words[at : at + 4][:: 1 if sys.byteorder == "big" else -1] for at in range(0, len(words), 4))
        address, six = (str(IPv4Address(packed)), False) if len(packed) == 4 else _six(packed)
        dual = None if six and address == "::" else False
        return BoundSocket(transport, address, int(port, 16), int(parts[9]), int(parts[7]), dual)
    except (IndexError, ValueError):
        return None


def addresses(net: Path = Path("/proc/thread-self/net")) -> frozenset[str]:
    """Every address that this namespace takes for its own, canonical."""
    found = set()
    lines = _lines(net / "fib_trie")
    for at, line in enumerate(lines[:-1]):
        leaf = _LOCAL_ROUTE.search(line)
        below = takewhile(lambda line: "-- " not in line, lines[at + 1 : at + 5])
        if leaf is not None and any("/32 host LOCAL" in one for one in below):
            found.add(leaf[1])
    for line in _lines(net / "if_inet6"):
        parts = line.split()
        if parts and len(parts[0]) == 32:
            found.add(str(IPv6Address(bytes.fromhex(parts[0]))))
    return frozenset(found)


def routes(net: Path = Path("/proc/thread-self/net")) -> tuple[tuple[Network, str], ...]:
    """Where packets go: (network, device), of the main table; default routes too."""
    found: list[tuple[Network, str]] = []
    for line in _lines(net / "route")[1:]:
        parts = line.split()
        if len(parts) > 7:
            where, mask = (int(parts[at], 16).to_bytes(4, sys.byteorder) for at in (1, 7))
            found.append((ip_network((int.from_bytes(where), int.from_bytes(mask).bit_count())), parts[0]))
    for line in _lines(net / "ipv6_route"):
        parts = line.split()
        # Flags: RTF_UP, without RTF_REJECT and RTF_LOCAL.
        if len(parts) > 9 and int(parts[8], 16) & 0x80000201 == 1:
            prefix = (IPv6Address(bytes.fromhex(parts[0])), int(parts[1], 16))
            found.append((IPv6Network(prefix, strict=False), parts[9]))
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ESRCH):
            return []
        raise

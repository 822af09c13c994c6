"""Ends established TCP connections of blocked peers, so that they do not resume when the lease ends.
Counterpart: nftables.py calls it once the drop is in effect; the same as `ss -K dst ADDR` without starting `ss`."""

# sock_diag(7); linux/{sock_diag.h,inet_diag.h}; the numbers below are theirs.
from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from vedette.respond.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, messages
from vedette.text.addresses import Network, parse

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
_LISTEN, _TIME_WAIT, _SYN_RECV, _NEW_SYN_RECV = 10, 6, 3, 12
_ALIVE = 0xFFF & ~(1 << _LISTEN | 1 << _TIME_WAIT | 1 << _SYN_RECV)
_D_COND = 8
_FILTERED = 8
"""Up to so many targets the kernel filters for each; beyond, all sockets are listed once and compared here."""


def end_connections(networks: Sequence[Network]) -> int:
    """End every TCP connection with a peer in `networks`, in this network namespace; how many were ended.

    OSError EOPNOTSUPP where the kernel was built without SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY).
    """
    if not networks:
        return 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as connection:
        connection.settimeout(1.0)
        found: list[tuple[int, bytes]] = []
        if len(networks) <= _FILTERED:
            for network in networks:
                # A dual-stack listener (sshd on ::) has IPv4 peers as ::ffff:a.b.c.d in its AF_INET6 sockets.
                families = (socket.AF_INET, socket.AF_INET6) if network.version == 4 else (socket.AF_INET6,)
                for family in families:
                    found.extend(_list(connection, family, _condition(network)))
        else:
            found.extend(_among(networks, [*_list(connection, 2, b""), *_list(connection, 10, b"")]))
        return sum(_destroy(connection, family, identity) for family, identity in found)


def _request(kind: int, flags: int, family: int, identity: bytes, extra: bytes = b"") -> bytes:
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALIVE) + identity + extra
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body


def _condition(network: Network) -> bytes:
    """inet_diag_bc_op + inet_diag_hostcond: the peer lies in `network`."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    operand = struct.pack("=BBxxi", family, network.prefixlen, -1) + network.network_address.packed
    length = 4 + len(operand)
    code = struct.pack("=BBH", _D_COND, length, length + 4) + operand
    return struct.pack("=HH", 4 + len(code), 1) + code


def _list(connection: socket.socket, family: int, extra: bytes) -> Iterator[tuple[int, bytes]]:
    """(family, inet_diag_sockid) of each live socket the condition lets through."""
    connection.sendto(_request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, bytes(48), extra), (0, 0))
    while True:
        for kind, _, _, _, body in messages(connection.recv(1 << 17)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code in (0, errno.ENOENT):  # no IPv6 in this kernel
                    return
                raise OSError(code, os.strerror(code))
            if body[1] not in (_LISTEN, _TIME_WAIT, _SYN_RECV, _NEW_SYN_RECV):
                yield body[0], body[4:52]


def _among(networks: Sequence[Network], sockets: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    wanted = {(one.version, one.prefixlen, int(one.network_address)) for one in networks}
    lengths = {(one.version, one.prefixlen) for one in networks}
    for family, identity in sockets:
        peer = identity[20 : 20 + (4 if family == socket.AF_INET else 16)]
        address = parse(socket.inet_ntop(family, peer))
        if address is None:
            continue
        for version, length in lengths:
            shift = address.max_prefixlen - length
            if version == address.version and (version, length, int(address) >> shift << shift) in wanted:
                yield family, identity
                break


def _destroy(connection: socket.socket, family: int, identity: bytes) -> bool:
    connection.sendto(_request(SOCK_DESTROY, NLM_F_ACK, family, identity), (0, 0))
    for kind, _, _, _, body in messages(connection.recv(1 << 16)):
        if kind == NLMSG_ERROR:
            code = -int(struct.unpack_from("=i", body)[0])
            if code in (0, errno.ENOENT):  # it ended by itself meanwhile
                return code == 0
            raise OSError(code, os.strerror(code))
    return False

"""Netlink messages by hand: set elements in and out of the kernel in 0.02 ms, where the `nft` program takes 2.5 ms.
Counterpart: nftables.py says what to put in; the structure around the sets is made by `nft` itself."""

# netlink(7); linux/netfilter/{nfnetlink.h,nf_tables.h}; the numbers below are theirs.
from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NETLINK_NETFILTER = 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP, NLM_F_CREATE = 0x1, 0x4, 0x10, 0x300, 0x400
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFPROTO_INET = 1
GETRULE, GETSET, NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETOBJ = 7, 10, 12, 13, 14, 15, 19
NFTA_ELEM_KEY, NFTA_ELEM_TIMEOUT, NFTA_ELEM_EXPIRATION, NFTA_ELEM_EXPR, NFTA_ELEM_EXPRESSIONS = 1, 4, 5, 7, 11
NFT_OBJECT_COUNTER = 1
NFNLGRP_NFTABLES = 7
NESTED = 0x8000
ELEMENTS_PER_MESSAGE = 1000
"""An attribute's length has 16 bits: 1,600 IPv6 elements would be the most."""
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_BIG = struct.Struct(">Q")
_BUFFER = 1 << 24


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set: key as packed address, milliseconds left (0: for ever), packets and bytes dropped."""

    key: bytes
    left: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Change:
    """NEWSETELEM or DELSETELEM of these keys, each with its timeout in milliseconds (ignored when deleting)."""

    kind: int
    set: str
    elements: Sequence[tuple[bytes, int]]


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def _message(kind: int, flags: int, sequence: int, family: int, payload: bytes, resource: int = 0) -> bytes:
    body = struct.pack(">BBH", family, 0, resource) + payload
    return _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind without flags, payload) of each attribute."""
    at = 0
    while at + 4 <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        if length < 4:
            return
        yield kind & 0x3FFF, payload[at + 4 : at + length]
        at += length + 3 & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(kind, flags, sequence, port id, body) of each message in what one recv gave."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, sequence, port, data[at + 16 : at + length]
        at += length + 3 & ~3


class Netfilter:
    """One netlink socket for one table of family inet. Not thread-safe. Errors are OSError with the kernel's errno."""

    def __init__(self, table: str) -> None:
        self._table = _text(table)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        # A reply is there before send returns; waiting means that it was lost.
        self._socket.settimeout(1.0)
        for option in (32, 33):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE: a batch is one datagram; the plain limit is 200 KB
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            except PermissionError:
                continue  # without the capability every change fails anyway, and says so
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def change(self, changes: Iterable[Change]) -> None:
        """Make all changes in one transaction, or none."""
        begin = self._next()
        parts = [_message(BATCH_BEGIN, 0, begin, 0, b"", NFNL_SUBSYS_NFTABLES)]
        waiting = set()
        for change in changes:
            flags = NLM_F_ACK | (NLM_F_CREATE if change.kind == NEWSETELEM else 0)
            for at in range(0, len(change.elements), ELEMENTS_PER_MESSAGE):
                some = change.elements[at : at + ELEMENTS_PER_MESSAGE]
                body = (
                    _attribute(1, self._table)
                    + _attribute(2, _text(change.set))
                    + _attribute(3 | NESTED, b"".join(_element(key, left) for key, left in some))
                )
                sequence = self._next()
                waiting.add(sequence)
                parts.append(_message(NFNL_SUBSYS_NFTABLES << 8 | change.kind, flags, sequence, NFPROTO_INET, body))
        if not waiting:
            return
        end = self._next()
        parts.append(_message(BATCH_END, 0, end, 0, b"", NFNL_SUBSYS_NFTABLES))
        self._socket.sendto(b"".join(parts), (0, 0))
        failed = 0
        while waiting:
            for kind, _, sequence, _, body in messages(self._socket.recv(1 << 17)):
                if kind != NLMSG_ERROR or not begin <= sequence <= end:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                failed = failed or code
                waiting.discard(sequence)
                if sequence in (begin, end):
                    waiting.clear()  # the batch as a whole was refused
        if failed:
            raise OSError(failed, os.strerror(failed))

    def elements(self, name: str) -> list[Element]:
        """What is in a set now."""
        body = _attribute(1, self._table) + _attribute(2, _text(name))
        found: list[Element] = []
        for reply in self._dump(GETSETELEM, body):
            for kind, listed in attributes(reply):
                if kind == 3:
                    found.extend(_read_element(payload) for _, payload in attributes(listed))
        return found

    def sets(self) -> list[str]:
        """The names of the table's sets; none where there is no such table."""
        names = []
        for reply in self._dump(GETSET, _attribute(1, self._table)):
            values = dict(attributes(reply))
            if values.get(1) == self._table:
                names.append(values[2].rstrip(b"\0").decode())
        return names

    def rules(self, chain: str) -> int:
        """How many rules `chain` has."""
        body = _attribute(1, self._table) + _attribute(2, _text(chain))
        replies = (dict(attributes(reply)) for reply in self._dump(GETRULE, body))
        return sum(values.get(1) == self._table and values.get(2) == _text(chain) for values in replies)

    def counter(self, name: str) -> tuple[int, int]:
        """(packets, bytes) of a named counter; zeros where it is not there."""
        for reply in self._dump(GETOBJ, _attribute(1, self._table)):
            values = dict(attributes(reply))
            if values.get(1) == self._table and values.get(2) == _text(name):
                return _read_counter(values.get(4, b""))
        return 0, 0

    def _next(self) -> int:
        self._sequence = self._sequence + 1 & 0x7FFFFFFF or 1
        return self._sequence

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        for _ in range(5):
            sequence, replies, interrupted = self._next(), list[bytes](), False
            request = _message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_DUMP, sequence, NFPROTO_INET, body)
            self._socket.sendto(request, (0, 0))
            done = False
            while not done:
                for reply, flags, number, _, payload in messages(self._socket.recv(1 << 17)):
                    if number != sequence:
                        continue
                    interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                    if reply in (NLMSG_DONE, NLMSG_ERROR):
                        done, code = True, -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                        if code == errno.ENOENT:
                            return []
                        if code:
                            raise OSError(code, os.strerror(code))
                    else:
                        replies.append(payload[4:])
            if not interrupted:  # else the tables changed under us, and the answer is of two times
                return replies
        raise OSError(errno.EINTR, "the kernel's tables change faster than they can be read")


def _element(key: bytes, left: int) -> bytes:
    inside = _attribute(NFTA_ELEM_KEY | NESTED, _attribute(1, key))
    if left:
        inside += _attribute(NFTA_ELEM_TIMEOUT, _BIG.pack(left))
    return _attribute(1 | NESTED, inside)


def _read_element(payload: bytes) -> Element:
    values = dict(attributes(payload))
    (left,) = _BIG.unpack(values.get(NFTA_ELEM_EXPIRATION, bytes(8)))
    counted = values.get(NFTA_ELEM_EXPR)
    if counted is None:
        counted = next((one for _, one in attributes(values.get(NFTA_ELEM_EXPRESSIONS, b""))), b"")
    packets, size = _read_counter(dict(attributes(counted)).get(2, b""))
    return Element(dict(attributes(values[NFTA_ELEM_KEY]))[1], left, packets, size)


def _read_counter(payload: bytes) -> tuple[int, int]:
    values = dict(attributes(payload))
    (size,), (packets,) = _BIG.unpack(values.get(1, bytes(8))), _BIG.unpack(values.get(2, bytes(8)))
    return packets, size


class Monitor:
    """Hears of every change of nftables in this network namespace; `ours` are the port ids whose changes we made."""

    def __init__(self, table: str, ours: int) -> None:
        self._table, self._ours = _text(table), ours
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << NFNLGRP_NFTABLES - 1))
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)
        except PermissionError:
            return  # a smaller buffer overflows sooner, which is answered by looking

    def fileno(self) -> int:
        """For poll(2): readable when something changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def changed(self) -> bool:
        """Whether anybody but us touched our table since the last call, or so much happened that we cannot tell."""
        touched = False
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return touched
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                touched = True
                continue
            for kind, _, _, port, body in messages(data):
                if port != self._ours and kind & 0xFF != NEWGEN and len(body) > 4 and body[0] == NFPROTO_INET:
                    touched = touched or dict(attributes(body[4:])).get(1) == self._table

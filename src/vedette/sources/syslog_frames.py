"""Cuts what a syslog sender writes on a connection into records, octet-counted or ended by a newline (RFC 6587).
Counterpart: syslog.py reads the connections and feeds it; `parsers.syslog` reads the records."""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"([1-9]\d{0,6}) ")
"""MSG-LEN SP (RFC 6587, 3.4.1). A line that begins with more digits, or with a 0, is a line."""
_BEGUN = re.compile(rb"[1-9]\d{0,6}\Z")
_COUNTED = re.compile(rb"\n[1-9]")


def datagram(data: bytes) -> bytes:
    """The record of a datagram (RFC 5426, 3.1): all of it, without the line end or NUL that old senders add."""
    return data.rstrip(b"\r\n\0")


class Frames:
    """One connection. The records depend on the bytes alone, not on how they were cut into `feed` calls.

    Each frame says by its first octets how it ends: `MSG-LEN SP` or not. A record above `limit` bytes is cut there and
    its rest passed over. Empty records are none. too_long: how many were cut since the owner last took that to account.
    cut_off: `finish` found a frame that had begun and not ended.
    """

    __slots__ = ("_carry", "_left", "_limit", "_line", "_skipping", "_until", "cut_off", "too_long")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._carry = bytearray()
        self._until = 0
        """With fewer bytes than this nothing can be cut off the carry, save a line by its newline."""
        self._line = False
        self._left = 0
        """Octets of an overlong counted frame still to be passed over."""
        self._skipping = False
        """The rest of an overlong line is being passed over."""
        self.too_long = 0
        self.cut_off = False

    def __len__(self) -> int:
        """Bytes held back."""
        return len(self._carry)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; the records that became complete by them."""
        if self._carry:
            # A sender of single bytes must not make us look at all of them again for each.
            if len(self._carry) + len(data) < self._until and not (self._line and b"\n" in data):
                self._carry += data
                return []
            data = bytes(self._carry) + data
            self._carry.clear()
        records: list[bytes] = []
        at = 0
        while at < len(data):
            after = self._pass_over(data, at) if self._left or self._skipping else self._next(data, at, records)
            if after == at:
                break
            at = after
        self._carry += data[at:]
        return records

    def finish(self) -> list[bytes]:
        """The connection has ended: what there is of a last record, too."""
        rest = bytes(self._carry)
        self._carry.clear()
        self.cut_off = bool(self._left or self._skipping or rest)
        if rest and (match := _LENGTH.match(rest)):
            rest = rest[match.end() :]
        return self._kept([rest.removesuffix(b"\r")])

    def _pass_over(self, data: bytes, at: int) -> int:
        if self._left:
            passed = min(self._left, len(data) - at)
            self._left -= passed
            return at + passed
        end = data.find(b"\n", at)
        self._skipping = end < 0
        return len(data) if end < 0 else end + 1

    def _next(self, data: bytes, at: int, records: list[bytes]) -> int:
        """Where the run of frames of one kind that begins at `at` ends; `at` where more is needed to tell."""
        begun = at
        while match := _LENGTH.match(data, at):
            end = match.end() + int(match[1])
            if end > len(data) or int(match[1]) > self._limit:
                break
            if record := data[match.end() : end].removesuffix(b"\n").removesuffix(b"\r"):
                records.append(record)
            at = end
        if at > begun:
            return at
        if match:
            size, begin = int(match[1]), match.end()
            kept = min(size, self._limit)
            if len(data) - begin < kept:
                self._wait(begin - at + kept)
                return at
            self.too_long += 1
            self._left = size - kept
            records.append(data[begin : begin + kept])
            return begin + kept
        if _BEGUN.match(data, at):
            self._wait(len(data) - at + 1)
            return at
        counted = _COUNTED.search(data, at)
        end = counted.start() if counted else data.rfind(b"\n", at)
        if end >= at:
            records += self._kept([line.removesuffix(b"\r") for line in data[at:end].split(b"\n")])
            return end + 1
        # The last byte may be the CR of a CRLF.
        if len(data) - at > self._limit + 1:
            records += self._kept([data[at:]])
            self._skipping = True
            return len(data)
        self._wait(self._limit + 2, line=True)
        return at

    def _wait(self, until: int, *, line: bool = False) -> None:
        self._until, self._line = until, line

    def _kept(self, texts: list[bytes]) -> list[bytes]:
        limit = self._limit
        if max(map(len, texts)) > limit:
            self.too_long += sum(len(text) > limit for text in texts)
            texts = [text[:limit] for text in texts]
        return [text for text in texts if text]

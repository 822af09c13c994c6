"""Cuts what a RELP sender writes into frames, and writes the answers (librelp, doc/relp.md).
Counterpart: relp.py reads the connections and answers; `parsers.syslog` reads the records."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(rb"(0|[1-9]\d{0,8}) ([a-zA-Z]{1,32}) (\d{1,9})([ \n])")
_MOST_HEAD = 9 + 1 + 32 + 1 + 9 + 1


class FrameError(ValueError):
    """What came is no RELP frame; nothing after it can be understood."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. cut: its data was above the limit, and the rest was passed over."""

    txnr: int
    command: bytes
    data: bytes
    cut: bool = False


class RelpFrames:
    """One connection. The frames depend on the bytes alone, not on how they were cut into `feed` calls.

    No more than `limit` bytes of a frame are held.
    """

    __slots__ = ("_buffer", "_head", "_kept", "_limit", "_passed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._head: tuple[int, bytes, int] | None = None
        self._kept = b""
        self._passed = 0
        """Octets of an overlong frame that are gone already, the kept ones included."""

    @property
    def begun(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer) or self._head is not None

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; the frames that became complete by them. FrameError where it is none."""
        self._buffer += data
        frames: list[Frame] = []
        while self._buffer or (self._head is not None and not self._head[2]):
            frame = self._next()
            if frame is None:
                break
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if self._head is None:
            match = _HEAD.match(self._buffer)
            if match is None:
                if len(self._buffer) > _MOST_HEAD or b"\n" in self._buffer[:_MOST_HEAD]:
                    raise FrameError("no frame header")
                return None
            size = int(match[3])
            if match[4] == b"\n" and size:
                raise FrameError("data is missing")
            self._head = int(match[1]), bytes(match[2]), size
            # The newline of a frame without data is its trailer.
            del self._buffer[: match.end() - (match[4] == b"\n")]
        txnr, command, size = self._head
        if size > self._limit and not self._passed:
            if len(self._buffer) < self._limit:
                return None
            self._kept = bytes(self._buffer[: self._limit])
        if size > self._limit:
            gone = min(size - self._passed, len(self._buffer))
            del self._buffer[:gone]
            self._passed += gone
            if self._passed < size or not self._buffer:
                return None
            data, end = self._kept, 0
        else:
            if len(self._buffer) <= size:
                return None
            data, end = bytes(self._buffer[:size]), size
        if self._buffer[end] != 10:
            raise FrameError("no newline behind the data")
        del self._buffer[: end + 1]
        self._head, self._kept, self._passed = None, b"", 0
        return Frame(txnr, command, data, size > self._limit)


def answer(txnr: int, text: bytes) -> bytes:
    """A `rsp` frame."""
    return b"%d rsp %d %s\n" % (txnr, len(text), text)


SERVER_CLOSE = b"0 serverclose 0\n"

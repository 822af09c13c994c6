"""Cuts JSON that is not one object a line into its objects: pretty-printed, one after the other, or in arrays.
Counterpart: `app.replay` feeds it files; `parsers.json` reads the objects one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

# A string is one token however many braces it holds; possessive, so that it costs no more than its length.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+("?)|[{}\[\]]|[^\s,"{}\[\]]++', re.DOTALL)
_WRAPPED = re.compile(rb'\{\s*"(?:Records|value|Events)"\s*:\s*\[')
_WRAPPER = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _OPEN = b'"{'


@dataclass(frozen=True, slots=True)
class Found:
    """One object. line: where it begins, 1-based. cut: bytes beyond the limit were left out."""

    record: bytes
    line: int
    cut: bool = False


def is_lines(head: bytes) -> bool:
    """Whether a JSON file that begins with `head` has one object a line; of wrapped records the object is none."""
    line = head.removeprefix(_BYTE_ORDER_MARK).strip().partition(b"\n")[0].strip()
    if _WRAPPED.match(line):
        return False
    try:
        return type(orjson.loads(line)) is dict
    except orjson.JSONDecodeError:
        # A first line longer than what was read begins an object that does not end soon.
        return b"\n" not in head.strip() and line.startswith(b'{"')


class ObjectSplitter:
    """Finds objects in a stream; the same ones however it is cut. Members of arrays are objects of their own.

    So are those of an object that only wraps them (`{"Records": [...]}`). What stands between objects and is no JSON
    is a record by itself, up to the end of its line. limit: bytes of an object that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = b""
        self._line = 1
        # Where the open object begins and how far it was searched, in `held`; -1: none is open.
        self._start, self._at, self._depth = -1, 0, 0
        self._start_line = 0
        self._overlong = b""
        self._begun = False

    def feed(self, data: bytes, *, last: bool = False) -> list[Found]:
        """Take the next bytes; the objects that ended in them. last: nothing follows."""
        held = self._held + data
        if not self._begun and len(held) >= len(_BYTE_ORDER_MARK):
            held, self._begun = held.removeprefix(_BYTE_ORDER_MARK), True
        found: list[Found] = []
        at, end = self._at, len(held)
        while (token := _TOKEN.search(held, at)) is not None:
            start, stop = token.span()
            first = held[start]
            if first == _QUOTE and not token[1] and not last:
                # A string that has not ended; one longer than a record may be is none that could be kept.
                at = start if end - start <= self._limit else start + 1
                if at == start:
                    break
                continue
            if self._start >= 0:
                self._depth += (first in b"{[") - (first in b"}]")
                at = stop
                if not self._depth:
                    found.append(self._record(held, stop))
                continue
            if first == _OPEN:
                if not last and end - start < _WRAPPER:
                    at = start
                    break
                wrapped = _WRAPPED.match(held, start)
                at = wrapped.end() if wrapped else stop
                if not wrapped:
                    self._start, self._depth, self._start_line = start, 1, self._line + held.count(b"\n", 0, start)
            elif first in b"}[]":
                at = stop
            else:
                # Nothing begins here that could be read: the rest of the line is a record.
                newline = held.find(b"\n", start)
                if newline < 0 and not last and end - start <= self._limit:
                    at = start
                    break
                self._start, self._start_line = start, self._line + held.count(b"\n", 0, start)
                at = newline if newline >= 0 else end
                found.append(self._record(held, at))
        else:
            at = end
        if last and self._start >= 0:
            found.append(self._record(held, end))
        self._hold(held, at)
        return found

    def _record(self, held: bytes, end: int) -> Found:
        text = self._overlong + held[self._start : end].rstrip()
        self._overlong, self._start = b"", -1
        return Found(text[: self._limit], self._start_line, len(text) > self._limit)

    def _hold(self, held: bytes, at: int) -> None:
        """Hold back what is needed further; of an overlong object only its beginning."""
        begin = self._start if self._start >= 0 else at
        if at - begin > self._limit:
            self._overlong = self._overlong or held[begin : begin + self._limit + 1]
            begin = at
        self._line += held.count(b"\n", 0, begin)
        self._held, self._at = held[begin:], at - begin
        self._start = 0 if self._start >= 0 else -1

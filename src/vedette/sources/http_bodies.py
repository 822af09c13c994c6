"""Bodies of requests: unpacked within bounds, and cut into JSON records without a byte changed.
Counterpart: http.py takes the records, otlp.py unpacks with the same; http_server.py reads bodies."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import msgspec

MOST_PARTS = 1_000_000
"""Lines, members or fields of a body: each costs memory, however short it is."""
_PIECE = 1 << 18
_GZIP = 31
"""zlib's wbits for gzip alone."""
_SPACE = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"


class BodyError(Exception):
    """A body that cannot be read. The text says why, in our words alone."""


class BodyTooLargeError(Exception):
    """A body that unpacks to more than is taken."""


@dataclass(slots=True)
class Records:
    """What a body holds. too_long: how many were cut; refused: lines or elements that are no JSON object."""

    records: list[bytes] = field(default_factory=list)
    too_long: int = 0
    refused: int = 0


def unpacked(body: bytes, most: int) -> bytes:
    """What gzip packed (RFC 1952, also several members); never makes more than `most` bytes and one piece."""
    parts: list[bytes] = []
    size = 0
    while body:
        stream = zlib.decompressobj(_GZIP)
        try:
            while not stream.eof:
                part = stream.decompress(body, _PIECE)
                body = stream.unconsumed_tail
                size += len(part)
                if size > most:
                    raise BodyTooLargeError
                parts.append(part)
                if not part and not body and not stream.eof:
                    raise BodyError("gzip ends in the middle")
        except zlib.error:
            raise BodyError("not gzip") from None
        # Some writers fill up with zeros.
        body = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def records_of(body: bytes, max_record: int) -> Records:
    """The JSON objects of a body: one object, an array of them, or one a line. BodyError where an array is broken.

    BodyTooLargeError where it has too many parts.
    """
    body = body.removeprefix(_MARK).strip(_SPACE)
    array = body.startswith(b"[")
    if body.count(b"," if array else b"\n") > MOST_PARTS:
        raise BodyTooLargeError
    if array:
        try:
            parts = [bytes(memoryview(part)) for part in msgspec.json.decode(body, type=list[msgspec.Raw])]
        except (msgspec.MsgspecError, RecursionError):
            raise BodyError("not a JSON array") from None
    elif b"\n" not in body or _one(body):
        parts = [body] if body else []
    else:
        parts = [line for line in (line.strip(_SPACE) for line in body.split(b"\n")) if line]
    made = Records()
    for part in parts:
        if not (part.startswith(b"{") and part.endswith(b"}")):
            made.refused += 1
            continue
        made.too_long += len(part) > max_record
        made.records.append(part[:max_record])
    return made


def _one(body: bytes) -> bool:
    """Whether it is one object over several lines."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True

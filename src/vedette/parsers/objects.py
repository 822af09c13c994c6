"""JSON text of records made objects: fast where it is plain, without loss where it is not.
Counterpart: `parsers.lenses` takes the objects apart; `parsers.json` counts what was no JSON."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from vedette.model.batch import Batch, Int64
from vedette.text.escape import decode

Json = dict[str, Any]

_EXACT = 1 << 63
_DEEPEST = 256
# A member's name is followed by a colon, nearly always at once; inside a string the quote is escaped.
_NAME = int.from_bytes(b'":', "little")
_ESCAPE = int.from_bytes(b"\\u", "little")
_BACKSLASH = 0x5C
_RESERVED = b"\xf4\x8f"
_SURROGATE = re.compile(rb"\\u[dD][bB][fF][fF]")
# The same characters written as escapes, after an even number of backslashes.
_PAIR = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][bB][fF][fF]\\u[dD][fF]([0-9a-fA-F]{2})")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def may_need_care(block: bytes) -> bool:
    """Whether characters that stand for bytes that are no UTF-8 may be in a block, as such or escaped."""
    if not block.isascii() and _RESERVED in block:
        return True
    places = _pairs(block, _ESCAPE)
    if not len(places):
        return False
    raw = np.frombuffer(block, dtype=np.uint8)
    places = places[places < len(raw) - 5]
    fitting = np.ones(len(places), dtype=np.bool_)
    for offset, letter in enumerate(b"dbff", 2):
        fitting &= raw[places + offset] | 0x20 == letter
    return bool(fitting.any())


def _pairs(raw: bytes, wanted: int) -> Int64:
    """Where two bytes, told as one little-endian word, stand side by side; in no order."""
    halves = []
    for shift in (0, 1):
        words = np.frombuffer(raw, dtype="<u2", count=max(len(raw) - shift, 0) // 2, offset=min(shift, len(raw)))
        halves.append(2 * np.flatnonzero(words == wanted) + shift)
    found: Int64 = np.concatenate(halves)
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Without cyclic garbage collection: thousands of new objects would set it off, and none of them is garbage."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_object(record: bytes) -> Json | None:
    """One record; None where it is no JSON object."""
    try:
        value = orjson.loads(record)
    except orjson.JSONDecodeError:
        value = read_careful(record)
    else:
        if needs_care(record):
            value = read_careful(record)
    return value if type(value) is dict else None


def needs_care(record: bytes) -> bool:
    """Whether a record holds such a character."""
    return _RESERVED in record or _SURROGATE.search(record) is not None


def read_careful(record: bytes) -> object:
    """A record with bytes that are no UTF-8, lone surrogates, NaN or numbers beyond 64 bits; None where it is no JSON.

    Such bytes come out as `text.escape.decode` makes them (decision 0004), a lone surrogate as the three bytes that
    would encode it.
    """
    plain = _PAIR.sub(lambda pair: pair[1] + chr(0x10FF00 + int(pair[2], 16)).encode(), record)
    try:
        return _repaired(json.loads(decode(plain.removeprefix(_BYTE_ORDER_MARK)), parse_int=_integer), 0)
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | str:
    """Beyond 64 bits its digits as text: the same to every test, and nothing on the way must know such numbers."""
    if len(digits) > 20:
        return digits
    number = int(digits)
    return number if -_EXACT <= number < 2 * _EXACT else digits


def _repaired(value: object, depth: int) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if depth >= _DEEPEST:
        return value
    if isinstance(value, list):
        return [_repaired(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_text(name): _repaired(item, depth + 1) for name, item in value.items()}
    return value


def _text(text: str) -> str:
    """Lone surrogates as bytes that are no UTF-8; what `decode` made of such bytes stays."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(
            decode(character.encode("utf-8", "surrogatepass")) if "\ud800" <= character <= "\udfff" else character
            for character in text
        )
    return text


def exact_number(number: float) -> bool:
    """Whether a float can be what was written: larger integers come as floats that lost digits."""
    return -_EXACT < number < _EXACT


def json_text(value: object) -> str:
    """An object or list as JSON text without spaces, as tests that look into one see it."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, UnicodeError, RecursionError):
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return ""


def names_in(raw: bytes) -> int:
    """How many names of members a JSON text has: quotes with a colon behind them that are not within a string.

    Exact where each colon follows its name at once; of others none is counted.
    """
    return len(_name_places(raw))


def _name_places(raw: bytes) -> Int64:
    """Where the colons are, in no order."""
    found = _pairs(raw, _NAME)
    before = np.frombuffer(raw, dtype=np.uint8)[np.maximum(found - 1, 0)]
    places: Int64 = found[(before != _BACKSLASH) | (found == 0)]
    return places


def names_by_record(batch: Batch) -> Int64:
    """int64[n]: `names_in` each record."""
    places = np.sort(_name_places(batch.block))
    found: Int64 = np.searchsorted(places, batch.ends) - np.searchsorted(places, batch.starts)
    return found


def names_twice(raw: bytes) -> bool:
    """Whether an object of a JSON text has a name twice; slow and exact."""
    twice = False

    def count(pairs: list[tuple[str, object]]) -> None:
        nonlocal twice
        twice |= len(pairs) > len({name for name, _ in pairs})

    try:
        json.loads(decode(raw.removeprefix(_BYTE_ORDER_MARK)), object_pairs_hook=count)
    except (ValueError, RecursionError):
        return False
    return twice

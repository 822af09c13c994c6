"""JSON text of records made objects: fast where it is plain, without loss where it is not.
Counterpart: `parsers.frames` reads the objects by columns; `parsers.json` counts what was no JSON."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from vedette.model.batch import Batch
from vedette.text.escape import decode

Json = dict[str, Any]

_EXACT = 1 << 63
_DEEPEST = 256
# A member's name is followed by a colon, nearly always at once; inside a string the quote is escaped.
_NAME, _SPACED, _ESCAPED = b'":', b'" :', b'\\":'
_COLON, _SPACE, _QUOTE, _BACKSLASH = b': "\\'
_RESERVED = b"\xf4\x8f"
_SURROGATE = re.compile(rb"\\u[dD][bB][fF][fF]")
# The same characters written as escapes, after an even number of backslashes.
_PAIR = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][bB][fF][fF]\\u[dD][fF]([0-9a-fA-F]{2})")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Objects:
    """The objects of a batch. rows: which records they are, all others are no JSON object.

    duplicates: records that name a member twice; the last one holds. Exact where names are followed by their colon at
    once or after one space; other spellings of hand-written JSON may hide one from the count.
    """

    rows: list[int] = field(default_factory=list)
    objects: list[Json] = field(default_factory=list)
    duplicates: int = 0


def read_objects(batch: Batch) -> Objects:
    """Every record of `batch` that is one JSON object; never raises."""
    block = batch.block
    out = Objects()
    rows, objects = out.rows, out.objects
    loads, failure = orjson.loads, orjson.JSONDecodeError
    careful = _may_need_care(block)
    with _no_collection():
        for row, (start, end) in enumerate(zip(batch.starts.tolist(), batch.ends.tolist(), strict=True)):
            record = block[start:end]
            try:
                value = loads(record)
            except failure:
                value = read_careful(record)
            else:
                if careful and _needs_care(record):
                    value = read_careful(record)
            if type(value) is dict:
                rows.append(row)
                objects.append(value)
    out.duplicates = _duplicates(batch, out)
    return out


def _may_need_care(block: bytes) -> bool:
    """Whether characters that stand for bytes that are no UTF-8 may be in a block, as such or escaped."""
    if not block.isascii() and _RESERVED in block:
        return True
    return _pairs(block, b"\\u") > 0 and _needs_care(block)


def _pairs(block: bytes, pair: bytes) -> int:
    """How often two different bytes stand side by side."""
    wanted = int.from_bytes(pair, "little")
    found = 0
    for shift in (0, 1):
        words = np.frombuffer(block, dtype="<u2", count=max(len(block) - shift, 0) // 2, offset=min(shift, len(block)))
        found += int(np.count_nonzero(words == wanted))
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
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
        if _needs_care(record):
            value = read_careful(record)
    return value if type(value) is dict else None


def _needs_care(record: bytes) -> bool:
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
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts: the text says the same
        return digits


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


def _duplicates(batch: Batch, found: Objects) -> int:
    """How many records name a member twice: names written against names kept, ever closer where they differ."""
    block = batch.block
    if len(found.rows) == len(batch) and _pairs(block, _NAME) == sum(map(len, found.objects)):
        return 0
    # Names by record; an object within an object has names that `len` does not count, so those are written anew.
    raw = np.frombuffer(block, dtype=np.uint8)
    colons = np.flatnonzero(raw == _COLON)
    before, earlier = raw[np.maximum(colons - 1, 0)], raw[np.maximum(colons - 2, 0)]
    spaced = (before == _SPACE) & (earlier == _QUOTE)
    names = colons[((before == _QUOTE) & (earlier != _BACKSLASH)) | spaced]
    rows = np.array(found.rows, dtype=np.int64)
    written = np.searchsorted(names, batch.ends[rows]) - np.searchsorted(names, batch.starts[rows])
    flat = np.fromiter(map(len, found.objects), dtype=np.int64, count=len(found.objects))
    unsure = np.flatnonzero(written != flat)
    nested = [found.objects[place] for place in unsure.tolist()]
    if int(written[unsure].sum()) == _names_kept(nested):
        return 0
    return sum(_twice(batch.raw(found.rows[place]), found.objects[place]) for place in unsure.tolist())


def _names_kept(objects: list[Json]) -> int:
    """Names of these objects and of all within."""
    try:
        text = orjson.dumps(objects)
    except orjson.JSONEncodeError:
        text = json_text(objects).encode("utf-8", "replace")
    return _pairs(text, _NAME) - (text.count(_ESCAPED) if _ESCAPED in text else 0)


def _twice(raw: bytes, value: Json) -> bool:
    if raw.count(_NAME) + raw.count(_SPACED) - raw.count(_ESCAPED) == _names_kept([value]):
        return False
    twice = False

    def count(pairs: list[tuple[str, object]]) -> None:
        nonlocal twice
        twice |= len(pairs) > len({name for name, _ in pairs})

    try:
        json.loads(decode(raw), object_pairs_hook=count)
    except (ValueError, RecursionError):
        return False
    return twice

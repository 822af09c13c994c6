"""Spans of a block of audit records, many at once: words by beginning, several values of one event, hidden texts.
Counterpart: `parsers.audit` makes columns of them; `audit_values` says the same of one record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vedette.model.batch import Batch, Bool, Int32, Int64, UInt8
from vedette.model.events import Texts
from vedette.parsers import audit_values as meaning
from vedette.parsers.columns import Block, UInt64, distinct, keep, not_hexadecimal, up_to
from vedette.text.escape import decode

_BEGINNINGS = 16_384
_MANY = 8
"""Events with more values of one field are taken one by one: whoever is watched may choose how many there are."""


_SPACES = " \n\x1d\r"
"""What stands between words: values with spaces are written in hexadecimal, so that a space ends one everywhere."""


def _letters(letters: str) -> Bool:
    """bool[256]: which bytes are one of these."""
    out = np.zeros(256, dtype=np.bool_)
    out[list(letters.encode())] = True
    return out


_SPACE = _letters(_SPACES)


def words_within(batch: Batch, raw: UInt8) -> tuple[Int64, Int64, Int64]:
    """Where the words of all records begin and end, and the row of each; in order. raw: the bytes of the block."""
    breaks = np.flatnonzero(raw <= 0x20)
    apart = _SPACE[raw[breaks]]
    if not apart.all():
        breaks = breaks[apart]
    begins = batch.starts[batch.ends > batch.starts]
    # Every record begins a word, also one that no space stands before.
    unbroken = begins[(begins == 0) | ~_SPACE[raw[begins - 1]]]
    starts = breaks + 1
    if len(unbroken):
        starts = np.sort(np.concatenate((unbroken, starts)), kind="stable")
    ends = np.append(starts[1:] - 1, len(raw))
    firsts, stops = np.searchsorted(starts, batch.starts), np.searchsorted(starts, batch.ends)
    counts = stops - firsts
    there = np.flatnonzero(counts)
    # The last word of a record ends with it, unless that is a space.
    whole = there[~_SPACE[raw[batch.ends[there] - 1]]]
    ends[stops[whole] - 1] = batch.ends[whole]
    rows = np.repeat(np.arange(len(batch), dtype=np.int64), counts)
    if len(counts) and (firsts[1:] == stops[:-1]).all():
        # Nearly always: no word is of no record.
        own = slice(int(firsts[0]), int(stops[-1]))
        return starts[own], ends[own], rows
    places = np.arange(len(rows)) + np.repeat(firsts - np.cumsum(counts) + counts, counts)
    return starts[places], ends[places], rows


class Beginnings(NamedTuple):
    """Words by what stands there up to an equals sign (in eight bytes): `found[codes[i]]` of word i.

    order: places of the words in the order of their beginnings; bounds: where in it each beginning begins and ends.
    """

    order: Int64
    bounds: dict[int, tuple[int, int]]
    codes: Int32
    found: UInt64


def by_beginning(words: UInt64) -> Beginnings | None:
    """None where there are so many beginnings that it is not worth while."""
    codes, beginnings = distinct(up_to(words, b"="), few=True)
    if len(beginnings) > _BEGINNINGS:
        return None
    # Sorting 16 bits is a radix sort.
    order = np.argsort(codes.astype(np.uint8 if len(beginnings) <= 256 else np.int16), kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(codes, minlength=len(beginnings)))).tolist()
    return Beginnings(order, dict(zip(beginnings.tolist(), pairwise(bounds), strict=True)), codes, beginnings)


def together(rows: Int64, codes: Int32) -> tuple[Int64, Int32, list[tuple[int, ...]]]:
    """Rows that come several times in a row, once each, with a code for their codes in order; and what these are."""
    firsts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    counts = np.diff(np.append(firsts, len(rows)))
    found, runs = distinct(codes[firsts].astype(np.uint64))
    shapes: list[tuple[int, ...]] = [(code,) for code in runs.tolist()]
    many = counts > _MANY
    for place in range(1, int(counts[~many].max(initial=1))):
        some = np.flatnonzero((counts > place) & ~many)
        following = codes[firsts[some] + place].astype(np.uint64)
        more, pairs = distinct(found[some].astype(np.uint64) << np.uint64(32) | following)
        found[some] = more + np.int32(len(shapes))
        shapes += [(*shapes[pair >> 32], pair & 0xFFFFFFFF) for pair in pairs.tolist()]
    for at in np.flatnonzero(many).tolist():
        found[at] = len(shapes)
        shapes.append(tuple(codes[firsts[at] : firsts[at] + counts[at]].tolist()))
    return rows[firsts], found, shapes


# ---------------------------------------------------------------------------------------------- texts


_DIGITS = "0123456789ABCDEF"
_NO_DIGIT = 16
_HEX_VALUE: UInt8 = np.full(256, _NO_DIGIT, dtype=np.uint8)
_HEX_VALUE[list(_DIGITS.encode())] = range(16)
_NAME = re.compile(rb"[a-z_]\w*")
_NONE, _FURTHER = -1, 8
_QUOTE = ord('"')
_MARKS = b"'\t\v\f"
_SIX = re.compile(rb"=[0-9A-F]{6}")


def gathered(raw: UInt8, starts: Int64, ends: Int64) -> UInt8:
    """The bytes of some spans, one after the other."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return raw[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))]


def joined(texts: Sequence[bytes], rows: Sequence[int]) -> Texts:
    """Texts of these rows, a line end between them."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    return Texts(b"\n".join(texts), starts, starts + lengths, np.array(rows, dtype=np.int64))


def hidden_texts(
    batch: Batch, block: Block, begun: Int64, ended: Int64, owners: Int64, beginnings: Beginnings | None
) -> Texts:
    """What `meaning.hidden` finds.

    begun, ended: where words begin, in order, and end; owners: the row of each; beginnings: theirs.
    """
    raw = np.frombuffer(batch.block, dtype=np.uint8)
    words, signs, long = _signs(block, begun, ended, beginnings)
    good = begun[words] > batch.starts[owners[words]]
    good &= (raw[np.maximum(begun[words] - 1, 0)] == 0x20) & (raw[np.minimum(ended[words], len(raw) - 1)] != 0x1D)
    words, signs = words[good], signs[good]
    out, lengths, good = unhexed(raw, signs + 1, ended[words])
    rows = owners[words[good]]
    starts = np.cumsum(lengths + 1) - lengths - 1
    texts, of = [], []
    for word in _odd(batch.block, raw, begun, ended, long):
        begin, end, row = int(begun[word]), int(ended[word]), int(owners[word])
        first, last = int(batch.starts[row]), int(batch.ends[row])
        for text in meaning.hidden_in(batch.block, max(begin - 1, first), min(end + 1, last)):
            texts.append(text)
            of.append(row)
    rest = joined(texts, of)
    return Texts(
        out.tobytes() + rest.block,
        np.concatenate((starts, rest.starts + len(out))),
        np.concatenate((starts + lengths, rest.ends + len(out))),
        np.concatenate((rows, rest.rows)),
    )


def _signs(block: Block, begun: Int64, ended: Int64, beginnings: Beginnings | None) -> tuple[Int64, Int64, Int64]:
    """Words that may be a name, a sign and digits alone, with the places of their signs.

    Beside them words with so long a name that it was not looked at.
    """
    if beginnings is None:
        ahead = np.full(len(begun), _FURTHER, dtype=np.int64)
    else:
        ahead = np.array([*map(_sign_in, beginnings.found.tolist()), _NONE], dtype=np.int64)[beginnings.codes]
    signs = begun + ahead
    digits = ended - signs - 1
    # As many digits as whole bytes have, at least three of these.
    near = np.flatnonzero((ahead >= 0) & (ahead < _FURTHER) & (digits >= 6) & (digits & 1 == 0))
    further = np.flatnonzero((ahead == _FURTHER) & (ended - begun >= len("a=414141")))
    found, unknown = block.find(b"=", begun[further], ended[further])
    digits = ended[further] - found - 1
    good = (digits >= 6) & (digits & 1 == 0)
    long = further[:0]
    if unknown is not None:
        good &= ~unknown
        long = further[unknown]
    further, found = _before_digits(block, further[good], found[good])
    codes, names = block.encode(begun[further], found)
    named = np.array([_NAME.fullmatch(name) is not None for name in names], dtype=np.bool_)[codes]
    near, places = _before_digits(block, near, signs[near])
    words, places = np.concatenate((near, further[named])), np.concatenate((places, found[named]))
    order = np.argsort(words, kind="stable")
    return words[order], places[order], long


def _before_digits(block: Block, words: Int64, signs: Int64) -> tuple[Int64, Int64]:
    """Those of them with six digits behind the sign."""
    there = not_hexadecimal(block.word(signs + 1)) & keep(6) == 0
    return words[there], signs[there]


def _sign_in(beginning: int) -> int:
    """How far behind its beginning the sign of a word stands; _NONE where no name does before it."""
    name, sign, _ = beginning.to_bytes(8, "little").partition(b"=")
    if not _NAME.fullmatch(name):
        return _NONE
    return len(name) if sign else _FURTHER


def unhexed(raw: UInt8, starts: Int64, ends: Int64) -> tuple[UInt8, Int64, Bool]:
    """The bytes that spans of an even number of digits mean, NUL as a space, and behind those of each a line end.

    Also the lengths without it, and which of the spans these are: those that are digits alone.
    """
    lengths = (ends - starts) >> 1
    values = _HEX_VALUE[gathered(raw, starts, ends)]
    good = np.ones(len(lengths), dtype=np.bool_)
    if len(values) and int(values.max()) == _NO_DIGIT:
        good = np.maximum.reduceat(values, 2 * (np.cumsum(lengths) - lengths)) < _NO_DIGIT
        values = values[np.repeat(good, 2 * lengths)]
        lengths = lengths[good]
    found = values[0::2] << 4 | values[1::2]
    found[found == 0] = 0x20
    out = np.full(len(found) + len(lengths), 0x0A, dtype=np.uint8)
    out[np.arange(len(found)) + np.repeat(np.arange(len(lengths)), lengths)] = found
    return out, lengths, good


def unhexed_texts(block: bytes, starts: Int64, ends: Int64) -> tuple[list[str], Bool]:
    """As `meaning.title` has it the texts of spans that are digits alone, and which of the spans these are."""
    raw = np.frombuffer(block, dtype=np.uint8)
    # Both halves of a last byte that is NUL: NULs at the end are no part of a title.
    good = (raw[ends - 1] != 0x30) | (raw[ends - 2] != 0x30)
    out, lengths, digits = unhexed(raw, starts[good], ends[good])
    good[good] = digits
    ending = np.cumsum(lengths + 1)
    told = out.tobytes()
    bounds = zip((ending - lengths - 1).tolist(), (ending - 1).tolist(), strict=True)
    if told.isascii():
        text = told.decode()
        return [text[begin:end] for begin, end in bounds], good
    return [decode(told[begin:end]) for begin, end in bounds], good


def all_quoted(block: Block, starts: Int64, ends: Int64) -> bool:
    """Whether quotes stand round all of these spans."""
    if not (ends - starts > 1).all():
        return False
    return bool((block.byte(starts) == _QUOTE).all() and (block.byte(ends - 1) == _QUOTE).all())


def decoded(words: Sequence[bytes]) -> list[str]:
    """`decode` of each of these words, which hold no line end."""
    whole = b"\n".join(words)
    return whole.decode().split("\n") if whole.isascii() and words else list(map(decode, words))


def _odd(block: bytes, raw: UInt8, begun: Int64, ended: Int64, long: Int64) -> list[int]:
    """The words in which a text may stand elsewhere: behind a quote, or before one or what is a space to a pattern.

    long: words that are looked at anyhow.
    """
    places = np.concatenate([begun[long], *(np.flatnonzero(raw == mark) for mark in _MARKS if mark in block)])
    if not len(places) or not len(begun):
        return []
    places.sort()
    words = np.searchsorted(begun, places, side="right") - 1
    words = words[(words >= 0) & (places < ended[words])]
    words = words[np.diff(words, prepend=-1) != 0]
    if not _SIX.search(gathered(raw, begun[words], ended[words]).tobytes()):
        return []
    spans = zip(words.tolist(), begun[words].tolist(), ended[words].tolist(), strict=True)
    return [word for word, begin, end in spans if _SIX.search(block, begin, end)]

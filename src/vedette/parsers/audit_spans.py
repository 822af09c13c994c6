"""Spans of a block of audit records, many at once: words by beginning, several values of one event, hidden texts.
Counterpart: `parsers.audit` makes columns of them; `audit_values` says the same of one record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from string import ascii_letters, ascii_lowercase, digits

import numpy as np

from vedette.model.batch import Batch, Bool, Int32, Int64, UInt8
from vedette.model.events import Texts
from vedette.parsers import audit_values as meaning
from vedette.parsers.columns import UInt64, distinct, first_of, kept_bytes

_BEGINNINGS = 16_384
_MANY = 8
"""Events with more values of one field are taken one by one: whoever is watched may choose how many there are."""


_SPACES = b" \n\x1d\r"
"""What stands between words: values with spaces are written in hexadecimal, so that a space ends one everywhere."""


def words_within(batch: Batch, raw: UInt8) -> tuple[Int64, Int64, Int64]:
    """Where the words of all records begin and end, and the row of each; in order. raw: the bytes of the block."""
    breaks = np.flatnonzero(raw <= 0x20)
    breaks = breaks[np.isin(raw[breaks], list(_SPACES))]
    begins = batch.starts[batch.ends > batch.starts]
    # Every record begins a word, also one that no space stands before.
    unbroken = begins[(begins == 0) | ~np.isin(raw[begins - 1], list(_SPACES))]
    starts = np.sort(np.concatenate((breaks + 1, unbroken)), kind="stable")
    ends = np.append(starts[1:] - 1, len(raw))
    firsts, stops = np.searchsorted(starts, batch.starts), np.searchsorted(starts, batch.ends)
    counts = stops - firsts
    there = np.flatnonzero(counts)
    # The last word of a record ends with it, unless that is a space.
    whole = there[~np.isin(raw[batch.ends[there] - 1], list(_SPACES))]
    ends[stops[whole] - 1] = batch.ends[whole]
    rows = np.repeat(np.arange(len(batch), dtype=np.int64), counts)
    places = np.arange(len(rows)) + np.repeat(firsts - np.cumsum(counts) + counts, counts)
    return starts[places], ends[places], rows


def by_beginning(words: UInt64) -> tuple[Int64, dict[int, tuple[int, int]]] | None:
    """Places in order of what stands there up to an equals sign (in eight bytes); where each of these begins, ends.

    None where there are so many beginnings that it is not worth while.
    """
    codes, beginnings = distinct(words & kept_bytes(first_of(words, b"=") + 1))
    if len(beginnings) > _BEGINNINGS:
        return None
    # Sorting 16 bits is a radix sort.
    order = np.argsort(codes.astype(np.int16), kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(codes, minlength=len(beginnings)))).tolist()
    return order, dict(zip(beginnings.tolist(), pairwise(bounds), strict=True))


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


def _letters(letters: str) -> Bool:
    """bool[256]: which bytes are one of these."""
    out = np.zeros(256, dtype=np.bool_)
    out[list(letters.encode())] = True
    return out


_DIGITS = "0123456789ABCDEF"
_HEX_DIGIT = _letters(_DIGITS)
_HEX_VALUE: UInt8 = np.zeros(256, dtype=np.uint8)
_HEX_VALUE[list(_DIGITS.encode())] = range(16)
_FIRST_LETTER = _letters(f"{ascii_lowercase}_")
_NAME_LETTER = _letters(f"{ascii_letters}{digits}_")
_NO_MARK = ~_letters("'\t\v\f")


def gathered(raw: UInt8, starts: Int64, ends: Int64) -> UInt8:
    """The bytes of some spans, one after the other."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return raw[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))]


def _all_of(letters: Bool, raw: UInt8, starts: Int64, ends: Int64) -> Bool:
    """Whether all bytes of each span, none of which is empty, are among some."""
    if not len(starts):
        return np.empty(0, dtype=np.bool_)
    lengths = ends - starts
    good: Bool = np.logical_and.reduceat(letters[gathered(raw, starts, ends)], np.cumsum(lengths) - lengths)
    return good


def joined(texts: Sequence[bytes], rows: Sequence[int]) -> Texts:
    """Texts of these rows, a line end between them."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    return Texts(b"\n".join(texts), starts, starts + lengths, np.array(rows, dtype=np.int64))


def hidden_texts(batch: Batch, begun: Int64, ended: Int64, owners: Int64) -> Texts:
    """What `meaning.hidden` finds: looked for only in words with so many digits after an equals sign.

    begun, ended: where words begin, in order, and end; owners: the row of each.
    """
    block, raw = batch.block, np.frombuffer(batch.block, dtype=np.uint8)
    signs = np.flatnonzero(raw == 0x3D)
    signs = signs[signs + 6 < len(raw)]
    for ahead in (6, 5, 4, 3, 2, 1):
        signs = signs[_HEX_DIGIT[raw[signs + ahead]]]
    words = np.searchsorted(begun, signs, side="right") - 1
    inside = ended[words] > signs if len(ended) else words >= 0
    chosen = np.flatnonzero((np.diff(words, prepend=-2) != 0) & (words >= 0) & inside)
    words, signs = words[chosen], signs[chosen]
    begins, stops, rows = begun[words], ended[words], owners[words]
    # Nearly always a word is a name, the sign and digits alone; what else there may be is read by itself.
    plain = (signs > begins) & ((stops - signs) % 2 == 1) & (begins > batch.starts[rows])
    plain &= (raw[np.maximum(begins - 1, 0)] == 0x20) & (raw[np.minimum(stops, len(raw) - 1)] != 0x1D)
    some = np.flatnonzero(plain)
    good = _FIRST_LETTER[raw[begins[some]]] & _all_of(_NAME_LETTER, raw, begins[some], signs[some])
    some = some[good & _all_of(_HEX_DIGIT, raw, signs[some] + 1, stops[some])]
    plain[:] = False
    plain[some] = True
    halves = _HEX_VALUE[gathered(raw, signs[some] + 1, stops[some])].reshape(-1, 2)
    found = halves[:, 0] << 4 | halves[:, 1]
    found[found == 0] = 0x20
    lengths = (stops[some] - signs[some] - 1) >> 1
    starts = np.cumsum(lengths + 1) - lengths - 1
    out = np.full(int((lengths + 1).sum()), 0x0A, dtype=np.uint8)
    out[np.arange(len(found)) + np.repeat(np.arange(len(some)), lengths)] = found
    texts, of = [], []
    # Elsewhere in a word a text begins after a quote, and ends before one or what is a space to an expression.
    odd = np.flatnonzero(~plain)
    odd = odd[~_all_of(_NO_MARK, raw, begins[odd], stops[odd])]
    for word in odd.tolist():
        begin, end = int(begins[word]), int(stops[word])
        first, last = int(batch.starts[rows[word]]), int(batch.ends[rows[word]])
        for text in meaning.hidden_in(block, max(begin - 1, first), min(end + 1, last)):
            texts.append(text)
            of.append(int(rows[word]))
    rest = joined(texts, of)
    return Texts(
        out.tobytes() + rest.block,
        np.concatenate((starts, rest.starts + len(out))),
        np.concatenate((starts + lengths, rest.ends + len(out))),
        np.concatenate((rows[some], rest.rows)),
    )

"""Blocks read eight bytes at a time find what plain code finds, and equal spans get equal codes.
Counterpart: vedette.parsers.columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vedette.parsers.columns import REACH, Block, distinct, merged, not_hexadecimal, up_to

_text = st.lists(
    st.sampled_from([b" ", b":", b"a", b"0", b"9", b"\0", b"\x80", b"\xff", b"/", b"b" * 30]), max_size=60
).map(b"".join)


@st.composite
def _spans(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    raw = draw(_text)
    ends = st.integers(0, len(raw))
    spans = draw(st.lists(st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=20))
    return raw, spans


def arrays(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(spans, dtype=np.int64)
    return both[:, 0].copy(), both[:, 1].copy()


@given(_spans(), st.sampled_from([b" ", b": ", b"\xff", b"\0"]))
def test_find_forwards_and_backwards(made: tuple[bytes, list[tuple[int, int]]], wanted: bytes):
    raw, spans = made
    starts, ends = arrays(spans)
    block = Block(raw)
    first, unknown = block.find(wanted, starts, ends)
    last, unknown_back = block.find_back(wanted, ends, starts)
    for row, (start, end) in enumerate(spans):
        hits = [at for at in range(start, end) if raw[at] in wanted]
        if unknown is not None and unknown[row]:
            assert not hits or hits[0] - start >= REACH
        else:
            assert first[row] == (hits[0] if hits else end)
        if unknown_back is not None and unknown_back[row]:
            assert not hits or end - 1 - hits[-1] >= REACH
        else:
            assert last[row] == (hits[-1] + 1 if hits else start)


@given(_spans())
def test_digits_and_literals(made: tuple[bytes, list[tuple[int, int]]]):
    raw, spans = made
    starts, ends = arrays(spans)
    block = Block(raw)
    texts = [raw[start:end] for start, end in spans]
    assert block.digits(starts, ends).tolist() == [
        1 <= len(text) <= 20 and all(0x30 <= byte <= 0x39 for byte in text) for text in texts
    ]
    for literal in (b"a", b"a0", b"b" * 9, b"b" * 30 + b":"):
        assert block.matches(starts, literal).tolist() == [raw.startswith(literal, start) for start, _ in spans]


@given(_spans(), st.integers(1, 3))
def test_equal_spans_get_equal_codes(made: tuple[bytes, list[tuple[int, int]]], times: int):
    raw, spans = made
    spans = spans * times
    starts, ends = arrays(spans)
    codes, values = Block(raw).encode(starts, ends)
    assert [values[code] for code in codes] == [raw[start:end] for start, end in spans]
    assert len(set(values)) == len(values)


def test_spans_of_any_number_and_length():
    texts = [b"%d" % (number % 70_000) for number in range(100_000)] + [b"x" * 200, b"x" * 201, b"x" * 200, b""]
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts]
    codes, values = Block(b"".join(texts)).encode(starts, ends)
    assert [values[code] for code in codes.tolist()] == texts
    assert len(values) == 70_003


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=300))
def test_distinct_words(numbers: list[int]):
    codes, values = distinct(np.array(numbers, dtype=np.uint64))
    assert [int(values[code]) for code in codes] == numbers
    assert len(set(values.tolist())) == len(values)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9).flatmap(lambda own: st.lists(st.sampled_from(own))))
def test_distinct_words_of_which_there_are_few(numbers: list[int]):
    codes, values = distinct(np.array(numbers, dtype=np.uint64), few=True)
    assert [int(values[code]) for code in codes] == numbers
    assert len(set(values.tolist())) == len(values)


def test_more_words_than_few_are_told_apart_all_the_same():
    words = np.arange(50_000, dtype=np.uint64) * np.uint64(7)
    codes, values = distinct(words, few=True)
    assert len(values) == 50_000
    assert (values[codes] == words).all()


_bytes_of_word = st.lists(st.sampled_from(b"=<>\x00\xff\x80/0:9@AFGa\xb0\xc1"), min_size=8, max_size=8).map(bytes)


@given(_bytes_of_word)
def test_a_word_up_to_a_byte(text: bytes):
    word = up_to(np.array([int.from_bytes(text, "little")], dtype=np.uint64), b"=")
    name, sign, _ = text.partition(b"=")
    assert int(word[0]).to_bytes(8, "little") == (name + sign).ljust(8, b"\0")


@given(_bytes_of_word)
def test_bytes_that_are_no_hexadecimal_digits(text: bytes):
    flags = not_hexadecimal(np.array([int.from_bytes(text, "little")], dtype=np.uint64))
    assert [bool(flag) for flag in int(flags[0]).to_bytes(8, "little")] == [
        byte not in b"0123456789ABCDEF" for byte in text
    ]


def test_words_made_to_share_a_place_are_still_told_apart():
    # Multiplying by an odd number leaves the low bits alone: these differ only where no slot is chosen from.
    words = np.arange(5000, dtype=np.uint64) << np.uint64(52)
    codes, values = distinct(np.concatenate([words, words]))
    assert len(values) == len(set(words.tolist()))
    assert (values[codes] == np.concatenate([words, words])).all()


def test_parts_of_a_column_share_equal_values_and_keep_types_apart():
    rows = np.array([0, 1], dtype=np.int64)
    codes = np.array([0, 1], dtype=np.int32)
    column = merged(5, [(rows, codes, ["a", 1]), (rows + 2, codes, [1, "a"]), (rows[:1] + 4, codes[:1], [True])])
    assert [column.value(row) for row in range(5)] == ["a", 1, 1, "a", True]
    assert column.value(4) is True
    assert len(column.values) == 3
    assert merged(1, [(rows[:1], codes[:1], [None])]).codes.tolist() == [-1]

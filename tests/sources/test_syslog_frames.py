"""Octet-counted and newline-ended frames, mixed and cut anywhere.
Counterpart: src/vedette/sources/syslog_frames.py."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.sources.syslog_frames import Frames, datagram


def read(data: bytes, cuts: tuple[int, ...] = (), limit: int = 40) -> tuple[list[bytes], int, bool]:
    frames = Frames(limit)
    records: list[bytes] = []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        records += frames.feed(data[begin:end])
    records += frames.finish()
    return records, frames.too_long, frames.cut_off


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"<1>a\n<2>b\r\n<3>c", [b"<1>a", b"<2>b", b"<3>c"]),
        (b"4 <1>a7 <2>b\n<3", [b"<1>a", b"<2>b\n<3"]),
        (b"<1>a\n4 <2>b<3>c\n5 <4>d\n", [b"<1>a", b"<2>b", b"<3>c", b"<4>d"]),
        (b"\n\n\r\n<1>a\n", [b"<1>a"]),
        (b"2026-11-24T00:00:00Z h p: m\n007 x\n", [b"2026-11-24T00:00:00Z h p: m", b"007 x"]),
        (b"12345678 is no length\n", [b"12345678 is no length"]),
        (b"<1>\0\xff\x1b[2J\n", [b"<1>\0\xff\x1b[2J"]),
        (b"9 <1>ab", [b"<1>ab"]),
        (b"", []),
    ],
)
def test_each_frame_says_how_it_ends(data: bytes, records: list[bytes]):
    assert read(data)[0] == records


def test_what_is_too_long_is_cut_and_the_next_record_is_whole():
    long = b"<1>" + b"x" * 60
    assert read(long + b"\n<2>b\n") == ([long[:40], b"<2>b"], 1, False)
    assert read(b"%d %s<2>b\n" % (len(long), long)) == ([long[:40], b"<2>b"], 1, False)
    exact = b"<1>" + b"x" * 37
    assert read(exact + b"\r\n" + b"40 " + exact) == ([exact, exact], 0, False)


@pytest.mark.parametrize("data", [b"<1>half", b"9 <1>ab", b"12", b"900 <1>" + b"x" * 60, b"x" * 60])
def test_a_connection_that_ends_in_a_record_is_told(data: bytes):
    assert read(data)[2]
    assert not read(b"<1>whole\n")[2]


def test_what_is_held_back_is_bounded():
    frames = Frames(1024)
    for data in (b"9999999 ", b"x" * 2000, b"y" * 100_000):
        frames.feed(data)
        assert len(frames) <= 1024 + 10
    frames = Frames(1024)
    for _ in range(5000):
        frames.feed(b"x")
        assert len(frames) <= 1026
    assert frames.too_long == 1
    assert frames.feed(b"\n<1>a\n") == [b"<1>a"]


_PIECE = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"<1>m\n", b"5 <1>m\n", b"4 <1>m", b"30 ", b"12 ", b"9", b"z" * 45, b"50 "]),
)


@settings(max_examples=150)
@given(st.lists(_PIECE, max_size=12).map(b"".join), st.lists(st.integers(0, 200), max_size=8).map(tuple))
def test_records_do_not_depend_on_how_the_stream_is_cut(data: bytes, cuts: tuple[int, ...]):
    assert read(data, cuts) == read(data) == read(data, tuple(range(len(data))))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.booleans()), max_size=8))
def test_what_was_framed_comes_out_again(messages: list[tuple[bytes, bool]]):
    sent, wanted = b"", []
    for body, counted in messages:
        record = b"<13>" + (body if counted else body.replace(b"\n", b" ")) + b"."
        sent += b"%d %s" % (len(record), record) if counted else record + b"\n"
        wanted.append(record)
    assert read(sent) == (wanted, 0, False)


def test_a_datagram_is_one_record():
    assert datagram(b"<1>a\nb\n\0") == b"<1>a\nb"
    assert datagram(b"\n") == b""

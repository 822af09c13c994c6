"""What formats mean, on one message: every type, optional parts, chunks, texts, all readings and their limits.
Counterpart: vedette.parsers.readings."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.model.errors import Location
from vedette.parsers.formats import compile_format
from vedette.parsers.readings import READINGS_LIMIT, _forward, _middle, address_of, readings, value_of

HERE = Location("x.yml", 1, 1)


def read(written: str, message: bytes) -> list[list[bytes]]:
    """All readings of all shapes: what each capture holds."""
    found = []
    for shape in compile_format(written, HERE):
        spans, too_many = readings(shape, message)
        assert not too_many
        found += [[message[start:end] for start, end in reading] for reading in spans]
    return found


@pytest.mark.parametrize(
    ("written", "message", "wanted"),
    [
        ("a b", b"a b", [[]]),
        ("a b", b"a b ", []),
        ("a b", b" a b", []),
        ("{{a}} <<b>>", b"{a} <b>", [[]]),
        ("x {:word}", b"x y", [[b"y"]]),
        ("x {:word}", b"x ", []),
        ("x {:word}", b"x y z", []),
        ("x {:opt} y", b"x  y", [[b""]]),
        ("x {:int}", b"x 007", [[b"007"]]),
        ("x {:int}", b"x " + b"9" * 20, [[b"9" * 20]]),
        ("x {:int}", b"x " + b"9" * 21, []),
        ("x {:int}", "x \u0661".encode(), []),
        ("x {:ip}", b"x 2001:db8::1", [[b"2001:db8::1"]]),
        ("x {:ip}", b"x 01.2.3.4", []),
        ("x {:ip}", b"x host", []),
        ("x {source.address:addr}", b"x host", [[b"host"]]),
        ("x{:text}y", b"xy", [[b""]]),
        ("x {:text} y", b"x y", []),
        ("x {:text} y", b"x  y", [[b""]]),
        ("x {:text} y", b"x a y y", [[b"a y"]]),
        # optional parts
        ("a<b>", b"a", [[]]),
        ("a<b>", b"ab", [[]]),
        ("a< {:word}>", b"a b", [[b"b"]]),
        ("a<b><c>", b"ac", [[]]),
        ("rhost={:word}< >", b"rhost=x ", [[b"x"]]),
        # a chunk with one capture: prefix and suffix are taken off, the capture may hold them
        ("from {:ip}: x", b"from 2001:db8::1: x", [[b"2001:db8::1"]]),
        ("'{:word}' x", b"'it's' x", [[b"it's"]]),
        ("a={:opt} b", b"a== b", [[b"="]]),
        # a chunk with several: the earlier ones may not hold the byte after them
        ("{:word}[{:int}]: x", b"a[1]: x", [[b"a", b"1"]]),
        ("{:word}[{:int}]: x", b"a[b[1]: x", []),
        ("{:word}({:word}:{:word}): x", b"pam(a:b:c): x", [[b"pam", b"a", b"b:c"]]),
        ("[{:ip}]:{:int}", b"[::1]:22", [[b"::1", b"22"]]),
        # after the text everything counts from the back
        ("u {:text} from {:ip} port {:int}", b"u a from 1.1.1.1 port 1 from 2.2.2.2 port 3", None),
        ("u {:text} {:word}({:int})", b"u a b(1) c(2)", [[b"a b(1)", b"c", b"2"]]),
        ("'{:text}' from {:ip}", b"'x' from 1.1.1.1' from 2.2.2.2", [[b"x' from 1.1.1.1", b"2.2.2.2"]]),
        # joined to the text: no byte of the literals beside it
        ("{:text}:{:word}", b"a:b:c", [[b"a:b", b"c"]]),
        ("{:text}[{:word}]", b"a[b[c]", [[b"a[b", b"c"]]),
        ("{:text}[{:word}]", b"a[b]c]", []),
        ("{:word}:{:text}", b"a:b:c", [[b"a", b"b:c"]]),
        # two texts: every reading
        ("{:text} - {:text}", b"a - b - c", [[b"a", b"b - c"], [b"a - b", b"c"]]),
        ("u {:text} at {:ip} {:text} end", b"u at at 1.1.1.1 x end", [[b"at", b"1.1.1.1", b"x"]]),
        ("{:text}a{:text}a{:text}", b"aa", [[b"", b"", b""]]),
    ],
)
def test_a_format(written: str, message: bytes, wanted: list[list[bytes]] | None):
    if wanted is None:
        wanted = [[b"a from 1.1.1.1 port 1", b"2.2.2.2", b"3"]]
    assert read(written, message) == wanted


def test_too_many_readings_are_not_listed():
    (shape,) = compile_format("{:text} {:text}", HERE)
    found, too_many = readings(shape, b" x" * (READINGS_LIMIT + 5))
    assert too_many
    assert len(found) == READINGS_LIMIT + 1


def test_a_million_places_where_a_literal_stands_are_not_all_tried():
    (shape,) = compile_format("{:text} from {:ip} {:text}", HERE)
    assert readings(shape, b" from x" * 150_000) == ([], True)


def test_values():
    assert value_of("source.port", b"0042") == 42
    assert value_of("source.ip", b"::ffff:198.51.100.7") == "198.51.100.7"
    assert value_of("user.name", b"caf\xc3\xa9") == "caf\u00e9"
    assert address_of(b"fe80::1%eth0") == "fe80::1"
    assert address_of(b"1.2.3") is None
    assert address_of(b"") is None
    assert address_of(b"\xff" * 5) is None


_BETWEEN = [
    "{:text} a={:int} b={:opt} c={:ip} d {:text}",
    "{:text}a={:word} b={:int} {:text}",
    "{:text} a:{:word}: b={:int}) {:text}",
    "{:text}a={source.address:addr} b{:text}",
]
_TEXTS = st.lists(
    st.sampled_from(
        [b" a=", b" b=", b" c=", b" d ", b"a=", b" ", b"7", b"9" * 20, b"x", b"\n", b"\xff", b":", b")", b"192.0.2.1"]
    ),
    max_size=14,
).map(b"".join)


@example(_BETWEEN[0], b" a=" + b"9" * 20 + b" b= c=192.0.2.1 d ", 40)
@example(_BETWEEN[0], b" a=7 b=x c=192.0.2.256 d ", 40)
@example(_BETWEEN[1], b"a=7 b=7 ", 40)
@example(_BETWEEN[2], b" a:x: b=7) ", 40)
@given(st.sampled_from(_BETWEEN), _TEXTS, st.integers(0, 40))
def test_what_stands_between_two_texts_is_read_as_step_by_step(written: str, message: bytes, limit: int) -> None:
    (steps,) = compile_format(written, HERE)[0].middles
    for position in range(len(message) + 1):
        for end in (len(message), min(limit, len(message))):
            assert _middle(steps, message, position, end) == _forward(steps, message, position, end)

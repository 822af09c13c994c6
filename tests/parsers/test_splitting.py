"""JSON that is not one object a line: found whole, wherever the stream is cut.
Counterpart: src/vedette/parsers/splitting.py."""

from __future__ import annotations

import pytest

from vedette.parsers.splitting import Found, ObjectSplitter, is_lines

TEXT = (
    b'{"a":1}\n{"b":\n {"c":"}\\""}}\nno json {x\n[{"d":1},{"e":[{"f":2}]}]\n'
    b'{"Records": [\n{"g":1}, {"h":2}]}\n{"i": "cut'
)
FOUND = [
    (b'{"a":1}', 1),
    (b'{"b":\n {"c":"}\\""}}', 2),
    (b"no json {x", 4),
    (b'{"d":1}', 5),
    (b'{"e":[{"f":2}]}', 5),
    (b'{"g":1}', 7),
    (b'{"h":2}', 7),
    (b'{"i": "cut', 8),
]


def split(data: bytes, size: int, limit: int = 1 << 20) -> list[Found]:
    splitter = ObjectSplitter(limit)
    found = [one for at in range(0, len(data), size) for one in splitter.feed(data[at : at + size])]
    return found + splitter.feed(b"", last=True)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_objects_and_their_lines(size: int) -> None:
    assert [(one.record, one.line) for one in split(TEXT, size)] == FOUND


def test_overlong_objects_are_cut_and_what_follows_is_found() -> None:
    found = split(b'{"a":[' + b"1," * 3000 + b'1]}\n{"b":1}', 100, 1000)
    assert [(len(one.record), one.cut) for one in found] == [(1000, True), (7, False)]


@pytest.mark.parametrize(
    ("head", "lines"),
    [(b'{"a":1}\n{"b":', True), (b'{\n "a":1}', False), (b'[{"a":1}]', False), (b'{"Records":[{"a":1}]}\n', False)],
)
def test_one_object_a_line(head: bytes, lines: bool) -> None:
    assert is_lines(head) is lines

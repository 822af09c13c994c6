"""Questions and answers about witnesses: what is none is one error, whatever the bytes are.
Counterpart: src/vedette/fleet/control.py."""

from __future__ import annotations

import pytest

from vedette.fleet.control import PREFIX, HeadTold, read_answer, read_ask

NONE = (b"", b"\xff\xfe", b"{}", b"[" * 50_000, b'{"x":' + b"[" * 50_000)


@pytest.mark.parametrize("data", NONE, ids=range(len(NONE)))
def test_what_is_no_question_is_one_error(data: bytes):
    with pytest.raises(ValueError, match=r"\w"):
        read_ask(PREFIX + data)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x82\xa1x" + b"\x91" * 50_000, b"\x81\xa2\xff\xff\x01"], ids=range(4))
def test_what_is_no_answer_is_one_error(data: bytes):
    with pytest.raises(ValueError, match=r"\w"):
        read_answer(data, HeadTold)

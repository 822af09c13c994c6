import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from vedette.text import escape


def test_terminal_writes_out_what_would_act() -> None:
    hostile = "a\x1b[31mred\x07\r\nb\x9b2J\u202etxt.exe\u2028\x00\u200bz"
    shown = escape.terminal(hostile)
    assert shown == r"a\x1b[31mred\x07\x0d\x0ab\x9b2J\u{202e}txt.exe\u{2028}\x00\u{200b}z"


def test_terminal_leaves_letters_alone() -> None:
    assert escape.terminal("Ärger für José 日本 'x' \\ \"y\"") == "Ärger für José 日本 'x' \\ \"y\""


@given(st.text())
def test_nothing_harmful_is_left(text: str) -> None:
    for character in escape.terminal(text):
        category = unicodedata.category(character)
        assert category not in {"Cc", "Zl", "Zp", "Cs"}
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }


@given(st.binary())
def test_decode_takes_any_bytes(raw: bytes) -> None:
    assert isinstance(escape.decode(raw), str)


def test_shorten() -> None:
    assert escape.shorten("abc", 3) == "abc"
    assert escape.shorten("abcd", 3) == "ab…"

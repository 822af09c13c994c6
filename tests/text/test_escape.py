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


@given(st.one_of(st.binary(), st.text(st.characters(codec="utf-8")).map(str.encode)))
def test_decode_is_lossless_and_always_valid(raw: bytes) -> None:
    text = escape.decode(raw)
    assert escape.encode(text) == raw
    assert text.encode().decode() == text
    assert escape.presentable(text) == (raw.decode("utf-8", "replace"), None if _is_plain(raw) else raw)


def _is_plain(raw: bytes) -> bool:
    try:
        return max(map(ord, raw.decode()), default=0) < 0x10FF00
    except UnicodeDecodeError:
        return False


def test_odd_bytes_are_shown_as_bytes() -> None:
    assert escape.terminal(escape.decode(b"r\xff\xf4\x8f\xbc\x80\xc3\xa4")) == r"r\xff\xf4\x8f\xbc\x80\xe4".replace(
        r"\xe4", "ä"
    )


def test_shorten() -> None:
    assert escape.shorten("abc", 3) == "abc"
    assert escape.shorten("abcd", 3) == "ab…"

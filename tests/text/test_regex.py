import pytest

from vedette.text.regex import compile_re2


def test_what_re2_does_not_take_is_said_in_its_words() -> None:
    for pattern, words in (("(", "missing"), ("(?=a)", "invalid perl operator"), (r"(a)\1", "invalid escape")):
        with pytest.raises(ValueError, match=words):
            compile_re2(pattern)


def test_options() -> None:
    assert compile_re2("a").search("A") is None
    assert compile_re2("a", cased=False).search("A")
    assert compile_re2("a.b").search("a\nb") is None
    assert compile_re2("a.b", dot_newline=True).search("a\nb")
    assert compile_re2(b"^.$", latin1=True).search(b"\xff")

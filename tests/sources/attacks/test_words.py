"""Commands as words: as a shell splits them, values filled in, everything that needs a shell refused.
Counterpart: vedette.sources.attacks.words; shlex is the second opinion."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.sources.attacks.words import placeholders, split_words

VALUES = {
    "host": "web1",
    "options": "-p 80 --open",
    "quoted": "a 'b c' d",
    "odd": "it's",
    "none": "",
    "op": "; rm | x >y",
}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("nmap -F <host>", ["nmap", "-F", "web1"]),
        ("nmap -p<host>,443", ["nmap", "-pweb1,443"]),
        ("nmap <options> <host>", ["nmap", "-p", "80", "--open", "web1"]),
        ("x a<options>b", ["x", "a-p", "80", "--openb"]),
        ("x <quoted>", ["x", "a", "b c", "d"]),
        ("x <odd>", ["x", "it's"]),
        ("x <none> y", ["x", "y"]),
        ('x "<none>" "<options>"', ["x", "", "-p 80 --open"]),
        ("x '<host>'", ["x", "web1"]),
        ("x <op>", ["x", ";", "rm", "|", "x", ">y"]),
        ('x "<op>"', ["x", "; rm | x >y"]),
        ("x '<xml>' \"<other>\"", ["x", "<xml>", "<other>"]),
        ("curl http://h/?a=1&b=2|c;d", ["curl", "http://h/?a=1&b=2|c;d"]),
        ("curl -w \"%{http_code}\\n\" '$x `y`'", ["curl", "-w", "%{http_code}\\n", "$x `y`"]),
        ("arachni --checks=xss* ~ #no [a]? {b}", ["arachni", "--checks=xss*", "~", "#no", "[a]?", "{b}"]),
        ("x 'a;' \"|\" \\> \\; 5$ $", ["x", "a;", "|", ">", ";", "5$", "$"]),
        ("x \\\n  y\n z", ["x", "y", "z"]),
        ("", []),
    ],
)
def test_it_is_split_with_values_filled_in(template: str, words: list[str]):
    assert split_words(template, VALUES) == words


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("nmap <host> | grep x", "without a shell: `|`"),
        ("a || b", "`||`"),
        ("a && b", "`&&`"),
        ("a; b", "`a;`"),
        ("a & b", "`&`"),
        ("a ;b", "`;b`"),
        ("a >out", "`>out`"),
        ("a 2>&1", "`2>&1`"),
        ("a<", "`<`"),
        ("a < file", "`<`"),
        ("a $(id)", "`$(id)` would be expanded"),
        ("a x${HOME}y", "would be expanded"),
        ('a "$HOME"', "`$HOME` would be expanded"),
        ("a `id`", "``` would be expanded"),
        ('a "`id`"', "would be expanded"),
        ("nmap <nobody>", "no value for <nobody>"),
        ("FOO=1 nmap x", "set FOO by a step"),
        ("a 'b", "no closing '"),
        ('a "b', 'no closing "'),
        ("a \\", "ends with a backslash"),
    ],
)
def test_what_needs_a_shell_is_refused(template: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        split_words(template, VALUES)


@given(st.text(alphabet="ab1 \t\n'\"\\-=/.,*?~#%{}[]:@", max_size=30))
@settings(max_examples=90)
def test_without_operators_it_is_what_shlex_says(text: str):
    try:
        want = shlex.split(text.replace("\\\n", ""))
    except ValueError:
        want = None
    if want and "=" in want[0]:
        return
    try:
        found = split_words(text, {})
    except ValueError:
        found = None
    # Within double quotes shlex knows no line continuation either.
    if "\\\n" not in text:
        assert found == want


@given(st.text(max_size=20))
@settings(max_examples=45)
def test_between_quotes_a_value_is_one_word_whatever_is_in_it(value: str):
    for template in ('x "<v>" y', "x '<v>' y"):
        assert split_words(template, {"v": value}) == ["x", value, "y"]


def test_the_names_of_a_command():
    assert list(placeholders("nmap -p<port> <host> < x <a b>")) == ["port", "host"]

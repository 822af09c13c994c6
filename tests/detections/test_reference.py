from __future__ import annotations

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detections.reference import address, compare, glob, holds, number, python_pattern

from vedette.model.rules import All, Any, Not, Op, Raw, Test

ATOMS = [
    *"akKsSiß1 é\n",
    "\u212a",
    "ſ",
    "ẞ",
    "σ",
    "ς",
    "İ",
    ".",
    "\\d",
    "\\w",
    "\\S",
    "\\W",
    "[a-k]",
    "[^s\\d]",
    "[ß1]",
]
patterns = st.builds(
    lambda flags, first, parts, last: flags + first + "".join(parts) + last,
    st.sampled_from(["", "(?i)", "(?s)", "(?im)", "(?m)"]),
    st.sampled_from(["", "^", "\\A", "\\b"]),
    st.lists(
        st.builds(str.__add__, st.sampled_from(ATOMS), st.sampled_from(["", "", "*", "+", "?", "{1,2}"])), max_size=4
    ),
    st.sampled_from(["", "$", "\\z", "\\B", "|^s$"]),
)
subjects = st.text("akKsSiß1 é\n_\u212aſẞσςİ\x0b\U0010ff80", max_size=6)


@settings(max_examples=300)
@given(patterns, subjects)
def test_patterns_mean_in_python_what_they_mean_in_re2(pattern: str, subject: str) -> None:
    options = re2.Options()
    options.log_errors = False
    theirs = re2.compile(pattern, options).search(subject)
    ours = python_pattern(pattern).search(subject)
    assert (ours is None) is (theirs is None)


@pytest.mark.parametrize(
    ("pattern", "value", "cased", "held"),
    [
        ("a*c", "ABC", False, True),
        ("a*c", "ABC", True, False),
        ("a?c", "ac", False, False),
        ("*", "", False, True),
        ("?", "", False, False),
        ("?", "\n", True, True),
        ("a\\*", "a*", True, True),
        ("a\\*", "ab", True, False),
        ("a\\\\*", "a\\b", True, True),
        ("a\\", "a\\", True, True),
        ("\\a", "a", True, True),
        ("stra?e", "straße", True, True),
        ("stra?e", "straße", False, False),  # folded it is two letters
        ("stra??e", "STRAßE", False, True),
        ("STRASSE", "straße", False, True),
        ("*ς", "ΑΣ", False, True),
    ],
)
def test_wildcards(pattern: str, value: str, cased: bool, held: bool) -> None:
    assert glob(pattern, value, cased=cased) is held


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[("1", 1), (" 2.50 ", 2.5), (".5", 0.5), ("1e3", 1000), (-3, -3), ("1.", 1)],
        *[(True, None), ("nan", None), ("inf", None), ("1_0", None), ("0x1", None), ("", None), ("1e999", None)],
    ],
)
def test_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("2001:DB8:0::1", "2001:db8::1")],
        *[("010.0.0.1", None), ("10.1", None), (7, None), (" 10.0.0.1", None), ("10.0.0.1%a", None)],
    ],
)
def test_addresses(value: object, expected: str | None) -> None:
    found = address(value)
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize(
    ("wanted", "held"), [("10.0.0.0/8", True), ("10.9.9.9/8", True), ("::ffff:10.0.0.0/104", True), ("::/0", False)]
)
def test_networks(wanted: str, held: bool) -> None:
    assert compare(Op.CIDR, "10.1.2.3", wanted, cased=False) is held


@pytest.mark.parametrize(
    ("node", "held"),
    [
        (Test("a", Op.NULL), False),
        (Test("gone", Op.NULL), True),
        (Test("none", Op.NULL), True),
        (Test("empty", Op.NULL), True),
        (Test("none", Op.EXISTS, (True,)), True),
        (Test("gone", Op.EXISTS, (False,)), True),
        (Test("none", Op.EQUALS, ("",)), False),
        (Test("a", Op.EQUALS, ("two",)), True),
        (Test("a", Op.EQUALS, ("ONE", "two"), all=True), True),
        (Test("a", Op.EQUALS, ("one", "three"), all=True), False),
        (Not(Test("a", Op.EQUALS, ("one",))), False),
        (Test("one", Op.EQUALS, ("1",)), True),
        (Test("a", Op.FIELDREF, ("same",)), True),
        (Test("a", Op.FIELDREF, ("same",), cased=True), False),
        (Test("gone", Op.FIELDREF, ("gone",)), False),
        (All(()), True),
        (Any(()), False),
        (Raw("b*d"), True),
        (Raw("^b", regex=True), False),
        (Raw("\\"), False),
    ],
)
def test_conditions(node: All, held: bool) -> None:
    fields = {"a": ("one", "Two", None), "none": None, "empty": (), "one": 1, "same": "tWO"}
    assert holds(node, fields, ("aBcDe", "x")) is held

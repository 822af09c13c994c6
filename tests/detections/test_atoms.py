"""Atoms of tests: what must occur in a value wherever the test holds.
Counterpart: `vedette.detections.atoms`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.detections.atoms import Atom, atoms_of, literals_of, regex_atoms
from vedette.detections.predicates import Predicate, fold
from vedette.detections.scan import folded
from vedette.model.rules import Op, Raw, Test


def texts(leaf: Test | Raw) -> list[str] | None:
    atoms = atoms_of(leaf)
    return None if atoms is None else list(literals_of(atoms))


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (Raw("*Received signal 15*"), ["received signal 15"]),
        (Raw("straße"), ["strasse"]),
        (Raw("a*b"), None),
        (Raw("user (root|admin)", regex=True), ["user "]),
        (Test("x", Op.EQUALS, ("Äh", 5)), ["^äh$", "^5$"]),
        (Test("x", Op.EQUALS, ("",)), ["^$"]),
        (Test("x", Op.CONTAINS, ("a",)), None),
        (Test("x", Op.CONTAINS, ("a", "mimikatz"), all=True), ["mimikatz"]),
        (Test("x", Op.ENDSWITH, ("\\cmd.exe", "\\net.exe")), ["\\cmd.exe$", "\\net.exe$"]),
        (Test("x", Op.STARTSWITH, ("/",)), ["^/"]),
        (Test("x", Op.LIKE, ("ab*long enough?c",)), ["long enough"]),
        (Test("x", Op.LIKE, ("?*",)), None),
        (Test("x", Op.REGEX, ("(?i)in(voke|vent)-[a-z]+",)), ["oke", "ent"]),
        (Test("x", Op.REGEX, ("(?i)straße",)), ["stra"]),
        (Test("x", Op.REGEX, ("a?b*",)), None),
        (Test("x", Op.REGEX, (r"\w+`\w+`",)), ["`"]),
        (Test("x", Op.REGEX, (r"\s[a-f]{4}\s",)), [r"/\s[a-f]{4}\s/"]),
        (Test("x", Op.REGEX, (r"\s[a-f]{4}\s", r"[^a]"), all=True), [r"/\s[a-f]{4}\s/"]),
        (Test("x", Op.REGEX, (r"\s[a-f]{4,}",)), None),
        (Test("x", Op.REGEX, (r"^[a-f]{4}\s",)), None),
        (Test("x", Op.REGEX, (r"\s[^a-f]{4}\s",)), None),
        (Test("x", Op.CONTAINS, ("\u202e",)), ["\u202e"]),
        (Test("x", Op.CONTAINS, ("\x01abc",)), None),
        (Test("x", Op.CIDR, ("10.0.0.0/8",)), None),
        (Test("x", Op.NULL), None),
    ],
)
def test_what_must_occur(leaf: Test | Raw, expected: list[str] | None) -> None:
    assert texts(leaf) == expected


def occurs(atom: Atom, value: str) -> bool:
    folded = fold(value)
    if atom.pattern:
        # Beyond ASCII the scan proposes every value.
        return not value.isascii() or re.search(atom.text, folded, re.IGNORECASE | re.DOTALL) is not None
    if atom.whole:
        return folded == atom.text
    if atom.at_start:
        return folded.startswith(atom.text)
    return folded.endswith(atom.text) if atom.at_end else atom.text in folded


PIECES = [
    "a",
    "S",
    "ſ",
    "K",
    "K",
    "ß",
    "x",
    " ",
    "\\d",
    "[ab]",
    "[^a]",
    "(ab|cd)",
    "(?:sk)+",
    "(?i:Sk)",
    "x{2,3}",
    "(kS)?",
    ".",
]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(PIECES), max_size=7), st.booleans(), st.text("aSsKkſKßxdbc1 ", max_size=12))
def test_a_regex_matches_nothing_without_its_atoms(pieces: list[str], caseless: bool, value: str) -> None:
    pattern = ("(?i)" if caseless else "") + "".join(pieces)
    atoms = regex_atoms(pattern)
    if atoms is not None and Predicate(Test("x", Op.REGEX, (pattern,))).holds(value):
        assert any(occurs(atom, value) for atom in atoms)


@given(st.text(st.sampled_from("aAzZßẞſKKİıΣςéÉ®Ǆǆﬁ😀\x01\x02\n"), max_size=40))
def test_folding_for_the_scan_is_the_folding_of_tests(text: str) -> None:
    assert folded(text) == fold(text).encode()

"""Scanning a field's values for atoms, and what is kept of it between runs.
Counterpart: `vedette.detections.scan`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.detections.atoms import Atom
from vedette.detections.predicates import as_text, fold
from vedette.detections.scan import FieldScan
from vedette.model.events import Texts, Value
from vedette.text.escape import decode

ATOMS = [
    Atom("cmd.exe", at_end=True),
    Atom("c:\\", at_start=True),
    Atom("ab"),
    Atom("strasse"),
    Atom("", True, True),
    Atom("1", True, True),
    Atom("ß😀"[1:]),
    Atom("\n"),
    Atom(r"\s[a-f]{2}\s", pattern=True),
]
PIECES = ["a", "b", "B", "ß", "SS", "tra", "ſ", "😀", "\x01", "\x02", "\n", " ", "cmd.exe", "C:\\", "é"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
VALUES = st.one_of(TEXTS, st.none(), st.just(1), st.just(()), st.tuples(TEXTS, TEXTS, st.none()))


def occurs(atom: Atom, value: Value) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    for text in (fold(as_text(part)) for part in parts if part is not None):
        where = text == atom.text if atom.whole else text.startswith(atom.text) if atom.at_start else None
        if where is None:
            where = text.endswith(atom.text) if atom.at_end else atom.text in text
        if where:
            return True
    return False


@settings(max_examples=150)
@given(st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=1, max_size=3))
def test_what_is_found_is_what_occurs_and_odd_values_may_have_more(batches: list[list[Value]]) -> None:
    scan = FieldScan(ATOMS)
    scan.prepare()
    for values in batches:  # a second batch finds some of its values known
        found, odd = scan.find(values)
        for number, atom in enumerate(ATOMS):
            held = set(found.get(number, []))
            if atom.pattern:
                beyond = {
                    at
                    for at, value in enumerate(values)
                    if any(not as_text(part).isascii() for part in (value if isinstance(value, tuple) else (value,)))
                }
                assert beyond <= held
                continue
            expected = {at for at, value in enumerate(values) if occurs(atom, value)}
            assert expected <= held
            assert held - expected <= odd


def test_a_kept_automaton_is_taken_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vedette.detections.automata._WORTH_KEEPING", 1)
    folder = tmp_path / "kept"
    values = ["C:\\windows\\cmd.exe", "cab"]

    def found() -> dict[int, list[int]]:
        scan = FieldScan(ATOMS)
        scan.prepare(folder)
        return scan.find(values)[0]

    expected = found()
    assert expected == {0: [0], 1: [0], 2: [1]}
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("vedette.detections.automata._compiled", lambda *_: pytest.fail("compiled though one is kept"))
        assert found() == expected
    for damaged in (b"", whole[:-9], whole[:70] + bytes([whole[70] ^ 1]) + whole[71:], b"other 9\n" + whole):
        file.write_bytes(damaged)
        assert found() == expected
        assert file.read_bytes() == whole
    folder.chmod(0o777)
    assert found() == expected


@settings(max_examples=150)
@given(st.lists(st.lists(st.sampled_from([*PIECES, "\xff", "\u212a"]), max_size=5), min_size=1, max_size=5))
def test_a_scan_before_texts_are_decoded_finds_what_occurs(rows: list[list[str]]) -> None:
    raw = [b"".join(b"\xff" if piece == "\xff" else piece.encode() for piece in row) for row in rows]
    scan = FieldScan([Atom("ab"), Atom("ss"), Atom("\n"), Atom("b\n"), Atom("k")])
    scan.prepare()
    assert scan.plain
    assert not FieldScan(ATOMS).plain
    lengths = np.array([len(text) for text in raw], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    found, unread = scan.find_written(Texts(b"\n".join(raw), starts, starts + lengths, np.arange(len(raw)) + 7))
    folding = {at + 7 for at, row in enumerate(rows) if {"ß", "ſ", "\u212a"} & set(row)}
    assert folding == set(unread)
    for number, atom in enumerate(scan.atoms):
        occurring = {at + 7 for at, text in enumerate(raw) if occurs(atom, decode(text))}
        assert set(found.get(number, [])) - folding == occurring - folding

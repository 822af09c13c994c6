"""The line a field stands in: within its own document, as a key and nothing else.
Counterpart: vedette.rules.places."""

from __future__ import annotations

from pathlib import Path

from vedette.model.errors import Location
from vedette.model.levels import Level
from vedette.model.rules import Rule
from vedette.rules.places import Places

TEXT = """title: First
detection:
  a:
    Image|endswith: CommandLine
    - 'User': x
    {Other: 1, Name: 2}
---
title: Second
detection:
  a: {Product: x}
  b: {ProductName: y}
"""


def at(file: Path, line: int, name: str) -> tuple[int, int]:
    found = Places().of(Rule("r", "R", Level.LOW, origin=Location(str(file), line, 1)), name)
    return found.line, found.column


def test_a_key_is_found_where_it_stands(tmp_path: Path):
    file = tmp_path / "r.yml"
    file.write_text(TEXT)
    assert at(file, 1, "Image") == (4, 5)
    assert at(file, 1, "User") == (5, 8)
    assert at(file, 1, "Name") == (6, 16)
    assert at(file, 8, "Product") == (10, 7)


def test_values_other_documents_and_longer_names_are_not_it(tmp_path: Path):
    file = tmp_path / "r.yml"
    file.write_text(TEXT)
    assert at(file, 1, "CommandLine") == (1, 1)
    assert at(file, 1, "Product") == (1, 1)
    assert at(file, 8, "ProductNam") == (8, 1)
    assert at(file, 8, "Image") == (8, 1)


def test_a_rule_without_a_file_has_its_own_place():
    assert Places().of(Rule("r", "R", Level.LOW), "x") == Location("<made by hand>")

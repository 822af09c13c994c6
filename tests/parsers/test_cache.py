"""Patterns come back as they were compiled, samples apart; what cannot be read is compiled anew.
Counterpart: vedette.parsers.cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vedette.parsers import cache
from vedette.parsers.registry import PATTERNS, PatternFile
from vedette.parsers.written import read_patterns


def without_samples(files: tuple[PatternFile, ...]) -> tuple[PatternFile, ...]:
    return tuple(
        replace(file, patterns=tuple(replace(one, samples=(), not_samples=()) for one in file.patterns))
        for file in files
    )


def test_every_pattern_comes_back_as_it_was(tmp_path: Path):
    compiled = read_patterns()
    first, second = cache.load(tmp_path / "cache"), cache.load(tmp_path / "cache")
    assert first.files == compiled.files
    assert second.files == without_samples(compiled.files)
    assert second.shapes[0].shape == compiled.shapes[0].shape
    assert [(flat.front, flat.back) for flat in second.shapes] == [(flat.front, flat.back) for flat in compiled.shapes]


def test_a_change_is_noticed(tmp_path: Path):
    folder = tmp_path / "patterns"
    folder.mkdir()
    text = (PATTERNS / "su.yml").read_bytes()
    (folder / "su.yml").write_bytes(text)
    before = cache.load(tmp_path / "cache", folder)
    (folder / "su.yml").write_bytes(text.replace(b"su-succeeded", b"su-changed"))
    after = cache.load(tmp_path / "cache", folder)
    actions = [{flat.constants["event.action"] for flat in patterns.shapes} for patterns in (before, after)]
    assert ["su-succeeded" in some for some in actions] == [True, False]


@pytest.mark.parametrize(
    "damage", [b"", b"x", b"\x90", b"\x92\xa1x\x01", b"\x96\xb1vedette-patterns\x01\x90\x90\x90\x91\x01"]
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(damage: bytes):
    assert cache.unpack(damage) is None

"""What is read without Typer is read as Typer reads it; what is not plain is left to it.
Counterpart: vedette.cli.plain."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vedette.cli import replay as command
from vedette.cli.commands import app
from vedette.cli.plain import plain_replay

WORDS = (
    "auth.log",
    "a b.gz",
    "--rules",
    "r",
    "--no-packs",
    "--keep-going",
    "--format",
    "json",
    "text",
    "--timezone",
    "UTC",
    "--year",
    "2026",
    "--workers",
    "2",
    "--output",
    "--",
    "-",
    "--work",
    "--year=3",
    "",
    "-h",
)


def by_typer(words: list[str]) -> dict[str, Any] | None:
    """What the command hands on; None where it hands on nothing."""
    seen: list[dict[str, Any]] = []
    with patch.object(command, "replay_files", lambda files, **given: seen.append({"files": list(files), **given})):
        CliRunner().invoke(app, ["replay", *words])
    return seen[0] if seen else None


DEFAULTS = {
    "rules": None,
    "pipelines": None,
    "no_packs": False,
    "keep_going": False,
    "format": "auto",
    "timezone": "UTC",
    "year": 0,
    "workers": 0,
    "output": "text",
}


@settings(max_examples=60)
@given(st.lists(st.sampled_from(WORDS), max_size=7))
def test_plain_words_mean_what_typer_makes_of_them(words: list[str]):
    plain = plain_replay(words)
    if plain is not None:
        assert DEFAULTS | plain == by_typer(words)


def test_the_usual_ways_are_plain():
    words = ["a.log", "b.log", "--output", "json", "--workers", "2", "--rules", "x", "--rules", "y", "--no-packs"]
    plain = plain_replay(words)
    assert plain is not None
    assert DEFAULTS | plain == by_typer(words)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--help",
        "a.log --help",
        "a.log --output xml",
        "a.log --year -1",
        "a.log --workers",
        "a.log -- --x",
        "a.log --year=3",
    ],
)
def test_what_is_not_plain_is_left_alone(words: str):
    assert plain_replay(words.split()) is None

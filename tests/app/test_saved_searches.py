"""Saved searches: kept, made into rules, and judged by the engine like any rule.
Counterpart: vedette.app.saved_searches and vedette.store.saved_searches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.cli.parts import Place

from vedette.app.detection import CaseEngine
from vedette.app.saved_searches import rules_from, rules_of
from vedette.model.errors import RuleError
from vedette.model.levels import Level
from vedette.store.saved_searches import SavedSearch, SavedSearches
from vedette.store.state import State

MINUTE = 60_000_000
SEARCH = SavedSearch("many-ports", "failed source.ip:192.0.2.0/24", 10 * MINUTE, 3, group_by=("source.ip",))


def failed(minute: int, address: str, hour: int = 0) -> bytes:
    time = f"2026-01-01T{hour:02}:{minute:02}:00Z"
    return f"{time} web01 sshd[1]: Failed password for root from {address} port 9 ssh2".encode()


def fired(search: SavedSearch, lines: list[bytes]) -> list[dict[str, object]]:
    return [dict(finding.key) for finding in CaseEngine()(rules_from(search), lines)]


def test_it_fires_for_each_group_at_its_threshold_within_its_window():
    lines = [failed(minute, "192.0.2.1") for minute in range(3)] + [failed(3, "192.0.2.2"), failed(4, "198.51.100.1")]
    (key,) = fired(SEARCH, lines)
    assert key["source.ip"] == "192.0.2.1"
    assert fired(SEARCH, lines[:2]) == []
    assert fired(SEARCH, [failed(minute, "192.0.2.1") for minute in (0, 20, 40)]) == []


def test_hours_say_when_it_watches():
    night = replace(SEARCH, hours=(22, 23, 0, 1))
    assert len(fired(night, [failed(minute, "192.0.2.1", hour=1) for minute in range(3)])) == 1
    assert fired(night, [failed(minute, "192.0.2.1", hour=9) for minute in range(3)]) == []


def test_its_level_and_name_are_those_of_its_finding():
    (finding,) = CaseEngine()(
        rules_from(replace(SEARCH, level=Level.HIGH.value)), [failed(minute, "192.0.2.1") for minute in range(3)]
    )
    assert (finding.rule_id, finding.level) == ("search-many-ports", Level.HIGH)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Many Ports"},
        {"name": "../x"},
        {"query": "(a"},
        {"query": "@timestamp:[2026-01-01 TO *]"},
        {"window": 0},
        {"window": 30 * 86_400_000_000},
        {"threshold": 0},
        {"comparison": "about"},
        {"level": 99},
        {"hours": (24,)},
        {"group_by": tuple("abcde")},
    ],
)
def test_what_cannot_be_a_rule_is_said_and_left_out(wrong: dict[str, object]):
    broken, said = replace(SEARCH, **wrong), []
    with pytest.raises(RuleError):
        rules_from(broken)
    assert len(rules_of([broken, SEARCH], say=said.append)) == 2
    assert len(said) == 1


def test_they_are_kept_by_name(tmp_path):
    state = State(tmp_path / "state.db")
    try:
        kept = SavedSearches(state)
        kept.save(SEARCH)
        kept.save(replace(SEARCH, name="another"))
        kept.save(replace(SEARCH, threshold=9))
        assert [(one.name, one.threshold) for one in kept.all()] == [("another", 3), ("many-ports", 9)]
        assert kept.remove("another")
        assert not kept.remove("another")
        assert kept.all() == [replace(SEARCH, threshold=9)]
    finally:
        state.close()


def test_the_command_line_saves_lists_and_removes(tmp_path):
    place = Place(tmp_path)
    place.state().close()
    words = ("search", "failed", "--save", "many-failures", "--threshold", "5", "--window", "10m", "--by", "source.ip")
    assert place.run(*words, "--level", "high").code == 0
    (row,) = place.run("search", "--saved", "--output", "json").records
    assert (row["name"], row["query"], row["threshold"], row["level"]) == ("many-failures", "failed", 5, "high")
    assert place.run("search", "(a", "--save", "other").code == 2
    assert place.run("search", "--remove", "many-failures").code == 0
    assert place.run("search", "--remove", "many-failures").code == 2
    assert place.run("search", "--saved", "--output", "json").records == []


@pytest.mark.parametrize(
    ("text", "hours"), [("22-6", (22, 23, 0, 1, 2, 3, 4, 5)), ("8-9", (8,)), ("8-24", tuple(range(8, 24)))]
)
def test_hours_go_round_midnight(tmp_path, text, hours):
    place = Place(tmp_path)
    place.state().close()
    assert place.run("search", "a", "--save", "x", "--hours", text).code == 0
    assert place.run("search", "--saved", "--output", "json").records[0]["hours"] == list(hours)
    assert place.run("search", "a", "--save", "x", "--hours", "25-3").code == 2

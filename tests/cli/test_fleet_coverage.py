"""Gaps from the command line, one a line; nothing missing is said and ends with 0.
Counterpart: vedette.cli.fleet_coverage."""

from __future__ import annotations

import pytest
from tests.app.search_parts import HOST_ID, lake_of, put
from tests.cli.parts import Place

from vedette.model.clock import MINUTE, SystemClock
from vedette.text.times import rfc3339


@pytest.fixture
def filled(place: Place) -> Place:
    """Three batches of the last hours; the third number never came."""
    place.state().close()
    now = SystemClock().now()
    with lake_of(place.data / "lake", []) as lake:
        for number, minutes in ((1, 40), (2, 30), (4, 20)):
            at = now - minutes * MINUTE
            put(lake, number, [f"{rfc3339(at)} web01 sshd[1]: a".encode()], created=at)
        lake.flush()
    return place


def test_a_gap_is_one_object_with_its_minutes(filled: Place) -> None:
    ran = filled.run("fleet", "coverage", "--since", "35m", "--output", "json")
    assert (ran.code, len(ran.records)) == (1, 1)
    [gap] = ran.records
    assert (gap["host.id"], gap["reason"], gap["stream"]) == (HOST_ID, "batches-missing", "auth")
    assert 10 <= gap["minutes"] <= 11
    assert "minutes not covered: batches missing (auth)" in ran.err
    table = filled.run("fleet", "coverage", HOST_ID[:8], "--since", "35m")
    assert table.code == 1
    assert "batches missing" in table.out


def test_where_nothing_is_missing_that_is_said(filled: Place) -> None:
    ran = filled.run("fleet", "coverage", "--since", "19m")
    assert (ran.code, ran.out.strip(), ran.err) == (0, "complete", "")
    ran = filled.run("fleet", "coverage", "--since", "19m", "--output", "json")
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("nobody",), "no host is called"),
        (("--since", "1h", "--until", "2h"), "nothing lies between"),
        (("--since", "soon"), "--since"),
    ],
)
def test_what_cannot_be_answered_ends_with_2(filled: Place, more: tuple[str, ...], words: str) -> None:
    ran = filled.run("fleet", "coverage", *more)
    assert ran.code == 2
    assert words in ran.err

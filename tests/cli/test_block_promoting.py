"""How far a rule may block, from the command line: up by what the lake says of its past, down at a word.
Counterpart: vedette.cli.block_promoting and vedette.app.block_promotion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.app.search_parts import lake_of
from tests.app.test_backtest import BATCHES, CREATED, RULE, failed
from tests.cli.parts import Place

from vedette.app.host import AUDIT_FILE
from vedette.config.load import load_settings
from vedette.model.decisions import Rung

EVER = ("--since", "1970-01-01")


@pytest.fixture
def quiet(tmp_path: Path) -> Place:
    """A place whose lake has attackers and no customer among them."""
    return place_of(tmp_path, [[failed(second, "203.0.113.8") for second in range(6)]])


def place_of(tmp_path: Path, batches: list[list[bytes]], more: str = "") -> Place:
    place = Place(tmp_path)
    place.config.write_text(f"version: 1\ndata: {place.data}\n{more}")
    with lake_of(place.data / "lake", batches, created=CREATED):
        pass
    return place


def rung(place: Place) -> Rung | None:
    return load_settings(place.config).respond.get(RULE)


def written(place: Place) -> Path:
    return place.config.parent / "conf.d" / "respond.yml"


def test_one_rung_after_the_other_with_the_report_in_the_audit(quiet: Place) -> None:
    ran = quiet.run("block", "promote", RULE, *EVER)
    assert ran.code == 0, ran.err
    assert "1 block of 6 records" in ran.out
    assert f"{RULE}: observe -> simulate, written to {written(quiet)}" in ran.out
    assert "reloaded (SIGHUP)" in ran.err
    assert rung(quiet) is Rung.SIMULATE
    # Without canary hosts that rung is passed over.
    (told,) = quiet.run("block", "promote", RULE, *EVER, "--reason", "two quiet weeks", "--output", "json").records
    assert (told["from"], told["to"], told["written"]) == ("simulate", "enforce", str(written(quiet)))
    assert (told["report"]["blocks"], told["report"]["false_blocks"]) == (1, 0)
    assert rung(quiet) is Rung.ENFORCE
    last = json.loads((quiet.data / AUDIT_FILE).read_text().splitlines()[-1])
    assert last["event"]["action"] == "response-promoted"
    assert last["vedette"]["audit"]["reason"].startswith("two quiet weeks; ssh-brute-force-address: 1 block of 6")
    again = quiet.run("block", "promote", RULE, *EVER)
    assert (again.code, "is at enforce already" in again.err) == (2, True)


def test_who_would_have_blocked_a_customer_stays_where_he_is(tmp_path: Path) -> None:
    place = place_of(tmp_path, BATCHES)
    ran = place.run("block", "promote", RULE, *EVER)
    assert ran.code == 2
    assert "FALSE BLOCKS" in ran.out
    assert "would have blocked 2 addresses from which somebody logged in" in ran.err
    (told,) = place.run("block", "promote", RULE, *EVER, "--output", "json").records
    assert (told["written"], told["report"]["false_targets"]) == (None, ["203.0.113.7", "203.0.113.8"])
    assert rung(place) is None
    assert not written(place).exists()
    ran = place.run("block", "promote", RULE, *EVER, "--despite", "both were the pentest")
    assert ran.code == 0, ran.err
    assert rung(place) is Rung.SIMULATE
    assert "despite false blocks: both were the pentest" in written(place).read_text()


def test_a_lake_without_records_of_that_time_proves_nothing(quiet: Place) -> None:
    ran = quiet.run("block", "promote", RULE, "--since", "1970-01-01", "--until", "1970-01-02")
    assert ran.code == 2
    assert "the lake has no records of that time" in ran.err
    assert rung(quiet) is None


def test_several_rungs_at_once_must_be_meant(tmp_path: Path) -> None:
    hosts = "blocking:\n  canary_hosts: [web01]\n"
    place = place_of(tmp_path, [[failed(second, "203.0.113.8") for second in range(6)]], hosts)
    ran = place.run("block", "promote", RULE, *EVER, "--to", "enforce")
    assert (ran.code, "--to simulate is the next one" in ran.err) == (2, True)
    assert place.run("block", "promote", RULE, *EVER, "--to", "enforce", "--yes", "--dry-run").code == 0
    assert rung(place) is None
    for wanted in (Rung.SIMULATE, Rung.CANARY, Rung.ENFORCE):
        assert place.run("block", "promote", RULE, *EVER).code == 0
        assert rung(place) is wanted


def test_down_needs_neither_report_nor_lake(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.config.write_text(f"version: 1\ndata: {place.data}\n")
    written(place).parent.mkdir()
    written(place).write_text(f"respond:\n  {RULE}: enforce\n  other: simulate\n")
    ran = place.run("block", "demote", RULE, "--reason", "a customer rang")
    assert ran.code == 0, ran.err
    assert f"{RULE}: enforce -> observe" in ran.out
    assert load_settings(place.config).respond == {RULE: Rung.OBSERVE, "other": Rung.SIMULATE}
    last = json.loads((place.data / AUDIT_FILE).read_text().splitlines()[-1])
    assert last["event"]["action"] == "response-demoted"
    again = place.run("block", "demote", RULE)
    assert (again.code, "is at observe already" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ssh-brute-force-addres",), "did you mean"),
        (("logging-stopped",), "asks for no block"),
        ((RULE, "--to", "canary"), "there are no canary hosts"),
        ((RULE, "--to", "observe"), "is at observe already"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_run(quiet: Place, words: tuple[str, ...], said: str) -> None:
    ran = quiet.run("block", "promote", *words)
    assert ran.code == 2
    assert said in ran.err
    assert "blocks of" not in ran.out


def test_a_rung_set_elsewhere_is_left_to_who_set_it(tmp_path: Path) -> None:
    place = place_of(
        tmp_path, [[failed(second, "203.0.113.8") for second in range(6)]], f"respond: {{{RULE}: simulate}}\n"
    )
    ran = place.run("block", "promote", RULE, *EVER)
    assert ran.code == 2
    assert f"the rung of {RULE} is set here" in ran.err
    assert f"{place.config}:3" in ran.err
    assert rung(place) is Rung.SIMULATE

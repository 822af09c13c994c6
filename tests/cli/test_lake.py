"""`vedette lake erase` from the command line: a look first, then who, why and how many in ledger, search and audit.
Counterpart: vedette.cli.lake and vedette.app.erasing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.app.search_parts import put
from tests.cli.parts import Place, vedette

from vedette.app.counters import Counters
from vedette.app.erasing import Eraser
from vedette.app.host import AUDIT_FILE, host_id
from vedette.app.ledger import KEY_FILE, LAKE, MANIFEST
from vedette.app.roles import role_of
from vedette.model.clock import SystemClock
from vedette.model.operators import Role
from vedette.store.lake.lake import Lake
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.ledger import Ledger
from vedette.text.times import rfc3339


@pytest.fixture
def kept(place: Place) -> Iterator[Place]:
    place.data.mkdir(mode=0o700)
    me, clock = host_id(place.data), SystemClock()
    signer = signing_key(place.data / KEY_FILE, f"vedette/{me}")
    ledger = Ledger(place.data / LAKE / MANIFEST, signer, clock=clock)
    lake = Lake(place.data / LAKE, clock=clock, counter=Counters(), ledger=ledger)
    at = rfc3339(clock.now() - 60_000_000)
    lines = [
        f"{at} web01 sshd[1]: Accepted password for mallory from 192.0.2.1 port 22 ssh2",
        f"{at} web01 sshd[2]: Accepted password for bob from 192.0.2.1 port 23 ssh2",
    ]
    put(lake, 1, [line.encode() for line in lines], host_id=me)
    put(lake, 1, [f"{at} web01 vedette: bob ran mallory".encode()], stream="audit", host_id=me)
    lake.flush()
    lake.close()
    yield place
    ledger.close()


def test_a_look_changes_nothing_and_says_what_is_not_reached(kept: Place):
    kept.configure("forward: [{name: sumo, type: files, folder: /tmp/x}]\n")
    ran = kept.run("lake", "erase", "user.name:mallory")
    assert ran.code == 0, ran.err
    assert "1 of auth of host" in ran.out
    assert "1 record of 1 batch would be erased" in ran.out
    assert "what was sent on to `sumo`" in ran.err
    (found,) = kept.run("search", "user.name:mallory", "--output", "json").records
    (looked,) = kept.run("lake", "erase", "--record", found["record.id"], "--output", "json").records
    assert (looked["erased"], looked["records"], looked["kept_in_audit"]) == (False, 1, 0)
    assert not (kept.data / AUDIT_FILE).exists()


def test_erased_it_is_told_by_search_ledger_and_audit_and_the_query_by_none_of_them(kept: Place, tmp_path: Path):
    key = kept.run("ledger", "head", "--output", "json").records[0]["key"]
    ran = kept.run("lake", "erase", "mallory", "--yes", "--reason", "ticket 17")
    assert ran.code == 0, ran.err
    assert "erased: 1 record of 1 batch;" in ran.out
    assert "1 record of the audit fits; it stays" in ran.err
    ran = kept.run("search", "mallory OR bob", "--output", "json")
    assert sorted(row["vedette.stream"] for row in ran.records) == ["audit", "auth"]
    assert "complete but for" in ran.err
    assert "1 record erased on request" in ran.err
    kept.run("ledger", "export", tmp_path / "export")
    for verified in (kept.run("ledger", "verify"), vedette("ledger", "verify", tmp_path / "export", "--key", key)):
        assert verified.code == 0, verified.out
        assert "for the reason 'ticket 17': 1 record of 1 batch of auth" in verified.out
        assert verified.out.splitlines()[-1].startswith("intact: 3 of 3 leaves and 2 records")
    (line,) = (kept.data / AUDIT_FILE).read_text().splitlines()
    said = json.loads(line)
    assert said["event"]["action"] == "records-erased"
    assert said["vedette"]["audit"] == {"reason": "ticket 17", "records": 1, "batches": 1}
    assert "mallory" not in line
    again = kept.run("lake", "erase", "user.name:mallory", "--yes", "--reason", "ticket 17")
    assert "no record is of that kind; nothing was done" in again.out


@pytest.mark.parametrize("by", ["query", "record"])
def test_what_a_killed_erasure_left_on_the_disk_goes_with_the_next(
    kept: Place, by: str, monkeypatch: pytest.MonkeyPatch
):
    (found,) = kept.run("search", "user.name:mallory", "--output", "json").records
    with monkeypatch.context() as patched:
        patched.setattr("vedette.store.lake.erasing.delete_replaced", lambda *_, **__: 0)
        eraser = Eraser(kept.data, SystemClock())
        with eraser.alone():
            eraser.carry_out(eraser.named([found["record.id"]]), who="me", why="ticket 17")
        eraser.close()
    assert len(list((kept.data / LAKE).rglob("*.parquet"))) == 2
    words = ["user.name:mallory"] if by == "query" else ["--record", found["record.id"]]
    kept.run("lake", "erase", *words)
    assert len(list((kept.data / LAKE).rglob("*.parquet"))) == 2
    kept.run("lake", "erase", *words, "--yes", "--reason", "ticket 17")
    assert len(list((kept.data / LAKE).rglob("*.parquet"))) == 1


def test_a_query_from_standard_input_is_in_no_list_of_processes(kept: Place):
    ran = vedette("lake", "erase", "-", "--config", kept.config, stdin=b"user.name:mallory\n")
    assert "1 record of 1 batch would be erased" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--yes", "--reason", "x"], "name records by a query, or by --record", id="nothing-named"),
        pytest.param(["a", "--record", "b"], "name records by a query, or by --record", id="both"),
        pytest.param(["mallory", "--yes"], "--reason: say why", id="no-reason"),
        pytest.param(
            ["a | count by user.name", "--yes", "--reason", "x"], "a query that says which records", id="pipe"
        ),
        pytest.param([" ", "--yes", "--reason", "x"], "a query that says which records", id="everything"),
        pytest.param(["--record", "zz", "--yes", "--reason", "x"], "is no record id", id="no-id"),
    ],
)
def test_what_is_not_clear_erases_nothing(kept: Place, words: list[str], said: str):
    before = kept.run("ledger", "head").out
    ran = kept.run("lake", "erase", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert kept.run("ledger", "head").out == before


def test_it_needs_an_admin_and_its_query_is_not_for_the_audit():
    from vedette.app.audit import arguments
    from vedette.app.roles import UNTOLD

    assert role_of("lake erase") is Role.ADMIN
    told = arguments({"query": "mallory", "reason": "ticket 17"}, UNTOLD["lake erase"])
    assert told == ["query=***", "reason=ticket 17"]


def test_no_lake_is_an_error_with_a_hint(place: Place):
    place.data.mkdir()
    ran = place.run("lake", "erase", "mallory")
    assert ran.code == 2
    assert "no lake in" in ran.err

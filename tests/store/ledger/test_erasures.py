"""Single records erased lawfully: said with who, when, why and how many; the others are proven, and attacks found.
Counterpart: vedette.store.ledger.redacted, erasures; `verify` of an export and `audit` on the hub."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.ledger.parts import HOST, SIGNER, Hub, batch_of, edit, key

from vedette.app.erasing import Eraser
from vedette.model.batch import Batch
from vedette.model.errors import StateError
from vedette.model.shipping import BatchKey
from vedette.store.lake.erasing import Cut
from vedette.store.ledger.audit import audit
from vedette.store.ledger.export import prove
from vedette.store.ledger.leaves import Erasure, LeafError, Part, parse_leaf
from vedette.store.ledger.notes import Signer
from vedette.store.ledger.records import hashes_of, leaf_of
from vedette.store.ledger.redacted import compare_rest, logged_hashes, numbers_of, rest_hashes, without, without_more
from vedette.store.ledger.tree import root_of
from vedette.store.ledger.verdicts import Verdict
from vedette.store.ledger.verify import Result, Trusted, verify
from vedette.testing.clock import START

TRUSTED = Trusted(key=SIGNER.verifier)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    made.take(1, 2, 3)
    yield made
    made.close()


def less(batch: Batch, rows: list[int]) -> Batch:
    """The batch without these, as the lake gives it back."""
    keep = [row for row in range(len(batch)) if row not in rows]
    return batch_of(*(batch.raw(row) for row in keep), number=batch.number, positions=batch.positions[keep])


def erase(hub: Hub, numbers: list[int], rows: list[int], *, who: str = "alice", why: str = "ticket 17") -> None:
    """As `vedette lake erase` does, on a lake that is a dict; rows: by where they stand now."""
    cuts = [
        Cut(key(number), hub.lake[key(number)], less(hub.lake[key(number)], rows), np.asarray(rows))
        for number in numbers
    ]
    eraser = object.__new__(Eraser)
    eraser._ledger = hub.ledger
    parts = eraser._parts(cuts)
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA secure_delete = OFF")  # as some systems have it
        hub.ledger.erase_records(connection, parts, who=who, why=why, at=START)
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    hub.lake |= {cut.key: cut.rest for cut in cuts}


def both(hub: Hub, name: str = "export") -> tuple[Result, Result]:
    """What is told offline from exported files, and on the hub."""
    return verify(hub.export(name), TRUSTED), audit(hub.ledger, SIGNER.verifier, hub.lake.items())


def test_it_is_said_who_erased_how_many_when_and_why_and_the_others_are_proven(hub: Hub):
    early = hub.ledger.checkpoint()
    erase(hub, [1, 3], [1])
    for found in (*both(hub), verify(hub.export("held"), Trusted(checkpoints=[early], complete=True))):
        assert found.verdicts == {Verdict.ERASED, Verdict.INTACT}
        assert [one.text for one in found.statements] == [
            "erased lawfully by alice on 2026-11-24T00:00:00Z for the reason 'ticket 17': "
            "2 records of 2 batches of file"
        ]
        assert (found.records, found.wrong, found.untold) == (7, False, False)
    text = "".join(path.read_text(errors="replace") for path in (hub.folder / "export").iterdir())
    assert b64encode(b"record 1.1").decode() not in text
    assert b64encode(b"record 1.0").decode() in text


def test_erasing_again_from_the_same_batch(hub: Hub):
    erase(hub, [1], [1])
    erase(hub, [1], [1], why="ticket 18")  # what stood third
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, Verdict.INTACT}
        assert [one.text.rpartition(": ")[2] for one in found.statements] == ["1 record of 1 batch of file"] * 2
        assert found.records == 7
    erase(hub, [1], [0], why="ticket 19")
    for found in both(hub, "third"):
        assert (found.verdicts, found.records) == ({Verdict.ERASED, Verdict.INTACT}, 6)


def test_a_part_of_the_log_tells_it_too(hub: Hub):
    erase(hub, [2], [0, 2])
    found = verify(hub.export(keys={key(2)}), TRUSTED)
    assert (found.verdicts, found.records) == ({Verdict.ERASED, Verdict.INTACT}, 1)
    # Of a batch that has lost nothing an erasure of others says nothing wrong either.
    assert verify(hub.export("other", keys={key(1)}), TRUSTED).verdicts == {Verdict.INTACT}


def test_one_record_of_the_rest_is_proven_by_its_old_number_and_an_erased_one_never(hub: Hub, tmp_path: Path):
    before = prove(hub.ledger, SIGNER.verifier, key(1), hub.lake[key(1)], 2)["records"]
    erase(hub, [1], [1])
    proof = prove(hub.ledger, SIGNER.verifier, key(1), hub.lake[key(1)], 2)
    assert proof["records"] == before
    (tmp_path / "proof").write_text(json.dumps(proof))
    found = verify(tmp_path / "proof", TRUSTED)
    assert (found.verdicts, found.records) == ({Verdict.ERASED, Verdict.INTACT}, 1)
    with pytest.raises(StateError, match="this record was erased") as error:
        prove(hub.ledger, SIGNER.verifier, key(1), hub.lake[key(1)], 1)
    assert "alice: ticket 17" in error.value.hint


def test_retention_after_erasure(hub: Hub):
    erase(hub, [1], [1])
    hub.erase(1, 2)
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, Verdict.INTACT}
        assert len(found.statements) == 2
        assert found.records == 3
    with hub.ledger.reading() as connection:
        assert hub.ledger.kept(connection, 0) is None
    with hub.ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger_kept").scalar() == 0


def test_a_byte_of_what_stays_flipped(hub: Hub):
    erase(hub, [1], [1])
    folder = hub.export()

    def flip(lines):
        lines[0]["records"][1] = b64encode(b"record 1.X").decode()

    edit(folder / "batches.jsonl", flip)
    (_, said) = verify(folder, TRUSTED).statements
    assert (said.verdict, said.number, said.record) == (Verdict.RECORD_CHANGED, 1, 2)
    hub.lake[key(1)] = batch_of(b"record 1.0", b"record 1.X", number=1)
    (_, said) = audit(hub.ledger, SIGNER.verifier, hub.lake.items()).statements
    assert (said.verdict, said.number) == (Verdict.RECORD_CHANGED, 1)


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        pytest.param([b"record 1.0"], Verdict.RECORD_REMOVED, id="another-removed"),
        pytest.param([b"record 1.0", b"record 1.1", b"record 1.2"], Verdict.RECORD_ADDED, id="the-erased-one-back"),
        pytest.param([b"record 1.2", b"record 1.0"], Verdict.RECORD_CHANGED, id="in-another-order"),
    ],
)
def test_what_else_is_done_to_the_batch_is_found_and_named(hub: Hub, records: list[bytes], verdict: Verdict):
    erase(hub, [1], [1])
    hub.lake[key(1)] = batch_of(*records, number=1)
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, verdict}
        assert found.wrong


def test_other_batches_removed_beside_an_erasure_are_not_covered_by_it(hub: Hub):
    erase(hub, [1], [1])
    del hub.lake[key(2)]
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, Verdict.BATCH_REMOVED}


def test_a_rest_that_was_made_by_who_has_not_the_key_is_found(hub: Hub):
    """One more record taken out, and what is kept of the tree made to fit: the signed leaf says otherwise."""
    erase(hub, [1], [1])
    batch = hub.lake[key(1)]
    with hub.ledger.reading() as connection:
        kept = hub.ledger.kept(connection, 0)
        part = hub.ledger.part(connection, key(1))
    assert kept is not None
    assert part is not None
    hashes = logged_hashes(3, part.records, kept, [batch.raw(0), batch.raw(1)])
    forged = without_more(kept, 3, part.records, hashes, ((1, 2),))
    with hub.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE ledger_kept SET salts = ?, hashes = ?, seed = ?", (forged.salts, forged.hashes, forged.seed)
        )
    hub.lake[key(1)] = less(batch, [1])
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, Verdict.RECORD_REMOVED}


def test_a_rest_whose_tree_was_changed_is_not_taken_for_what_was_logged(hub: Hub):
    erase(hub, [1], [1])
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_kept SET hashes = zeroblob(64)")
    for found in both(hub):
        assert found.verdicts == {Verdict.ERASED, Verdict.RECORD_CHANGED}


def test_an_erasure_somebody_else_signed_covers_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub.ledger, "_signing", lambda: Signer.generate(SIGNER.verifier.name))
    erase(hub, [1], [1])
    monkeypatch.undo()
    for found in both(hub):
        assert Verdict.UNREADABLE in found.verdicts
        assert Verdict.ERASED not in found.verdicts
        assert Verdict.BATCH_UNKNOWN in found.verdicts


def test_records_that_came_back_into_an_export_are_named(hub: Hub):
    old = verify(hub.export("old"), TRUSTED)
    assert old.verdicts == {Verdict.INTACT}
    erase(hub, [1], [1])
    folder = hub.export()
    before = (hub.folder / "old" / "batches.jsonl").read_text().splitlines(keepends=True)
    now = (folder / "batches.jsonl").read_text().splitlines(keepends=True)
    (folder / "batches.jsonl").write_text("".join([before[0], *now[1:]]))
    found = verify(folder, TRUSTED)
    assert found.verdicts == {Verdict.ERASED, Verdict.BATCH_UNKNOWN}


def test_nothing_is_erased_of_a_batch_that_is_not_as_it_was_taken_in(hub: Hub):
    hub.lake[key(1)] = batch_of(b"record 1.0", b"forged", b"record 1.2", number=1)
    with pytest.raises(StateError, match="batch 1 of file is not as it was taken in"):
        erase(hub, [1], [1])
    hub.lake[BatchKey(HOST, "file", 9)] = batch_of(b"slipped in", b"x", number=9)
    with pytest.raises(StateError, match="batch 9 of file is not in the ledger"):
        erase(hub, [9], [1])
    erase(hub, [2], [1])
    hub.lake[key(2)] = batch_of(b"record 2.0", b"forged", number=2)
    with pytest.raises(StateError, match="batch 2 of file is not as it was taken in"):
        erase(hub, [2], [1])


def test_the_salt_of_an_erased_record_is_nowhere_in_the_database(hub: Hub):
    with hub.ledger.reading() as connection:
        (entry,) = hub.ledger.entries(connection, 0, 1)
    assert entry.seed is not None
    from vedette.store.ledger.salted import salts_of

    salts = salts_of(entry.seed, 4)
    erase(hub, [1], [1])
    hub.close()
    with sqlite3.connect(hub.folder / "manifest.db") as database:
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    everything = (hub.folder / "manifest.db").read_bytes()
    assert salts[0] in everything
    assert salts[2] in everything
    for gone in (entry.seed, salts[1], salts[3]):
        assert gone not in everything


def test_a_version_without_erasures_refuses_the_ledger(hub: Hub):
    def format_of() -> object:
        with hub.ledger.reading() as connection:
            return connection.exec_driver_sql("SELECT value FROM ledger_meta WHERE name = 'format'").scalar()

    assert format_of() == "vedette-ledger/1"
    erase(hub, [1], [1])
    assert format_of() == "vedette-ledger/2"
    hub.take(4)
    assert both(hub)[1].verdicts == {Verdict.ERASED, Verdict.INTACT}


def body(what: object) -> bytes:
    said = {"kind": "request", "who": "a", "why": "b", "at": 1, "what": what}
    return SIGNER.sign(f"vedette-ledger-erasure/1\n{json.dumps(said)}\n").encode()


ROOT = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("no list", id="no-list"),
        pytest.param([[HOST, "file", 1, [[0, 0]], 1]], id="no-root"),
        pytest.param([[HOST, "file", 1, [[0, 0]], 1, "AAAA"]], id="short-root"),
        pytest.param([[HOST, "file", 1, [[3, 1]], 1, ROOT]], id="backwards"),
        pytest.param([[HOST, "file", 1, [[0, 2], [2, 3]], 1, ROOT]], id="overlapping"),
        pytest.param([[HOST, "file", 1, [[-1, 2]], 1, ROOT]], id="negative"),
        pytest.param([[HOST, "file", 1, [[0, 2**40]], 1, ROOT]], id="larger-than-any-batch"),
        pytest.param([[HOST, "file", 1, [["0", 2]], 1, ROOT]], id="no-number"),
    ],
)
def test_what_is_no_erasure_is_refused(what: object):
    with pytest.raises(LeafError):
        parse_leaf(body(what))


def test_an_erasure_reads_back(hub: Hub):
    made = Erasure("a", "b", 5, (Part(key(1), ((0, 0), (2, 4)), 4, bytes(32)),))
    assert parse_leaf(made.encode(SIGNER)) == made


@given(st.data())
def test_any_records_in_any_order_of_erasures(data: st.DataObject):
    count = data.draw(st.integers(1, 9))
    batch = batch_of(*(b"record %d" % row for row in range(count)))
    leaf = leaf_of(key(1), batch, b"s" * 16)
    hashes = hashes_of(batch, b"s" * 16)
    gone: set[int] = set()
    kept, runs = None, ()
    from vedette.store.ledger.leaves import spans_of
    from vedette.store.ledger.records import facts_of, raws_of

    for _ in range(data.draw(st.integers(1, 3))):
        more = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
        rest = less(batch, sorted(gone))
        before, gone = runs, gone | more
        runs = tuple(spans_of(sorted(gone)))
        if kept is None:
            kept = without(b"s" * 16, count, hashes, runs)
        else:
            kept = without_more(kept, count, before, logged_hashes(count, before, kept, raws_of(rest)), runs)
    assert kept is not None
    assert numbers_of(runs) == sorted(gone)
    rest = less(batch, sorted(gone))
    rest_root = root_of(rest_hashes(kept, raws_of(rest), facts_of(rest)))
    assert compare_rest(leaf.root, count, runs, rest_root, kept, raws_of(rest), facts_of(rest)) is None
    if len(rest):
        raws = raws_of(rest)
        raws[data.draw(st.integers(0, len(raws) - 1))] += b"!"
        assert compare_rest(leaf.root, count, runs, rest_root, kept, raws, facts_of(rest)) is not None

"""The log on disk: grows with the lake's transaction or not at all, proves, erases; and the lake held to it.
Counterpart: vedette.store.ledger.ledger, audit, records; the real lake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from tests.store.ledger import reference
from tests.store.ledger.parts import SIGNER, Hub, batch_of, key

from vedette.app.counters import Counters
from vedette.model.batch import GivenHeader, RecordFormat, Trust
from vedette.model.errors import StateError
from vedette.model.events import Column
from vedette.model.shipping import Headers
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Reader
from vedette.store.ledger.audit import audit
from vedette.store.ledger.leaves import (
    Batches,
    BatchLeaf,
    ErasureKind,
    GapLeaf,
    LeafError,
    Tombstone,
    parse_leaf,
)
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.records import facts_of, hashes_of, leaf_of, raws_of
from vedette.store.ledger.salted import batch_hashes, compare, salts_of
from vedette.store.ledger.tree import consistency_holds, inclusion_holds, leaf_hash
from vedette.store.ledger.verdicts import Verdict
from vedette.testing.clock import START, FakeClock


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    yield made
    made.close()


def test_the_log_is_the_tree_of_the_rfc_over_what_came(hub: Hub):
    hub.take(1, 2, 3)
    hub.take(4)
    hub.erase(2, 2)
    hub.take(*range(5, 12))
    with hub.ledger.reading() as connection:
        data = [entry.data for entry in hub.ledger.entries(connection, 0, 12)]
    head = hub.ledger.head()
    assert (head.size, head.root) == (12, reference.mth(data))
    for number in (1, 4, 11):
        proof = hub.ledger.inclusion(key(number))
        assert proof is not None
        assert proof.path == reference.path(proof.entry.index, data)
        assert inclusion_holds(leaf_hash(proof.entry.data), proof.entry.index, 12, proof.path, head.root)
    early = hub.ledger.inclusion(key(1), 3)
    assert early is not None
    assert early.path == reference.path(0, data[:3])
    assert hub.ledger.inclusion(key(11), 3) is None
    assert hub.ledger.inclusion(key(99)) is None
    proof = hub.ledger.consistency(5, 12)
    assert consistency_holds(5, 12, reference.mth(data[:5]), head.root, proof)


@pytest.mark.parametrize("asked", [[1, 3, 4, 5], [5, 4, 3, 1], [4, 9, 5, 2, 1, 1], [3]])
def test_leaves_are_found_in_whatever_order_they_are_asked_for(hub: Hub, asked: list[int]):
    hub.take(1, 2, 3)
    hub.erase(2, 2)
    hub.take(4, 5)
    with hub.ledger.reading() as connection:
        leaf_of_batch = hub.ledger.in_order(connection, 6)
        found = [leaf_of_batch(key(number)) for number in asked]
        assert [hub.ledger.order(connection, index) for index in (0, 1, 2, 4, 5)] == [1, 2, 3, 4, 5]
    numbers = [0 if entry is None or entry.batch is None else entry.batch.number for entry in found]
    assert numbers == [0 if number == 9 else number for number in asked]


def test_what_the_transaction_does_not_keep_was_never_appended(hub: Hub):
    hub.take(1)
    before = hub.ledger.head()
    with hub.engine.connect() as connection:
        hub.ledger.append(connection, [leaf_of(key(2), batch_of(b"lost"))])
        assert hub.ledger.size(connection) == 2
        connection.rollback()
    assert hub.ledger.head() == before
    hub.take(2)
    with pytest.raises(IntegrityError):
        hub.take(2)
    assert hub.ledger.head().size == 2


def test_a_proof_takes_two_queries_however_long_the_log(hub: Hub):
    hub.take(*range(1, 200))
    seen: list[str] = []
    with hub.ledger.reading() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: seen.append(args[2]))
        hub.ledger.path(connection, 77, 199)
        hub.ledger.consistency_path(connection, 78, 199)
    # Nodes above the leaves in one query, and a leaf that has no node of its own in another.
    assert len(seen) <= 6


def test_checkpoints_of_a_changed_database_are_not_signed_again(hub: Hub):
    hub.take(1, 2)
    hub.ledger.checkpoint()
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_leaves SET records = 7 WHERE leaf = 0")
        connection.exec_driver_sql("UPDATE ledger_nodes SET hash = zeroblob(32)")
    with pytest.raises(StateError, match="not what was signed"):
        hub.ledger.checkpoint()
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_nodes")
    with pytest.raises(StateError, match="somebody removed it"):
        hub.ledger.head()


def test_a_ledger_that_is_not_there_or_newer_is_said(tmp_path: Path, hub: Hub):
    with pytest.raises(StateError, match="no ledger"):
        Ledger(tmp_path / "none.db", None, clock=FakeClock()).head()
    with pytest.raises(StateError, match="no ledger"):
        hub.ledger.head()
    hub.take(1)
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_meta SET value = 'vedette-ledger/3'")
    with pytest.raises(StateError, match="run the version that wrote it"):
        hub.take(2)


words = st.text(max_size=8)


@settings(max_examples=40)
@given(words, words, st.integers(1, 2**40), st.integers(0, 2**40), words)
def test_leaves_are_read_back_as_they_were_written(host: str, stream: str, number: int, records: int, why: str):
    batch = BatchLeaf(host, stream, number, records, 5, bytes(range(32)))
    gap = GapLeaf(Batches(host, stream, number, number + 2), -1, why, 7)
    stone = Tombstone(ErasureKind.REQUEST, why, why, 9, (Batches(host, stream, 1, number),))
    assert parse_leaf(batch.encode()) == batch
    assert parse_leaf(gap.encode()) == gap
    assert parse_leaf(stone.encode(SIGNER)) == stone


@settings(max_examples=100)
@given(st.binary() | st.text('{}[]":,1').map(str.encode))
def test_other_bytes_are_no_leaf(data: bytes):
    with pytest.raises(LeafError):
        parse_leaf(data)


def test_an_unknown_version_is_no_leaf():
    data = BatchLeaf("h", "s", 1, 1, 1, bytes(32)).encode()
    for changed in (data.replace(b"/1", b"/2"), data.replace(b":1,", b":true,"), data.replace(b"AAAA", b"")):
        with pytest.raises(LeafError):
            parse_leaf(changed)


raws = st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=9)


@settings(max_examples=50)
@given(raws, st.binary(min_size=16, max_size=16), st.data())
def test_the_quick_hashes_are_the_plain_ones_and_any_change_is_seen(records, seed, data):
    batch = batch_of(*records)
    hashes = hashes_of(batch, seed)
    facts = facts_of(batch)
    salts = salts_of(seed, len(records) + 1)
    assert hashes == [reference.digest(b"\0" + salt + raw) for salt, raw in zip(salts, [*records, facts], strict=True)]
    assert hashes == batch_hashes(seed, records, facts)
    leaf = leaf_of(key(1), batch, seed)
    # MTH over data whose own leaf hash is the salted one.
    assert leaf.root == reference.mth([salt + raw for salt, raw in zip(salts, [*records, facts], strict=True)])
    assert compare(leaf.root, len(records), seed, raws_of(batch), facts) is None
    if records:
        place = data.draw(st.integers(0, len(records) - 1))
        changed = [*records[:place], records[place] + b"!", *records[place + 1 :]]
        difference = compare(leaf.root, len(records), seed, changed, facts, hashes)
        assert difference is not None
        assert (difference.kind, difference.record) == ("changed", place)


def test_what_is_known_of_a_batch_is_in_its_leaf():
    batch = batch_of(b"one", b"two")
    seed = bytes(16)
    root = leaf_of(key(1), batch, seed).root
    header = GivenHeader(np.zeros(2, np.int64), ["a", "b"], ["x", "y"], np.array([1, 2], np.int64))
    changes: list[dict[str, Any]] = [
        {"trust": Trust.ATTESTED},
        {"trust": np.array([1, 2], np.uint8)},
        {"positions": np.array([0, 5], np.int64)},
        {"read_at": START + 1},
        {"format": RecordFormat.JSON},
        {"timezone": "Europe/Zurich"},
        {"year": 2026},
        {"spooled": True},
        {"dropped": {"late": 1}},
        {"header": header},
        {"header": replace(header, pid=np.array([1, 3], np.int64))},
        {"header": replace(header, program=["x", "z"])},
    ]
    roots = {leaf_of(key(1), replace(batch, **change), seed).root for change in changes}
    assert len(roots | {root}) == len(changes) + 1
    same = replace(batch, trust=np.full(2, int(Trust.FORGEABLE), np.uint8))
    assert leaf_of(key(1), same, seed).root == root
    assert leaf_of(key(1), batch).root != leaf_of(key(1), batch).root


# ------------------------------------------------------------------------------------------------ the real lake


def put(lake: Lake, number: int, *records: bytes, **more: Any) -> None:
    batch = batch_of(*records, number=number, **more)
    n = len(records)
    times = np.arange(n, dtype=np.int64) + START
    lake.put(
        key(number), batch, Headers(times, Column.constant(n, "web01"), Column.absent(n), np.full(n, 255, np.uint8))
    )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Lake, Ledger]]:
    """A lake and a ledger that have taken three batches."""
    ledger = Ledger(tmp_path / "lake" / "manifest.db", SIGNER, clock=FakeClock())
    lake = Lake(tmp_path / "lake", clock=FakeClock(), counter=Counters(), ledger=ledger)
    given = GivenHeader(np.zeros(1, np.int64), ["ümläut"], ["sshd"], np.array([-1], np.int64))
    put(lake, 1, b"one", b"\xff\0two")
    put(lake, 2, b"three", header=given, trust=Trust.ATTESTED, format=RecordFormat.MESSAGE)
    lake.flush()
    put(lake, 3, b"four", b"", b"six", trust=np.array([0, 1, 2], np.uint8), dropped={"late": 2})
    lake.flush()
    yield lake, ledger
    lake.close()
    ledger.close()


def taken(folder: Path) -> list[tuple[Any, Any]]:
    reader = Reader(folder)
    try:
        return [(one.key, one.batch) for one in reader.read(0, 100)]
    finally:
        reader.close()


def test_the_lake_gives_back_what_the_ledger_saw(kept: tuple[Lake, Ledger]):
    lake, ledger = kept
    early = ledger.checkpoint()
    found = audit(ledger, SIGNER.verifier, taken(lake.folder), [early])
    assert found.verdicts == {Verdict.INTACT}
    assert (found.leaves, found.records) == (3, 6)


def test_what_became_of_the_lake_is_named(kept: tuple[Lake, Ledger]):
    lake, ledger = kept
    ledger.checkpoint()
    (first, second, third) = taken(lake.folder)
    flipped = replace(first[1], block=first[1].block.replace(b"one", b"ono"))
    claimed = replace(second[1], trust=Trust.NETWORK)
    for now, said in [
        ([(first[0], flipped), second, third], {(Verdict.RECORD_CHANGED, 1)}),
        ([first, (second[0], claimed), third], {(Verdict.RECORD_CHANGED, 2)}),
        ([first, second, (third[0], batch_of(b"four", b"six"))], {(Verdict.RECORD_REMOVED, 3)}),
        ([first, second, (third[0], batch_of(*b"abcd".split(b"b"), b"", b""))], {(Verdict.RECORD_ADDED, 3)}),
        ([first, third], {(Verdict.BATCH_REMOVED, 2)}),
        ([first, second, third, (key(4), batch_of(b"x"))], {(Verdict.BATCH_UNKNOWN, 4)}),
    ]:
        found = audit(ledger, SIGNER.verifier, now)
        assert {(one.verdict, one.number) for one in found.statements} == said
        assert found.wrong


def test_erased_by_the_book_is_no_loss_and_kept_in_secret_is_said(hub: Hub):
    hub.take(1, 2, 3)
    kept_back = hub.lake[key(2)]
    hub.erase(2, 2)
    assert audit(hub.ledger, SIGNER.verifier, hub.lake.items()).verdicts == {Verdict.ERASED, Verdict.INTACT}
    hub.lake[key(2)] = kept_back
    assert Verdict.BATCH_UNKNOWN in audit(hub.ledger, SIGNER.verifier, hub.lake.items()).verdicts


def test_a_database_that_was_cut_or_edited_is_held_to_what_was_signed(hub: Hub):
    hub.take(1, 2, 3, 4)
    hub.ledger.checkpoint()
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_leaves WHERE leaf = 3")
    del hub.lake[key(4)]
    assert audit(hub.ledger, SIGNER.verifier, hub.lake.items()).verdicts == {Verdict.TAIL_CUT}
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_leaves WHERE leaf = 1")
    assert audit(hub.ledger, SIGNER.verifier, hub.lake.items()).verdicts == {Verdict.LEAF_REMOVED}


def test_a_leaf_edited_in_the_database_is_found(hub: Hub):
    hub.take(1, 2, 3, 4)
    head = hub.ledger.checkpoint()
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_leaves SET read_at = 1 WHERE leaf = 1")
    found = audit(hub.ledger, SIGNER.verifier, hub.lake.items(), [head])
    assert {Verdict.LEAF_CHANGED, Verdict.HISTORY_REPLACED} <= found.verdicts

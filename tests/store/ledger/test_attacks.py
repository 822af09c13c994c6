"""Every attack on what was stored is found, named, and told from the others and from lawful erasure.
Counterpart: vedette.store.ledger.verify and witness; the table of docs/ledger.md."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.ledger.parts import HOST, SIGNER, Hub, edit, key

from vedette.model.errors import StateError
from vedette.model.shipping import Dropped
from vedette.store.ledger.export import prove
from vedette.store.ledger.leaves import ErasureKind
from vedette.store.ledger.notes import COSIGNATURE, Checkpoint, NoteError, Signer, make_checkpoint
from vedette.store.ledger.records import leaf_of
from vedette.store.ledger.verdicts import Verdict
from vedette.store.ledger.verify import Trusted, verify
from vedette.store.ledger.witness import WITNESS_SEEN, RefusalToCosignError, Witness, cosign, find_fork

TRUSTED = Trusted(key=SIGNER.verifier)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Six batches, to be copied."""
    made = Hub(tmp_path_factory.mktemp("six"))
    made.take(1, 2, 3)
    made.take(4)
    made.take(5, 6)
    made.close()
    return made


@pytest.fixture
def hub(tmp_path: Path, six: Hub) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    shutil.copy(six.folder / "manifest.db", tmp_path / "hub")
    made = Hub(tmp_path / "hub")
    made.lake = dict(six.lake)
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Hub]:
    """Another history under the same key."""
    made = Hub(tmp_path / "other")
    yield made
    made.close()


def test_what_nobody_touched_is_intact(hub: Hub):
    found = verify(hub.export(), TRUSTED)
    assert found.verdicts == {Verdict.INTACT}
    assert (found.size, found.leaves, found.records, found.without_records) == (6, 6, 18, 0)
    assert not found.wrong
    assert not found.untold


def test_an_earlier_checkpoint_is_trust_enough(hub: Hub):
    early = hub.ledger.checkpoint()
    hub.take(7, 8)
    found = verify(hub.export(), Trusted(checkpoints=[early]))
    assert found.verdicts == {Verdict.INTACT}
    part = hub.export("part", keys={key(2)})
    assert verify(part, Trusted(checkpoints=[early])).verdicts == {Verdict.INTACT}
    with pytest.raises(ValueError, match="nothing to hold it to"):
        verify(part, Trusted())


def test_flipping_one_byte_of_a_record(hub: Hub):
    folder = hub.export()

    def flip(lines):
        raw = bytearray(b64decode(lines[3]["records"][1]))
        raw[2] ^= 1
        lines[3]["records"][1] = b64encode(bytes(raw)).decode()

    edit(folder / "batches.jsonl", flip)
    found = verify(folder, TRUSTED)
    (said,) = found.statements
    assert (said.verdict, said.number, said.record) == (Verdict.RECORD_CHANGED, 4, 1)
    assert found.wrong


def test_flipping_one_byte_without_the_list_of_hashes_names_the_batch(hub: Hub):
    folder = hub.export()
    edit(folder / "batches.jsonl", lambda lines: lines[0].update(hashes="", records=["", "", ""]))
    (said,) = verify(folder, TRUSTED).statements
    assert (said.verdict, said.number, said.record) == (Verdict.RECORD_CHANGED, 1, -1)


def test_saying_a_record_was_read_elsewhere(hub: Hub):
    folder = hub.export()

    def claim(lines):
        facts = b64decode(lines[0]["facts"]).replace(b'"file"', b'"elif"')
        lines[0]["facts"] = b64encode(facts).decode()

    edit(folder / "batches.jsonl", claim)
    (said,) = verify(folder, TRUSTED).statements
    assert said.verdict is Verdict.RECORD_CHANGED
    assert "where and when it was read" in said.text


def test_removing_a_record(hub: Hub):
    folder = hub.export()
    edit(folder / "batches.jsonl", lambda lines: lines[2]["records"].pop(1))
    (said,) = verify(folder, TRUSTED).statements
    assert (said.verdict, said.number, said.record) == (Verdict.RECORD_REMOVED, 3, 1)


def test_adding_a_record(hub: Hub):
    folder = hub.export()
    edit(folder / "batches.jsonl", lambda lines: lines[2]["records"].append("AAAA"))
    (said,) = verify(folder, TRUSTED).statements
    assert (said.verdict, said.number) == (Verdict.RECORD_ADDED, 3)


def test_removing_all_records_of_a_batch(hub: Hub):
    del hub.lake[key(4)]
    (said,) = verify(hub.export(), TRUSTED).statements
    assert (said.verdict, said.number, said.leaf) == (Verdict.BATCH_REMOVED, 4, 3)


def test_cutting_the_tail_of_the_export(hub: Hub):
    folder = hub.export()
    for name in ("leaves.jsonl", "batches.jsonl"):
        edit(folder / name, lambda lines: lines.__delitem__(slice(4, None)))
    (said,) = verify(folder, TRUSTED).statements
    assert (said.verdict, said.leaf) == (Verdict.TAIL_CUT, 4)


def test_cutting_the_tail_of_the_log(hub: Hub):
    seen = hub.ledger.checkpoint()
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_leaves WHERE leaf >= 4")
        connection.exec_driver_sql("DELETE FROM ledger_checkpoints")
    del hub.lake[key(5)], hub.lake[key(6)]
    folder = hub.export()
    assert verify(folder, TRUSTED).verdicts == {Verdict.INTACT}  # nothing in it remembers more
    (said,) = verify(folder, Trusted(key=SIGNER.verifier, checkpoints=[seen])).statements
    assert (said.verdict, said.leaf) == (Verdict.TAIL_CUT, 4)


def test_changing_and_removing_leaves_without_the_key(hub: Hub):
    folder = hub.export()
    edit(folder / "leaves.jsonl", lambda lines: (lines[1].update(leaf=lines[0]["leaf"]), lines.pop(3)))
    found = verify(folder, TRUSTED)
    assert {(one.verdict, one.leaf) for one in found.statements} >= {
        (Verdict.LEAF_CHANGED, 1),
        (Verdict.LEAF_REMOVED, 3),
    }
    (folder / "hashes").write_bytes(b"")
    assert Verdict.LEAF_REMOVED in verify(folder, TRUSTED).verdicts


def test_replacing_a_day_with_the_stolen_key(hub: Hub, other: Hub):
    monday = hub.ledger.checkpoint()
    hub.take(7, 8)
    tuesday = hub.ledger.checkpoint()
    other.lake = {one: batch for one, batch in hub.lake.items() if one.number <= 6}
    with other.engine.begin() as connection, hub.ledger.reading() as source:
        kept = source.exec_driver_sql("SELECT number, seed FROM ledger_leaves WHERE leaf < 6 ORDER BY leaf").all()
        other.ledger.append(connection, [leaf_of(key(n), hub.lake[key(n)], seed) for n, seed in kept])
    other.take(7, 8, 9, word="nothing happened")
    folder = other.export()
    assert verify(folder, TRUSTED).verdicts == {Verdict.INTACT}
    (said,) = verify(folder, Trusted(key=SIGNER.verifier, checkpoints=[tuesday, monday])).statements
    assert (said.verdict, said.leaf) == (Verdict.HISTORY_REPLACED, 6)
    part = other.export("part", keys={key(8)}, since=[8])
    (said,) = verify(part, Trusted(key=SIGNER.verifier, checkpoints=[tuesday])).statements
    assert said.verdict is Verdict.HISTORY_REPLACED


def test_showing_two_histories(hub: Hub, other: Hub):
    other.take(1, 2, 3, 4, 5, 6, word="else")
    shown, hidden = hub.ledger.checkpoint(), other.ledger.checkpoint()
    (said,) = verify(hub.export(), Trusted(key=SIGNER.verifier, checkpoints=[hidden])).statements
    assert said.verdict is Verdict.TWO_HISTORIES
    fork = find_fork({"web01": shown, "web02": hidden}, hub.ledger.consistency, SIGNER.verifier)
    assert fork is not None
    assert (fork.first, fork.second, fork.verdict) == ("web01", "web02", Verdict.TWO_HISTORIES)
    hub.take(7)
    fork = find_fork({"web01": hub.ledger.checkpoint(), "web02": hidden}, hub.ledger.consistency, SIGNER.verifier)
    assert fork is not None
    assert (
        find_fork({"web01": shown, "web02": hub.ledger.checkpoint()}, hub.ledger.consistency, SIGNER.verifier) is None
    )
    forged = make_checkpoint(Signer.generate(SIGNER.verifier.name), 6, bytes(32))
    assert find_fork({"web01": shown, "liar": forged}, hub.ledger.consistency, SIGNER.verifier) is None


def test_erasing_lawfully(hub: Hub):
    hub.erase(2, 3, kind=ErasureKind.REQUEST)
    hub.take(7)
    folder = hub.export()
    found = verify(folder, TRUSTED)
    (said,) = found.statements
    assert (said.verdict, said.number) == (Verdict.ERASED, 2)
    assert "erased lawfully (request) by retention on 2026-11-24T00:00:00Z: 365 d" in said.text
    assert not found.wrong
    with hub.ledger.reading() as connection:
        seeds = connection.exec_driver_sql("SELECT number FROM ledger_leaves WHERE seed IS NULL AND number > 0").all()
    assert seeds == [(2,), (3,)]
    with pytest.raises(StateError, match="erased \\(request\\)"):
        prove(hub.ledger, SIGNER.verifier, key(2), None, 0)


def test_a_tombstone_covers_what_was_there_and_nothing_that_came_later(hub: Hub):
    hub.erase(6, 9)
    hub.take(7)
    del hub.lake[key(7)]
    assert [one.verdict for one in verify(hub.export(), TRUSTED).statements] == [
        Verdict.ERASED,
        Verdict.BATCH_REMOVED,
    ]


def test_a_tombstone_somebody_else_signed_covers_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub.ledger, "_signing", lambda: Signer.generate(SIGNER.verifier.name))
    hub.erase(1, 1)
    monkeypatch.undo()
    assert [one.verdict for one in verify(hub.export(), TRUSTED).statements] == [
        Verdict.UNREADABLE,
        Verdict.BATCH_REMOVED,
    ]


def test_leaving_out_a_number(hub: Hub):
    hub.take(9)
    hub.take(2, stream="journal")
    found = verify(hub.export(), TRUSTED)
    said = {(one.verdict, one.stream, one.number) for one in found.statements}
    assert said == {(Verdict.NEVER_LOGGED, "file", 7), (Verdict.NEVER_LOGGED, "journal", 1)}
    with hub.engine.begin() as connection:
        hub.ledger.dropped(connection, Dropped(HOST, "file", 7, 8, -1, "spool-full", 5))
        hub.ledger.dropped(connection, Dropped(HOST, "journal", 1, 1, 3, "spool-full", 5))
    assert verify(hub.export("again"), TRUSTED).verdicts == {Verdict.GAP, Verdict.INTACT}


def test_a_key_nobody_trusts(hub: Hub):
    stranger = Signer.generate(SIGNER.verifier.name)
    assert verify(hub.export(), Trusted(key=stranger.verifier)).verdicts == {Verdict.SIGNATURE_WRONG}
    early = make_checkpoint(stranger, 1, bytes(32))
    assert verify(hub.export("two"), Trusted(checkpoints=[early])).verdicts == {Verdict.SIGNATURE_WRONG}


def test_cosignatures_are_counted(hub: Hub):
    agents = [Signer.generate(f"agent/{n}", COSIGNATURE) for n in range(3)]
    first = hub.ledger.checkpoint()
    hub.take(7)
    head = hub.ledger.checkpoint()
    for agent in agents[:2]:
        line = cosign(first, head, hub.ledger.consistency(6, 7), agent, log=SIGNER.verifier, at=1_700_000_000)
        hub.ledger.cosigned(7, line, agent.verifier)
        with pytest.raises(NoteError, match="no cosignature"):
            hub.ledger.cosigned(6, line, agent.verifier)
    folder = hub.export()
    keys = [agent.verifier for agent in agents]
    assert verify(folder, Trusted(SIGNER.verifier, witnesses=keys, need=2)).verdicts == {Verdict.INTACT}
    few = verify(folder, Trusted(SIGNER.verifier, witnesses=keys, need=3))
    assert few.verdicts == {Verdict.TOO_FEW_COSIGNATURES}
    assert few.cosigned == 2


def test_a_witness_cosigns_nothing_that_does_not_go_on(hub: Hub, other: Hub):
    agent = Signer.generate("agent", COSIGNATURE)
    old = hub.ledger.checkpoint()
    other.take(1, 2, 3, 4, 5, 6, word="else")
    fork = other.ledger.checkpoint()
    other.take(7)
    replaced = other.ledger.checkpoint()
    hub.take(7)
    new = hub.ledger.checkpoint()
    stranger = make_checkpoint(Signer.generate(SIGNER.verifier.name), 7, new.root)
    for shown, proof, verdict in [
        (fork, [], Verdict.TWO_HISTORIES),
        (replaced, other.ledger.consistency(6, 7), Verdict.HISTORY_REPLACED),
        (new, [], Verdict.HISTORY_REPLACED),
        (stranger, hub.ledger.consistency(6, 7), Verdict.SIGNATURE_WRONG),
    ]:
        with pytest.raises(RefusalToCosignError) as refused:
            cosign(old, shown, proof, agent, log=SIGNER.verifier, at=1)
        assert refused.value.verdict is verdict
    with pytest.raises(RefusalToCosignError) as refused:
        cosign(new, old, [], agent, log=SIGNER.verifier, at=1)
    assert refused.value.verdict is Verdict.TAIL_CUT
    line = cosign(None, old, [], agent, log=SIGNER.verifier, at=1)
    assert old.note.with_line(line).cosigned_at(agent.verifier) == 1


def test_a_witness_remembers_over_a_restart(hub: Hub, other: Hub, tmp_path: Path):
    first = Witness(tmp_path, "agent", SIGNER.verifier)
    old = hub.ledger.checkpoint()
    assert old.note.with_line(first.cosign(old, [], 5)).cosigned_at(first.key) == 5
    other.take(1, 2, 3, 4, 5, 6, 7, word="else")
    again = Witness(tmp_path, "agent", SIGNER.verifier)
    assert (again.key, again.last) == (first.key, old)
    with pytest.raises(RefusalToCosignError) as refused:
        again.cosign(other.ledger.checkpoint(), other.ledger.consistency(6, 7), 6)
    assert refused.value.verdict is Verdict.HISTORY_REPLACED
    hub.take(7)
    assert again.cosign(hub.ledger.checkpoint(), hub.ledger.consistency(6, 7), 7)
    (tmp_path / WITNESS_SEEN).write_text("nothing")
    with pytest.raises(StateError, match="another history"):
        Witness(tmp_path, "agent", SIGNER.verifier)


def test_one_record_is_proven_alone_and_shows_nothing_else(hub: Hub, tmp_path: Path):
    path = tmp_path / "proof.json"
    proof = prove(hub.ledger, SIGNER.verifier, key(5), hub.lake[key(5)], 1)
    path.write_text(json.dumps(proof))
    found = verify(path, TRUSTED)
    assert found.verdicts == {Verdict.INTACT}
    assert (found.leaves, found.records) == (1, 1)
    assert b64decode(proof["records"][0]["raw"]) == b"record 5.1"
    for hidden in (b"record 5.0", b"record 5.2"):
        assert b64encode(hidden).decode() not in path.read_text()
    proof["records"][0]["raw"] = b64encode(b"record 5.7").decode()
    path.write_text(json.dumps(proof))
    assert verify(path, TRUSTED).verdicts == {Verdict.RECORD_CHANGED}
    proof["leaves"][0]["index"] = 3
    path.write_text(json.dumps(proof))
    assert verify(path, TRUSTED).verdicts == {Verdict.PROOF_WRONG, Verdict.BATCH_UNKNOWN}


def test_a_part_does_not_pass_for_the_whole(hub: Hub):
    hub.ledger.checkpoint()
    folder = hub.export(keys={key(2)}, records=False)
    found = verify(folder, TRUSTED)
    assert (found.verdicts, found.leaves, found.without_records) == ({Verdict.INTACT}, 1, 1)
    asked = verify(folder, Trusted(SIGNER.verifier, complete=True))
    assert asked.verdicts == {Verdict.LEAF_REMOVED, Verdict.BATCH_REMOVED}
    stranger = Trusted(SIGNER.verifier, checkpoints=[make_checkpoint(SIGNER, 4, bytes(32))])
    assert verify(folder, stranger).verdicts == {Verdict.PROOF_MISSING}


NAMES = ("ledger.json", "checkpoint", "earlier", "leaves.jsonl", "hashes", "batches.jsonl", "records.jsonl")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Hub(tmp_path_factory.mktemp("hub"))
    made.take(1, 2)
    made.erase(1, 1)
    folder = made.export()
    made.close()
    return folder


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_can_be_changed_into_another_truth(exported: Path, tmp_path: Path, name: str, at: int, by: int):
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(exported, folder)
    data = bytearray((folder / name).read_bytes()) if (folder / name).exists() else bytearray()
    if not data:
        data = bytearray(b"x")
    data[at % len(data)] ^= by
    (folder / name).write_bytes(bytes(data))
    found = verify(folder, TRUSTED)
    if not (found.wrong or found.untold):
        # Then it was a byte that says nothing: all that was proven before is proven still.
        assert (found.leaves, found.size) == (3, 3)
        assert found.records == 3 or found.without_records == 1


def test_checkpoints_are_kept_and_signed_once(hub: Hub):
    first = hub.ledger.checkpoint()
    assert hub.ledger.checkpoint() == first
    hub.take(7)
    assert [one.size for one in hub.ledger.checkpoints()] == [6]
    assert hub.ledger.checkpoint().size == 7
    assert Checkpoint.parse(str(first)) == first

"""The ledger from the command line: what is printed, proven, exported and found, and the exit codes.
Counterpart: vedette.cli.ledger and vedette.app.ledger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.cli.parts import Place, vedette
from tests.notify.examples import notification
from tests.store.ledger.parts import batch_of, edit

from vedette.app.counters import Counters
from vedette.app.host import host_id
from vedette.app.ledger import KEY_FILE, LAKE, MANIFEST, books
from vedette.model.events import Column
from vedette.model.shipping import BatchKey, Headers
from vedette.store.lake.lake import Lake
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.ledger import Ledger
from vedette.store.ledger.notes import COSIGNATURE, Signer
from vedette.testing.clock import START, FakeClock


@pytest.fixture
def kept(place: Place) -> Iterator[Place]:
    """A data folder in which something was stored."""
    place.data.mkdir(mode=0o700)
    me = host_id(place.data)
    signer = signing_key(place.data / KEY_FILE, f"vedette/{me}")
    ledger = Ledger(place.data / LAKE / MANIFEST, signer, clock=FakeClock())
    lake = Lake(place.data / LAKE, clock=FakeClock(), counter=Counters(), ledger=ledger)
    for number, records in enumerate([(b"one", b"two \x1b[2J"), (b"three",)], start=1):
        n = len(records)
        headers = Headers(
            np.full(n, START, np.int64), Column.constant(n, "web01"), Column.absent(n), np.full(n, 255, np.uint8)
        )
        lake.put(BatchKey(me, "file", number), batch_of(*records, number=number), headers)
    lake.flush()
    lake.close()
    yield place
    ledger.close()


def key_of(place: Place) -> str:
    (said,) = place.run("ledger", "head", "--output", "json").records
    return str(said["key"])


def test_the_head_is_a_signed_checkpoint(kept: Place):
    ran = kept.run("ledger", "head")
    assert ran.code == 0, ran.err
    origin, size, _root, empty, signature = ran.out.splitlines()
    assert (origin, size, empty) == (f"vedette/{host_id(kept.data)}", "2", "")
    assert signature.startswith(f"— {origin} ")
    assert ran.err.startswith(f"key: {origin}+")


def test_an_export_verifies_without_the_hub_and_says_what_was_done_to_it(kept: Place, tmp_path: Path):
    key, folder = key_of(kept), tmp_path / "export"
    early = tmp_path / "mail.txt"
    early.write_text("> " + kept.run("ledger", "head").out.replace("\n", "\r\n> "))
    ran = kept.run("ledger", "export", folder)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("2 of 2 leaves, 2 batches with their records")
    for trust in (["--key", key], ["--checkpoint", early], ["--key", key, "--complete"]):
        ran = vedette("ledger", "verify", folder, *trust)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("intact: 2 of 2 leaves and 3 records of vedette/")
    assert vedette("ledger", "verify", folder).code == 2
    edit(folder / "batches.jsonl", lambda lines: lines[0]["records"].pop(0))
    ran = vedette("ledger", "verify", folder, "--key", key)
    assert ran.code == 1
    assert ran.out.startswith("record-removed: record 0 of batch 1 of file was removed")
    said, summary = vedette("ledger", "verify", folder, "--key", key, "--output", "json").records
    assert (said["verdict"], said["record"], summary["verdict"]) == ("record-removed", 0, "tampered")
    (folder / "leaves.jsonl").write_text("no\n")
    ran = vedette("ledger", "verify", folder, "--key", key)
    assert ran.code == 2
    assert "leaves.jsonl:1" in ran.out
    again = kept.run("ledger", "export", folder)
    assert again.code == 2
    assert "is not empty" in again.err


def test_one_record_is_proven_to_others(kept: Place, tmp_path: Path):
    key, file = key_of(kept), tmp_path / "proof.json"
    ran = kept.run("ledger", "prove", "file", 1, "--record", 1, "--to", file)
    assert ran.code == 0, ran.err
    assert vedette("ledger", "verify", file, "--key", key).code == 0
    (proof,) = kept.run("ledger", "prove", "file", 2).records
    assert proof["records"] == []
    other = str(Signer.generate("vedette/other").verifier)
    assert vedette("ledger", "verify", file, "--key", other).code == 1
    witness = Signer.generate("agent", COSIGNATURE).verifier
    ran = vedette("ledger", "verify", file, "--key", key, "--witness", witness, "--need", 1)
    assert ran.code == 1
    assert "too-few-cosignatures" in ran.out
    for words in [("file", 9), ("none", 1), ("file", 1, "--record", 7)]:
        assert kept.run("ledger", "prove", *words).code == 2


def test_the_hub_holds_its_lake_to_its_ledger(kept: Place):
    ran = kept.run("ledger", "verify")
    assert ran.code == 0, ran.out
    assert "2 of 2 leaves and 3 records" in ran.out
    (parquet,) = (kept.data / LAKE).rglob("*.parquet")
    assert parquet.stat().st_size
    with books(kept.data, FakeClock()) as found:
        taken = list(found.taken())
        for key, batch in taken:
            one = found.batch(key)
            assert one is not None
            assert one.block == batch.block
        assert found.batch(BatchKey("other", "file", 1)) is None
    assert [len(batch) for _, batch in taken] == [2, 1]
    part = kept.run("ledger", "export", kept.data / "part", "--stream", "file", "--no-records", "--output", "json")
    assert part.records[0]["leaves"] == 2
    assert kept.run("ledger", "export", kept.data / "none", "--stream", "nothing").code == 2


def test_where_nothing_was_stored_it_is_said(place: Place, tmp_path: Path):
    place.data.mkdir(mode=0o700)
    ran = place.run("ledger", "head")
    assert ran.code == 2
    assert "no key of the ledger" in ran.err
    (tmp_path / "text").write_text("nothing")
    ran = vedette("ledger", "verify", tmp_path, "--checkpoint", tmp_path / "text")
    assert ran.code == 2
    assert "no signed checkpoint" in ran.err
    ran = vedette("ledger", "verify", tmp_path, "--key", "a+b")
    assert ran.code == 2
    assert vedette("ledger", "verify", tmp_path / "none", "--key", Signer.generate("a").verifier).code == 2
    (tmp_path / "deep").write_text("[" * 100_000)
    assert vedette("ledger", "verify", tmp_path / "deep", "--key", Signer.generate("a").verifier).code == 2
    (tmp_path / "odd").write_text(json.dumps({"format": "vedette-ledger-proof/1", "key": 5}))
    assert vedette("ledger", "verify", tmp_path / "odd", "--key", Signer.generate("a").verifier).code == 2


def test_a_mail_as_it_is_stored_is_a_head_to_hold_the_log_to(kept: Place, tmp_path: Path):
    from vedette.notify.email import compose
    from vedette.notify.ledger_head import LEDGER_HEAD, LedgerHead, head_text
    from vedette.notify.settings import EmailSettings

    (head,) = kept.run("ledger", "head", "--output", "json").records
    carried = LedgerHead(head["size"], head["root"], START, head["checkpoint"], head["key"])
    to = EmailSettings.model_validate({"to": ["ops@example.org"]})
    mail = tmp_path / "mail.eml"
    only = notification(group_key=LEDGER_HEAD, members=[], digest=True)
    mail.write_bytes(compose("mail", to, [only], "id", head_text(carried)).as_bytes())
    assert b"=E2=80=94" in mail.read_bytes()
    ran = kept.run("ledger", "verify", "--head", mail)
    assert (ran.code, ran.err) == (0, "")
    folder = tmp_path / "export"
    kept.run("ledger", "export", folder)
    assert vedette("ledger", "verify", folder, "--head", mail).code == 0
    # The mailbox tells of a log that was cut, by whoever has the key.
    with sqlite3.connect(kept.data / LAKE / MANIFEST) as database:
        database.execute("DELETE FROM ledger_leaves WHERE leaf = 1")
        database.execute("DELETE FROM ledger_checkpoints")
    ran = kept.run("ledger", "verify", "--head", mail)
    assert ran.code == 1
    assert "tail-cut: 2 leaves were signed (checkpoint trusted), 1 are here: 1 are cut off" in ran.out

"""Notes, checkpoints, cosignatures: as other programs write them, and nothing of them believed too early.
Counterpart: vedette.store.ledger.notes, keys; reference.py."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.ledger import reference

from vedette.model.errors import StateError
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.notes import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    Note,
    NoteError,
    Signer,
    VerifierKey,
    checkpoint_text,
    checkpoints_in,
    make_checkpoint,
)

# The example of the package golang.org/x/mod/sumdb/note, signed there.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SEED = bytes(range(32))
PRIVATE = Ed25519PrivateKey.from_private_bytes(SEED)
PUBLIC = PRIVATE.public_key().public_bytes_raw()


def test_a_note_that_another_program_signed_holds():
    key, note = VerifierKey.parse(GO_KEY), Note.parse(GO_NOTE)
    assert note.signed_by(key)
    assert str(key) == GO_KEY
    assert str(note) == GO_NOTE
    assert not Note.parse(GO_NOTE.replace("answer", "Answer")).signed_by(key)


def test_what_we_sign_is_what_the_specification_signs():
    signer = Signer("vedette/h", PRIVATE)
    made = make_checkpoint(signer, 3, reference.mth([b"a", b"b", b"c"]))
    text = f"vedette/h\n3\n{base64.b64encode(reference.mth([b'a', b'b', b'c'])).decode()}\n"
    ident = reference.key_id("vedette/h", 1, PUBLIC)
    line = reference.signature_line("vedette/h", ident, PRIVATE.sign(text.encode()))
    assert str(made) == f"{text}\n{line}"
    encoded = base64.b64encode(b"\x01" + PUBLIC).decode()
    assert str(signer.verifier) == f"vedette/h+{ident.hex()}+{encoded}"


def test_a_cosignature_is_what_the_specification_signs():
    log = Signer.generate("log")
    text = checkpoint_text("log", 1, bytes(32))
    line = Signer("witness", PRIVATE, COSIGNATURE).cosignature(text, 1679315147)
    ident = reference.key_id("witness", 4, PUBLIC)
    signed = PRIVATE.sign(b"cosignature/v1\ntime 1679315147\n" + text.encode())
    assert line == reference.signature_line("witness", ident, (1679315147).to_bytes(8, "big") + signed)
    note = Note.parse(log.sign(text)).with_line(line)
    key = VerifierKey("witness", COSIGNATURE, PUBLIC)
    assert note.cosigned_at(key) == 1679315147
    assert not note.signed_by(key)
    later = note.with_line(Signer("witness", PRIVATE, COSIGNATURE).cosignature(text, 1679315148))
    assert (later.cosigned_at(key), len(later.signatures)) == (1679315148, 2)
    forged = Note.parse(str(note).replace("\n1\n", "\n2\n"))
    assert forged.cosigned_at(key) is None


def test_one_witness_under_two_names_counts_once():
    log = Signer.generate("log")
    two = [Signer(name, PRIVATE, COSIGNATURE) for name in ("a", "b")]
    note = make_checkpoint(log, 1, bytes(32)).note
    for one in two:
        note = note.with_line(one.cosignature(note.text, 5))
    assert len(Checkpoint.parse(str(note)).witnesses([one.verifier for one in two])) == 1


def test_a_checkpoint_is_found_in_a_mail_that_quotes_it():
    made = [make_checkpoint(Signer("vedette/h", PRIVATE), size, bytes(32)) for size in (3, 4)]
    mail = "Subject: digest\r\n\r\nHello,\r\n" + "".join(
        "> " + line + "\r\n" for one in made for line in ["", *str(one).splitlines(), ""]
    )
    assert list(checkpoints_in(mail)) == made
    assert not checkpoints_in("three\n4\nfive\n\nsix\n")


@settings(max_examples=100)
@given(st.text() | st.text("— \nabc+/=01"))
def test_any_text_is_a_note_or_refused(text: str):
    for parse in (Note.parse, Checkpoint.parse, VerifierKey.parse, Signer.parse):
        try:
            parse(text)
        except NoteError:
            continue
    checkpoints_in(text)


@pytest.mark.parametrize("size", ["-1", "01", "1.0", "", "\u0661", "9" * 20])
def test_a_size_has_one_way_to_be_written(size: str):
    signer = Signer("h", PRIVATE)
    with pytest.raises(NoteError):
        Checkpoint.parse(signer.sign(checkpoint_text("h", 1, bytes(32)).replace("\n1\n", f"\n{size}\n")))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb"])
def test_a_name_that_would_break_a_line_is_refused(name: str):
    with pytest.raises(NoteError):
        Signer.generate(name)


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path):
    path = tmp_path / "ledger.key"
    first = signing_key(path, "vedette/h")
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing_key(path, "other").verifier == first.verifier
    assert Signer.parse(first.private()).verifier.algorithm == ED25519
    path.chmod(0o644)
    with pytest.raises(StateError, match="read by others"):
        signing_key(path, "vedette/h")
    path.chmod(0o600)
    with pytest.raises(StateError, match="another kind"):
        signing_key(path, "vedette/h", algorithm=COSIGNATURE)
    path.write_text("PRIVATE+KEY+x+00000000+AAAA\n")
    with pytest.raises(StateError, match="restore it from a backup"):
        signing_key(path, "vedette/h")
    with pytest.raises(StateError, match="no key"):
        signing_key(tmp_path / "none", "vedette/h", create=False)

"""The ledger's signing key in the data folder: made at the first start, 0600, never logged.
Counterpart: `app.ledger` opens it; `backup` takes the file along."""

from __future__ import annotations

import os
from pathlib import Path

from vedette.model.errors import StateError
from vedette.store.ledger.notes import ED25519, NoteError, Signer
from vedette.system.files import open_own, write_atomic

MAX_FILE = 4096


def signing_key(path: Path, name: str, *, algorithm: int = ED25519, create: bool = True) -> Signer:
    """The key in the file, made where there is none; StateError where it cannot be read, is another's or open to all.

    name: the log's origin, or the witness's name. A file with another name is kept: the name is part of what was
    signed, so changing it would begin another log.
    """
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        if not create:
            raise StateError(
                f"no key of the ledger in {path}", hint="`vedette up` makes one at its first start"
            ) from None
        made = Signer.generate(name, algorithm)
        try:
            write_atomic(path, f"{made.private()}\n".encode(), follow=False)
        except OSError as error:
            raise StateError(f"key of the ledger in {path}: {error.strerror}") from error
        return made
    except OSError as error:
        raise StateError(f"key of the ledger in {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise StateError(f"key of the ledger in {path} can be read by others", hint=f"chmod 600 {path}")
        written = file.read(MAX_FILE)
    try:
        signer = Signer.parse(written.decode())
    except (NoteError, UnicodeDecodeError) as error:
        raise StateError(
            f"key of the ledger in {path}: {error}", hint="restore it from a backup: without it this log ends"
        ) from None
    if signer.verifier.algorithm != algorithm:
        raise StateError(f"key of the ledger in {path} is of another kind", hint="each file holds one kind of key")
    return signer

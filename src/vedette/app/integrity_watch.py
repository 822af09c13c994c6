"""What the source `integrity` is handed: its folder, who signs its baseline, who vouches, what people accepted.
Counterpart: `app.reading` plans it, `app.up` opens the watch while it may; `cli.integrity` asks by the same folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from vedette.app.keeping import LEDGER_KEY
from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.model.protocols import Counter
from vedette.sources.integrity.baseline import Check, Sign
from vedette.sources.integrity.differences import Differences
from vedette.sources.integrity.fanotify import Fanotify
from vedette.sources.integrity.known import NAME, Known
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.source import IntegritySource
from vedette.sources.integrity.vouching import vouchers
from vedette.sources.integrity.walk import chosen_trees
from vedette.sources.integrity.watch import Watching
from vedette.system.files import write_atomic
from vedette.system.privileges import keep_from_children

_REQUESTS, _COPIES = "requests", "copies"


class Request(msgspec.Struct):
    """What somebody accepted. paths: bytes, with what is in them; None = all that waits."""

    paths: list[bytes] | None
    who: str
    reason: str


def folder_of(data: Path) -> Path:
    """Where the source keeps what it knows, in the data folder."""
    return data / NAME


def open_fanotify(settings: IntegritySettings) -> Fanotify | None:
    """Before privileges are given up; None where this may not be."""
    with suppress(OSError):
        return Fanotify(chosen_trees(os.fsencode(one) for one in settings.paths()))
    return None


def integrity_source(
    settings: IntegritySettings,
    data: Path,
    *,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursor: str = "",
    watching: Watching | None = None,
) -> IntegritySource:
    """The source, over what it knew when it ended; StateError where that cannot be believed."""
    folder = folder_of(data)
    folder.mkdir(mode=0o700, exist_ok=True)
    sign, check = keys(data, host_id)
    return IntegritySource(
        settings,
        Known(folder, sign, check),
        host_id=host_id,
        clock=clock,
        counter=counter,
        voucher=vouchers(settings.vouching, counter),
        differences=Differences(folder / _COPIES) if settings.differences else None,
        watching=watching,
        requests=lambda: take_requests(folder),
        cursor=cursor,
        begin=keep_from_children,
    )


def keys(data: Path, host_id: str) -> tuple[Sign | None, Check | None]:
    """Who signs baselines here, by the ledger's key; nobody where there is no ledger (an agent's hub has it all)."""
    path = data / LEDGER_KEY
    if not path.exists():
        return None, None
    # The ledger is loaded only where there is one.
    from vedette.store.ledger.keys import signing_key
    from vedette.store.ledger.notes import Note, NoteError

    signer = signing_key(path, f"vedette/{host_id}", create=False)

    def text(digest: bytes) -> str:
        return f"vedette baseline\n{digest.hex()}\n"

    def sign(digest: bytes) -> bytes:
        return signer.signature(text(digest)).encode()

    def check(digest: bytes, signature: bytes) -> bool:
        try:
            note = Note.parse(f"{text(digest)}\n{signature.decode()}")
        except (NoteError, UnicodeDecodeError):
            return False
        return note.text == text(digest) and note.signed_by(signer.verifier)

    return sign, check


def ask_to_accept(folder: Path, request: Request) -> None:
    """Leave it for the source, which takes it within a second of when it runs. StateError where that cannot be."""
    place = folder / _REQUESTS
    try:
        if not folder.is_dir():
            raise StateError(f"nothing is watched here: there is no {folder}", hint="set `sources: integrity: {}`")
        owner = folder.stat()
        place.mkdir(mode=0o700, exist_ok=True)
        path = place / f"{uuid.uuid4()}.request"
        write_atomic(path, msgspec.msgpack.encode(request))
        if os.geteuid() == 0:
            for one in (place, path):
                os.chown(one, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise StateError(f"{place} cannot be written: {error.strerror}", hint="run this as root") from None


def take_requests(folder: Path) -> Sequence[dict[str, Any]]:
    """What was asked for since; each once."""
    found: list[dict[str, Any]] = []
    for path in sorted((folder / _REQUESTS).glob("*.request")):
        with suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.structs.asdict(msgspec.msgpack.decode(path.read_bytes(), type=Request)))
        path.unlink(missing_ok=True)
    return found

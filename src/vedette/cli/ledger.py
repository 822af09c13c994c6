"""`vedette ledger head|prove|export|verify`: what was stored is proven, here or where nothing of ours runs.
Counterpart: `store.ledger`; `verify` of an export needs the base install and what the person trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.hub import needs_hub
from vedette.cli.options import Config, Data, Output
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, note, say, write_json
from vedette.cli.state import settings_of
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.shipping import BatchKey
from vedette.store.ledger.notes import Checkpoint, NoteError, VerifierKey, checkpoints_in
from vedette.store.ledger.verdicts import UNTOLD, WELL
from vedette.store.ledger.verify import Result, Trusted, verify
from vedette.system.files import write_atomic

app = typer.Typer(help="The ledger: head, prove, export, verify.", no_args_is_help=True, rich_markup_mode=None)

Stream = Annotated[str, typer.Argument(help="source of the batch, as `head` and search name it")]
Host = Annotated[str, typer.Option("--host", help="host id; default: this one")]

MAX_FILE = 16 << 20


@app.command()
def head(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Print the signed checkpoint of everything stored so far; keep it somewhere else."""
    with errors_said():
        needs_hub()
        from vedette.app.ledger import books

        with books(settings_of(config, data).data_folder(), SystemClock()) as found:
            checkpoint = found.ledger.checkpoint()
        if output is Format.JSON:
            write_json([_head(checkpoint, found.key)])
            return
        for line in str(checkpoint).splitlines():
            say(line)
        note(f"key: {found.key}")


def _head(checkpoint: Checkpoint, key: VerifierKey) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "cosignatures": len(checkpoint.note.signatures) - 1,
        "key": str(key),
        "checkpoint": str(checkpoint),
    }


@app.command()
def prove(
    stream: Stream,
    number: Annotated[int, typer.Argument(min=1, help="number of the batch")],
    record: Annotated[int | None, typer.Option("--record", min=0, help="one record of it, counted from 0")] = None,
    host: Host = "",
    to: Annotated[Path | None, typer.Option("--to", help="file for the proof; default: standard output")] = None,
    config: Config = None,
    data: Data = None,
) -> None:
    """Prove that a batch, or one record and no other, was stored: a file that `verify` takes anywhere."""
    with errors_said():
        needs_hub()
        import orjson

        from vedette.app.ledger import books
        from vedette.store.ledger.export import prove as prove_it

        with books(settings_of(config, data).data_folder(), SystemClock()) as found:
            key = BatchKey(host or found.host_id, stream, number)
            batch = found.batch(key) if record is not None else None
            proof = prove_it(found.ledger, found.key, key, batch, record)
        if to is None:
            write_json([proof])
            return
        try:
            write_atomic(to, orjson.dumps(proof, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise VedetteError(f"{to}: {error.strerror}") from error
        note(f"{to}: check it with `vedette ledger verify {to} --key {found.key}`")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="a folder that is not there yet, or empty")],
    stream: Annotated[list[str] | None, typer.Option("--stream", help="only these sources; default: all")] = None,
    records: Annotated[bool, typer.Option(help="with the records, or leaves alone")] = True,
    since: Annotated[list[int] | None, typer.Option("--since", min=0, help="a reader's earlier size")] = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Write checkpoints, leaves, proofs and records into a folder that anybody can verify without us."""
    with errors_said():
        needs_hub()
        from vedette.app.ledger import books
        from vedette.store.ledger.export import write_export

        with books(settings_of(config, data).data_folder(), SystemClock()) as found:
            keys = None
            if stream:
                keys = found.ledger.keys(stream)
                if not keys:
                    raise VedetteError(f"nothing of {', '.join(stream)} is in the ledger")
            taken = found.taken() if records else ()
            written = write_export(
                found.ledger, folder, found.key, taken, keys=keys, records=records, since=since or ()
            )
        if output is Format.JSON:
            write_json([{**asdict(written), "folder": str(folder), "key": str(found.key)}])
            return
        say(f"{written.leaves} of {written.size} leaves, {written.batches} batches with their records: {folder}")
        note(f"check it with `vedette ledger verify {folder} --key {found.key}`")


@app.command(name="verify")
def verify_what(
    where: Annotated[Path | None, typer.Argument(help="an export or proof; default: lake and ledger here")] = None,
    key: Annotated[str, typer.Option("--key", help="the log's public key, or a file with it")] = "",
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", "--head", help="earlier heads: as printed, quoted in a mail, or a mail's file"),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", help="public keys of witnesses, or files with one a line")
    ] = None,
    need: Annotated[int, typer.Option("--need", min=0, help="so many of the witnesses must have cosigned")] = 0,
    complete: Annotated[bool, typer.Option("--complete", help="every leaf and record must be there")] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Say whether anything was changed, removed, cut, replaced or shown twice; 0 = no, 1 = yes, 2 = cannot tell."""
    with errors_said():
        checkpoints = [one for path in checkpoint or () for one in _checkpoints(path)]
        keys = _keys([key]) if key else []
        if len(keys) > 1:
            raise VedetteError("--key names several keys", hint="a log has one; keys of witnesses go to --witness")
        trusted = Trusted(keys[0] if keys else None, checkpoints, _keys(witness or ()), need, complete)
        found = _here(config, data, trusted) if where is None else _there(where, trusted)
    if output is Format.JSON:
        write_json([*({**asdict(one), "verdict": one.verdict.value} for one in found.statements), _summary(found)])
    else:
        for one in found.statements:
            say(f"{one.verdict.value}: {one.text}")
        say(_sentence(found))
    raise SystemExit(FOUND if found.wrong else WRONG if found.untold else OK)


def _there(where: Path, trusted: Trusted) -> Result:
    try:
        return verify(where, trusted)
    except ValueError as error:
        raise VedetteError(
            str(error), hint="--key KEY, or --checkpoint FILE: from elsewhere, not from the export"
        ) from None


def _here(config: Path | None, data: Path | None, trusted: Trusted) -> Result:
    needs_hub()
    from vedette.app.ledger import books
    from vedette.store.ledger.audit import audit

    with books(settings_of(config, data).data_folder(), SystemClock()) as found:
        return audit(found.ledger, trusted.key or found.key, found.taken(), trusted.checkpoints)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode(errors="replace")
    except OSError as error:
        raise VedetteError(f"{path}: {error.strerror}") from error


def _checkpoints(path: Path) -> Sequence[Checkpoint]:
    text = _read(path)
    found = checkpoints_in(text) or [one for part in _parts(text) for one in checkpoints_in(part)]
    if not found:
        raise VedetteError(f"{path}: no signed checkpoint in it", hint="`vedette ledger head` prints one")
    return found


def _parts(text: str) -> Sequence[str]:
    """The plain text of a mail as it is stored, where it is one: there the signs of a note are written otherwise."""
    from email import message_from_string
    from email.policy import default

    try:
        found = message_from_string(text, policy=default)
        parts = [part.get_content() for part in found.walk() if part.get_content_type() == "text/plain"]
    except (LookupError, ValueError):
        return []  # of a charset or an encoding that is none
    return [part for part in parts if isinstance(part, str)]


def _keys(given: Sequence[str]) -> list[VerifierKey]:
    found = []
    for one in given:
        lines = [one] if "+" in one and not Path(one).exists() else _read(Path(one)).split()
        for line in lines:
            try:
                found.append(VerifierKey.parse(line))
            except NoteError as error:
                raise VedetteError(f"{one}: {error}", hint="name+id+base64, as `vedette ledger head` says it") from None
    return found


def _summary(found: Result) -> dict[str, Any]:
    return {
        "verdict": "unknown" if found.untold and not found.wrong else "tampered" if found.wrong else "intact",
        "verdicts": sorted(one.value for one in found.verdicts),
        "origin": found.origin,
        "size": found.size,
        "leaves": found.leaves,
        "records": found.records,
        "cosigned": found.cosigned,
        "batches_without_records": found.without_records,
    }


def _sentence(found: Result) -> str:
    bad = sum(one.verdict not in WELL | UNTOLD for one in found.statements)
    said = f"{bad} wrong" if found.wrong else "cannot tell" if found.untold else "intact"
    text = f"{said}: {found.leaves} of {found.size} leaves and {found.records} records of {found.origin} are proven"
    if found.cosigned:
        text += f", cosigned by {found.cosigned}"
    if found.without_records:
        text += f"; records of {found.without_records} batches are not in the export"
    return text

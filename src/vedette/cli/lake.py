"""`vedette lake erase`: single records leave the lake lawfully; a look first, `--yes` does it.
Counterpart: `app.erasing` does it; docs/ledger.md says what it proves and what it cannot reach."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.hub import needs_hub
from vedette.cli.options import Config, Data, Output
from vedette.cli.output import Format, errors_said, note, say, write_json
from vedette.cli.searching import Hosts, Streams, moment
from vedette.cli.state import settings_of
from vedette.model.clock import BEGINNING, SystemClock
from vedette.model.errors import VedetteError
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.erasing import Chosen, Done, Eraser

app = typer.Typer(help="The lake: erase.", no_args_is_help=True, rich_markup_mode=None)

_END = 2**62
_MOST_QUERY = 1 << 16


@app.callback()
def _group() -> None:
    """The lake."""


@app.command()
def erase(
    query: Annotated[str, typer.Argument(help="a query as for `search`; - reads it from standard input")] = "",
    record: Annotated[list[str] | None, typer.Option("--record", help="`record.id` of one record; repeatable")] = None,
    reason: Annotated[str, typer.Option("--reason", help="why, for good in the ledger: a ticket, never the data")] = "",
    since: Annotated[str, typer.Option("--since", help="a time, or how long ago; none: from the beginning")] = "",
    until: Annotated[str, typer.Option("--until", help="a time, or how long ago; none: to the end")] = "",
    host: Hosts = None,
    source: Streams = None,
    yes: Annotated[bool, typer.Option("--yes", help="erase; without it, it is only said what would go")] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Erase records for good because somebody may ask for it; the ledger proves the others, and says who and why."""
    with errors_said():
        needs_hub("luqum", "pyarrow", "sqlalchemy")
        from vedette.app.audit import Action, Audit
        from vedette.app.erasing import Eraser, become_owner, out_of_reach
        from vedette.app.host import operator_name

        if bool(query) == bool(record):
            raise VedetteError("name records by a query, or by --record", hint="one of both")
        if yes and not reason.strip():
            raise VedetteError("--reason: say why", hint="it stands in the ledger for good: name a ticket, no person")
        settings, clock, who = settings_of(config, data), SystemClock(), operator_name()
        folder = settings.data_folder()
        if query == "-":
            query = sys.stdin.read(_MOST_QUERY).strip()
        now = clock.now()
        bounds = moment(since, "--since", now) if since else BEGINNING, moment(until, "--until", now) if until else _END
        with ExitStack() as stack:
            # Opened before anything is done, and as who we are.
            audit = stack.enter_context(Audit(folder)) if yes else None
            become_owner(folder)
            eraser = Eraser(folder, clock)
            stack.callback(eraser.close)
            with eraser.alone():
                if audit:
                    eraser.finish()
                if record:
                    chosen = eraser.named(record)
                else:
                    chosen = _by_query(eraser, query, *bounds, frozenset(host or ()), frozenset(source or ()))
                done = eraser.carry_out(chosen, who=who, why=reason.strip()) if audit and chosen.records else None
            if audit is not None and done is not None:
                message = f"{who} erased {done.records} records" + (
                    ", not all that were asked for" * bool(done.trouble)
                )
                about: dict[str, object] = {"reason": reason, "records": done.records, "batches": done.batches}
                audit.write(Action("records-erased", who, message, success=not done.trouble, about=about), clock.now())
        _print(chosen, done, out_of_reach(settings), output)
        if done is not None and done.trouble:
            raise VedetteError(f"not all of it went: {done.trouble}", hint="the same command goes on with the others")


def _by_query(
    eraser: Eraser, line: str, since: int, until: int, hosts: frozenset[str], streams: frozenset[str]
) -> Chosen:
    from vedette.app.counters import Counters
    from vedette.app.search import Search
    from vedette.app.search_pipes import split_line
    from vedette.rules.query import parse_query

    text, pipe = split_line(line)
    if pipe is not None or not text.strip():
        raise VedetteError("a query that says which records", hint="`vedette search` tries it; nothing behind a `|`")
    query = parse_query(text)
    return eraser.choose(
        Search(eraser.lake, query, since=since, until=until, counter=Counters(), hosts=hosts, streams=streams)
    )


def _print(chosen: Chosen, done: Done | None, beyond: list[str], output: Format) -> None:
    if output is Format.JSON:
        write_json([_record(chosen, done, beyond)])
    else:
        for (host, stream), count in sorted(chosen.streams.items()):
            say(f"{count} of {stream} of host {host}")
        if done is not None:
            say(f"erased: {_many(done.records, done.batches)}; `vedette ledger verify` says so from now on")
        elif chosen.records:
            say(
                f"{_many(chosen.records, len(chosen.rows))} would be erased, "
                f"{rfc3339(chosen.earliest)[:19]}Z to {rfc3339(chosen.latest)[:19]}Z; nothing was done"
            )
        else:
            say("no record is of that kind; nothing was done")
    if chosen.protected:
        some = "1 record of the audit fits; it stays" if chosen.protected == 1 else ""
        note(f"{some or f'{chosen.protected} records of the audit fit; they stay'}: what operators did is kept")
    if done is not None and not done.settled:
        note("somebody reads the manifest: what was overwritten leaves its log of changes a little later")
    if chosen.records and output is Format.TEXT:
        note("not reached by this:")
        for one in beyond:
            note(f"  {one}")
        if done is None:
            note("erase them with --yes and --reason")


def _many(records: int, batches: int) -> str:
    return f"{records} record{'s' * (records != 1)} of {batches} batch{'es' * (batches != 1)}"


def _record(chosen: Chosen, done: Done | None, beyond: list[str]) -> dict[str, Any]:
    return {
        "erased": done is not None,
        "records": chosen.records if done is None else done.records,
        "batches": len(chosen.rows) if done is None else done.batches,
        "streams": [
            {"host.id": host, "vedette.stream": stream, "records": count}
            for (host, stream), count in sorted(chosen.streams.items())
        ],
        "kept_in_audit": chosen.protected,
        "not_reached": beyond,
    }

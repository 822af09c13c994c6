"""`vedette search`: records of the lake by a query line or by SQL, printed, counted, or written to a file.
Counterpart: `app.search` and its neighbours find; docs/search.md explains the query line."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.options import Config, Data, duration
from vedette.cli.output import errors_said, note, say, table, write_json
from vedette.cli.searching import Hosts, QueryLine, Streams, lake_folder, moment, opened, shown
from vedette.model.clock import BEGINNING, SystemClock
from vedette.model.errors import VedetteError
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.search import Limits
    from vedette.store.lake.reader import Reader

_DAY = 86_400_000_000
_SAID = {
    "limit": "there are more: --limit shows more",
    "timeout": "the time was up: what was not looked at is missing (--timeout)",
    "groups": "there are more different values than are kept",
    "clusters": "there are more clusters than are kept",
}


class Written(StrEnum):
    """How a result is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def search(
    query: QueryLine = "",
    since: Annotated[str, typer.Option("--since", help="a time, or how long ago")] = "24h",
    until: Annotated[str, typer.Option("--until", help="a time, or how long ago; none: now")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="so many records, newest first")] = 10_000,
    host: Hosts = None,
    source: Streams = None,
    sql: Annotated[str, typer.Option("--sql", help="one SELECT over the view `events`, in place of a query")] = "",
    timeout: Annotated[str, typer.Option("--timeout", help="how long it may take")] = "60s",
    memory: Annotated[str, typer.Option("--memory", help="memory SQL may take, as 512MB")] = "1GB",
    save: Annotated[str, typer.Option("--save", help="keep the query under this name; it becomes a rule")] = "",
    window: Annotated[str, typer.Option("--window", help="of a saved search: time its records are counted in")] = "5m",
    threshold: Annotated[int, typer.Option("--threshold", help="of a saved search: so many records are a finding")] = 1,
    below: Annotated[bool, typer.Option("--below", help="fewer than the threshold are a finding")] = False,
    by: Annotated[list[str] | None, typer.Option("--by", help="of a saved search: counted for each value")] = None,
    hours: Annotated[str, typer.Option("--hours", help="of a saved search: UTC hours it watches in, as 22-6")] = "",
    level: Annotated[str, typer.Option("--level", help="of a saved search's findings")] = "medium",
    saved: Annotated[bool, typer.Option("--saved", help="list the saved searches")] = False,
    remove: Annotated[str, typer.Option("--remove", help="forget the saved search of this name")] = "",
    to: Annotated[Path | None, typer.Option("--to", help="file to write to, in place of standard output")] = None,
    config: Config = None,
    data: Data = None,
    output: Annotated[Written, typer.Option("--output", help="text, json, csv or parquet")] = Written.TEXT,
) -> None:
    """Look for records in the lake: `source.ip:203.0.113.9 AND event.outcome:failure | count by user.name`."""
    if saved or remove or save:
        from vedette.cli import saved_searches

        if saved:
            saved_searches.show(config, data, json=output is Written.JSON)
        elif remove:
            saved_searches.remove(remove, config, data)
        else:
            chosen = saved_searches.Chosen(query, window, threshold, below, tuple(by or ()), hours, level)
            saved_searches.save(save, chosen, config, data)
        return
    with errors_said():
        folder = lake_folder(config, data)
        seconds = duration(timeout, "--timeout") / 1_000_000
        if sql and query:
            raise VedetteError("a query and SQL at once", hint="one of them")
        if output is Written.PARQUET and to is None:
            raise VedetteError("Parquet goes to a file", hint="--to FILE")
        if to is not None and output is Written.TEXT:
            raise VedetteError("text goes to the terminal", hint="--output json, csv or parquet")
        from vedette.app.search import Limits

        limits = Limits(until=time.monotonic() + seconds, now=time.monotonic)
        if sql:
            from vedette.app.search_sql import run_sql

            with opened(folder) as lake:
                rows = run_sql(lake.files(), sql, limit=limit, timeout=seconds, memory=memory, limits=limits)
                _print(list(rows.records()), output, to, list(rows.columns))
                _said(limits)
                now = SystemClock().now()
                _complete(lake, frozenset(), BEGINNING, now, now)
            return
        _query(folder, query, since, until, limit, frozenset(host or ()), frozenset(source or ()), limits, output, to)


def _query(
    folder: Path,
    line: str,
    since: str,
    until: str,
    limit: int,
    hosts: frozenset[str],
    streams: frozenset[str],
    limits: Limits,
    output: Written,
    to: Path | None,
) -> None:
    from vedette.app.counters import Counters
    from vedette.app.search import Search
    from vedette.app.search_pipes import run, split_line
    from vedette.rules.query import parse_query

    text, pipe = split_line(line)
    query = parse_query(text)
    now = SystemClock().now()
    begin = query.since if query.since is not None else moment(since, "--since", now)
    # What a clock ahead of ours has written is found too, unless a period is compared or cut into bars.
    end = moment(until, "--until", now) if until else query.until or (now if pipe else now + 365 * _DAY)
    if begin >= end:
        raise VedetteError(f"nothing lies between {rfc3339(begin)} and {rfc3339(end)}", hint="--since, --until")
    with opened(folder) as lake:
        one = Search(
            lake, query, since=begin, until=end, counter=Counters(), hosts=hosts, streams=streams, limits=limits
        )
        if pipe is not None:
            rows = run(one, pipe)
            _print(list(rows.records()), output, to, list(rows.columns))
        else:
            records = list(one.records(one.newest(limit)))
            _print(records, output, to)
            if not records:
                note(f"nothing since {rfc3339(begin)[:19]}Z: --since looks further back")
        _said(limits)
        beside = pipe is not None and (pipe.compare or pipe.verb.value == "new")
        _complete(lake, hosts, 2 * begin - end if beside else begin, end, now)


def _complete(lake: Reader, hosts: frozenset[str], since: int, until: int, now: int) -> None:
    """Say what is missing of what was searched."""
    from vedette.app.coverage import statement

    note(f"completeness: {statement(lake, hosts, since, until, now)}")


def _said(limits: Limits) -> None:
    for reason in limits.cut:
        note(_SAID[reason.value])


def _print(
    records: Sequence[Mapping[str, Any]], output: Written, to: Path | None, columns: list[str] | None = None
) -> None:
    """Records, or the rows of a table where there are `columns`."""
    if output is Written.TEXT:
        if columns is None:
            for record in records:
                say(shown(dict(record)))
        else:
            rows = [["" if record[name] is None else record[name] for name in columns] for record in records]
            table([name.upper() for name in columns], rows)
        return
    if output is Written.JSON and to is None:
        write_json(records)
        return
    from vedette.app.search_export import columns_of, new_file, write_csv, write_parquet
    from vedette.cli.output import json_line

    names = columns or columns_of(records)
    if to is None:
        write_csv(sys.stdout, names, records)
        return
    with new_file(to) as beside:
        if output is Written.JSON:
            with beside.open("wb") as out:
                out.writelines(map(json_line, records))
        elif output is Written.CSV:
            with beside.open("w", encoding="utf-8", newline="") as text:
                write_csv(text, names, records)
        else:
            with beside.open("wb") as out:
                write_parquet(out, names, records)
    note(f"{len(records)} written to {to}")

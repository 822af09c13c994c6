"""What `search` and `tail` share: which lake, which range of time, which hosts, and a result line for people.
Counterpart: `cli.search`, `cli.tail`; docs/search.md explains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.hub import needs_hub
from vedette.cli.state import data_folder_of
from vedette.model.errors import VedetteError
from vedette.text.times import parse_duration, parse_rfc3339

if TYPE_CHECKING:
    from vedette.store.lake.reader import Reader

QueryLine = Annotated[str, typer.Argument(help="what to look for: source.ip:203.0.113.0/24 AND failed")]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="id of a host; may be given several times")]
Streams = Annotated[list[str] | None, typer.Option("--source", help="name of a source; may be given several times")]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def moment(text: str, option: str, now: int) -> int:
    """A time, a date or a duration before now, as microseconds; VedetteError names the option."""
    try:
        if _DATE.fullmatch(text):
            return parse_rfc3339(f"{text}T00:00:00Z")
        if "T" in text or " " in text:
            return parse_rfc3339(text)
        return now - parse_duration(text)
    except ValueError as error:
        raise VedetteError(f"{option}: {error}", hint="24h, 2026-11-24, 2026-11-24T02:00:00Z") from None


def lake_folder(config: Path | None, data: Path | None) -> Path:
    """Where the lake of the configuration lies."""
    needs_hub("luqum", "pyarrow", "sqlalchemy")
    return data_folder_of(config, data) / "lake"


@contextmanager
def opened(folder: Path) -> Iterator[Reader]:
    """The lake in `folder`, to read; StateError where there is none."""
    from vedette.store.lake.reader import Reader

    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.close()


def shown(record: dict[str, Any]) -> str:
    """A record on one line: when, on which host, and what was written."""
    host = record.get("host.name") or record["host.id"]
    return f"{record['@timestamp'][:19]}Z {host} {record['event.original']}"

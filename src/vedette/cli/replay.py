"""`vedette replay`: detections over files, findings on stdout, a summary on stderr.
Counterpart: `replaying` does it; `plain` reads the usual ways to spell it without this module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import Pipelines
from vedette.cli.output import Format
from vedette.cli.replaying import replay_files


def replay(
    files: Annotated[list[Path], typer.Argument(help="log files; .gz too; several are merged by time")],
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rule files or folders, too")] = None,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="without our own packs")] = False,
    pipeline: Pipelines = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="run what can be loaded of broken rules")] = False,
    format: Annotated[str, typer.Option("--format", help="auto, syslog, json, audit or access")] = "auto",  # noqa: A002
    timezone: Annotated[str, typer.Option("--timezone", help="zone of header times without one")] = "UTC",
    year: Annotated[int, typer.Option("--year", help="year of the first record, where headers have none")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="matching processes; 0: one a processor")] = 0,
    output: Annotated[Format, typer.Option("--output", help="text or json")] = Format.TEXT,
) -> None:
    """Run detections over files; exit 0 with or without findings, 2 where something cannot be used."""
    replay_files(
        files,
        rules=rules,
        no_packs=no_packs,
        pipelines=pipeline,
        keep_going=keep_going,
        format=format,
        timezone=timezone,
        year=year,
        workers=workers,
        output=output,
    )

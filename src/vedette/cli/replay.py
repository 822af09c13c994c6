"""`vedette replay`: detections over files, findings on stdout, a summary on stderr.
Counterpart: `app.replay` runs it; the findings are those `up` would have made."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.app.formats import CHOICES
from vedette.app.replay import LONGEST, Progress, Replay, evidence, open_files
from vedette.app.workers import default_workers
from vedette.cli.output import Format, errors_said, json_line, note, say
from vedette.cli.records import finding_record
from vedette.detections.correlate import Correlator
from vedette.model.findings import Finding
from vedette.text.escape import presentable
from vedette.text.times import rfc3339


def replay(
    files: Annotated[list[Path], typer.Argument(help="log files; .gz too; several are merged by time")],
    rules: Annotated[list[Path] | None, typer.Option("--rules", help="rule files or folders, too")] = None,
    no_packs: Annotated[bool, typer.Option("--no-packs", help="without our own packs")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="run what can be loaded of broken rules")] = False,
    format: Annotated[str, typer.Option("--format", help="auto, syslog, json, audit or access")] = "auto",  # noqa: A002
    timezone: Annotated[str, typer.Option("--timezone", help="zone of header times without one")] = "UTC",
    year: Annotated[int, typer.Option("--year", help="year of the first record, where headers have none")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="matching processes; 0: one a processor")] = 0,
    output: Annotated[Format, typer.Option("--output", help="text or json")] = Format.TEXT,
) -> None:
    """Run detections over files; exit 0 with or without findings, 2 where something cannot be used."""
    with errors_said():
        _replay(files, rules or [], not no_packs, keep_going, format, timezone, year, workers, output)


def _replay(
    paths: list[Path],
    rules: list[Path],
    packs: bool,
    keep_going: bool,
    record_format: str,
    timezone: str,
    year: int,
    workers: int,
    output: Format,
) -> None:
    began = time.monotonic()
    check_options(record_format, timezone, year)
    counter = Counters()
    matcher = load_matcher(rules, packs=packs, keep_going=keep_going, counter=counter, say=note)
    correlator = Correlator(matcher.rules, counter=counter, evidence=evidence)
    with _progress_bar() as show:
        run = Replay(
            open_files(paths, year=year, timezone=timezone, record_format=record_format),
            matcher,
            correlator,
            counter=counter,
            timezone=timezone,
            workers=workers or default_workers(),
            progress=show,
        )
        for finding in run.run():
            if output is Format.JSON:
                sys.stdout.buffer.write(json_line(finding_record(finding)))
            else:
                say(_sentence(finding))
    sys.stdout.flush()
    seconds = time.monotonic() - began
    done = run.progress
    late = counter.value("records_dropped", "late")
    note(
        f"{done.records} records, {seconds:.2f} seconds, {done.records / seconds:.0f} records/s, "
        f"{done.findings} findings"
        + (f", {done.unreadable} records unreadable" if done.unreadable else "")
        + (f", {done.too_long} records cut at {LONGEST} bytes" if done.too_long else "")
        + (f", {late} records too late to correlate" if late else "")
    )


def check_options(record_format: str, timezone: str, year: int) -> None:
    """VedetteError for options no file can be read with."""
    from zoneinfo import ZoneInfo

    from vedette.model.errors import VedetteError

    if record_format not in CHOICES:
        raise VedetteError(f"unknown format {record_format!r}", hint=f"one of {', '.join(CHOICES)}")
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise VedetteError(f"no such time zone: {timezone!r}", hint="an IANA name, Europe/Berlin for example") from None
    if year and not 1970 <= year <= 9999:
        raise VedetteError(f"year {year} is out of range")


def _sentence(finding: Finding) -> str:
    key = " ".join(f"{name}={presentable(str(value))[0]}" for name, value in finding.key.items())
    first = finding.records[0] if finding.records else None
    place = f"  {first.file}:{first.line}" if first else ""
    return f"{rfc3339(finding.time)}  {finding.level.label:<13}  {finding.rule_id}  {key}  count={finding.count}{place}"


def _progress_bar() -> AbstractContextManager[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        return nullcontext(lambda _: None)
    return _Bar()


class _Bar:
    """A bar with rate and time left on standard error."""

    def __enter__(self) -> Callable[[Progress], None]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.fields[records]} records"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("replay", records=0)
        self._bar.start()
        return lambda done: self._bar.update(
            self._task, completed=done.bytes_done, total=done.bytes_total, records=done.records
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

"""Files replayed and what came of it printed: findings on stdout, a summary on stderr.
Counterpart: `replay` is the command; `app.replay` runs it, and the findings are those `up` would have made."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

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


def replay_files(
    files: Sequence[Path],
    *,
    rules: Sequence[Path] | None = None,
    no_packs: bool = False,
    pipelines: Sequence[str] | None = None,
    keep_going: bool = False,
    format: str = "auto",  # noqa: A002
    timezone: str = "UTC",
    year: int = 0,
    workers: int = 0,
    output: Format = Format.TEXT,
) -> None:
    """What `vedette replay` does, its options by name; SystemExit(2) where something cannot be used."""
    with errors_said():
        chain = list(pipelines or ())
        _replay(
            list(files), list(rules or ()), not no_packs, chain, keep_going, format, timezone, year, workers, output
        )


def _replay(
    paths: list[Path],
    rules: list[Path],
    packs: bool,
    pipelines: list[str],
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
    matcher = load_matcher(rules, packs=packs, pipelines=pipelines, keep_going=keep_going, counter=counter, say=note)
    correlator = Correlator(matcher.rules, counter=counter, evidence=evidence)
    if not gc.isenabled():
        # What was loaded stays, in the workers too; what is made from here on is plain data, hardly ever in a cycle.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        gc.enable()
    with progress_bar() as show:
        run = Replay(
            open_files(paths, year=year, timezone=timezone, record_format=record_format),
            matcher,
            correlator,
            counter=counter,
            timezone=timezone,
            workers=workers or default_workers(),
            progress=show,
            samples=False,
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
        + (f", {done.undecided} values no pattern could decide" if done.undecided else "")
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


def progress_bar() -> AbstractContextManager[Callable[[Progress], None]]:
    """What shows progress on a terminal, and nothing where there is none."""
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

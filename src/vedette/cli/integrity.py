"""`vedette integrity init|check|explain|odd|accept`: trees taken down, what differs, who did it, and acceptance.
Counterpart: `app.integrity` does it at once, `app.integrity_watch` beside a running `up`; see docs/integrity.md."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.app.host import operator_name
from vedette.app.integrity import Checked, same_trees, take_baseline
from vedette.cli.options import Config, Data, Output
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, json_line, note, say, write_json
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.integrity import Change
from vedette.sources.integrity.baseline import Baseline
from vedette.sources.integrity.known import NAME, read_told
from vedette.sources.integrity.records import change_fields, flat, words
from vedette.sources.integrity.walk import Gap, is_within
from vedette.text.escape import decode
from vedette.text.times import rfc3339

app = typer.Typer(help="Integrity: init, check, explain, odd, accept.", no_args_is_help=True)

Tree = Annotated[list[Path], typer.Option("--tree", help="a folder, with all that is in it; may be given again")]
File = Annotated[Path, typer.Option("--baseline", help="the file the baseline is kept in")]


@app.command("init")
def init(
    tree: Tree,
    baseline: File,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="shell pattern of absolute paths to pass by")
    ] = None,
) -> None:
    """Take down how trees are now. Exit 0 = all of it, 2 = could not; what was not looked at is said."""
    with errors_said(), _collecting_seldom():
        patterns = [one.encode("utf-8", "surrogateescape") for one in leave_out or ()]
        taken = take_baseline(tree, baseline, SystemClock(), leave_out=patterns)
        _note_gaps(taken.gaps)
        note(f"{taken.rows} paths, {taken.bytes} bytes read: {baseline}")


@app.command("check")
def check(
    tree: Annotated[list[Path] | None, typer.Option("--tree", help="as given to `init`")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="the file `init` wrote")] = None,
    full: Annotated[bool, typer.Option("--full", help="read every file, whatever its change time says")] = False,
    golden: Annotated[bool, typer.Option("--golden", help="the baseline is of another host")] = False,
    output: Output = Format.TEXT,
    config: Config = None,
    data: Data = None,
) -> None:
    """Say what differs from the baseline. Exit 0 = nothing, 1 = something, 2 = could not tell.

    Without --tree and --baseline: what the source `integrity` of this host told and nobody accepted yet.
    """
    with errors_said():
        if tree is None and baseline is None:
            raise SystemExit(_say_outstanding(_data_folder(config, data), output))
        if tree is None or baseline is None:
            raise VedetteError("--tree and --baseline go together")
        with _collecting_seldom(), Baseline(baseline) as known:
            same_trees(known, tree)
            raise SystemExit(_say_changes(Checked(known, SystemClock(), full=full, golden=golden), output))


@app.command("explain")
def explain(path: Annotated[Path, typer.Argument()], config: Config = None, data: Data = None) -> None:
    """What the source `integrity` knows of a path: how it was, how it is, who changed it, what vouches for it."""
    with errors_said():
        wanted = os.fsencode(path.absolute())
        for one in read_told(_folder(_data_folder(config, data))):
            if one.path == wanted and one.record:
                state = "accepted, or vouched for" if one.settled else "waits to be accepted"
                say(f"{decode(wanted)}: {state}")
                for name, value in flat(one.record):
                    say(f"  {name} = {value}")
                return
        say(f"{decode(wanted)}: nothing was told of it since it was accepted last")


@app.command("odd")
def odd(
    baselines: Annotated[list[Path] | None, typer.Argument(help="baselines of hosts that should be alike")] = None,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", help="records `facts-told` as `vedette search --output json` prints; -: stdin"),
    ] = None,
    least: Annotated[int, typer.Option("--least", min=3, help="hosts below which nothing is usual")] = 5,
    most: Annotated[
        float, typer.Option("--most", min=0, max=0.5, help="share of hosts that may differ and be told")
    ] = 0.1,
    output: Output = Format.TEXT,
) -> None:
    """Say what a few of many like hosts have otherwise. Exit 0 = nothing, 1 = something, 2 = could not tell."""
    from vedette.app.odd import odd_hosts

    with errors_said():
        found = False
        for one in odd_hosts(baselines or [], facts, least=least, most=most):
            found = True
            if output is Format.JSON:
                write_json([one])
            else:
                say(str(one["message"]))
        raise SystemExit(FOUND if found else OK)


@app.command("accept")
def accept(
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the records, and so in the ledger")],
    paths: Annotated[list[Path] | None, typer.Argument(help="with what is in them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that waits")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """Accept changes: they become part of the baseline. Who and why is a record; the running `up` takes it at once."""
    with errors_said():
        if bool(paths) == everything:
            raise VedetteError("name paths, or --all")
        if not reason.strip():
            raise VedetteError("--reason: say why")
        from vedette.app.integrity_watch import Request, ask_to_accept

        folder = _folder(_data_folder(config, data))
        wanted = [os.fsencode(one.absolute()) for one in paths or ()]
        waiting = [one.path for one in read_told(folder) if not one.settled]
        for one in wanted:
            if not any(is_within(path, one) for path in waiting):
                note(f"{decode(one)}: nothing waits there yet")
        ask_to_accept(folder, Request(None if everything else wanted, operator_name(), reason))
        count = len(waiting) if everything else len(wanted)
        say(f"{count} accepted by {operator_name()}: the source takes it when it runs")


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Nothing that is made of each path refers to itself: looking for what does only costs."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _data_folder(config: Path | None, data: Path | None) -> Path:
    # Of what looks at trees at once, the settings of a whole installation are half of the work of a small one.
    from vedette.cli.state import settings_of

    return settings_of(config, data).data_folder()


def _folder(data: Path) -> Path:
    folder = data / NAME
    if not folder.is_dir():
        raise VedetteError(f"nothing is watched here: there is no {folder}", hint="set `sources: integrity: {}`")
    return folder


def _say_outstanding(data: Path, output: Format) -> int:
    waiting = [one for one in read_told(_folder(data)) if not one.settled]
    for one in sorted(waiting, key=lambda one: one.path):
        if output is Format.JSON:
            write_json([dict(flat(one.record))])
        else:
            say(str(one.record.get("message", decode(one.path))))
    note(f"{len(waiting)} changes wait to be accepted")
    return FOUND if waiting else OK


def _say_changes(checked: Checked, output: Format) -> int:
    found = False
    for change in checked:
        found = True
        if output is Format.JSON:
            _write(change)
        else:
            say(words(change))
    for remark in checked.remarks:
        note(remark)
    _note_gaps(checked.could_not_tell)
    tally = checked.tally
    note(f"{tally.paths} paths, {tally.read} read, {tally.changes} changes")
    # What could not be looked at is never a pass.
    return FOUND if found else WRONG if checked.could_not_tell else OK


def _write(change: Change) -> None:
    record: dict[str, Any] = {
        "@timestamp": rfc3339(change.at),
        "file.path": decode(change.path),
        "kind": change.kind.value,
        "attributes": [one.value for one in change.attributes],
    }
    if change.related is not None:
        record["related"] = decode(change.related)
    sys.stdout.buffer.write(json_line({**record, **change_fields(change)}))


def _note_gaps(gaps: Iterable[Gap]) -> None:
    for gap in gaps:
        note(f"not looked at: {decode(gap.path)}: {gap.reason.value}")

"""`vedette integrity init|check`: trees taken down, and what differs from that.
Counterpart: `app.integrity` does it; docs/integrity.md says what is compared and what is not seen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.app.integrity import Checked, same_trees, take_baseline
from vedette.cli.options import Output
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, json_line, note, say
from vedette.model.clock import SystemClock
from vedette.model.integrity import Change
from vedette.sources.integrity.baseline import Baseline
from vedette.sources.integrity.records import change_fields, words
from vedette.sources.integrity.walk import Gap
from vedette.text.escape import decode
from vedette.text.times import rfc3339

app = typer.Typer(help="Integrity: init, check.", no_args_is_help=True)

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
    with errors_said():
        patterns = [one.encode("utf-8", "surrogateescape") for one in leave_out or ()]
        taken = take_baseline(tree, baseline, SystemClock(), leave_out=patterns)
        _note_gaps(taken.gaps)
        note(f"{taken.rows} paths, {taken.bytes} bytes read: {baseline}")


@app.command("check")
def check(
    tree: Tree,
    baseline: File,
    full: Annotated[bool, typer.Option("--full", help="read every file, whatever its change time says")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Say what differs from the baseline. Exit 0 = nothing, 1 = something, 2 = could not tell."""
    with errors_said(), Baseline(baseline) as known:
        same_trees(known, tree)
        checked = Checked(known, SystemClock(), full=full)
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
        raise SystemExit(FOUND if found else WRONG if checked.could_not_tell else OK)


def _write(change: Change) -> None:
    import sys

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

"""`vedette rules coverage`: which ATT&CK techniques the rules look for, as a table or a Navigator layer.
Counterpart: `rules.coverage` counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import RulePaths
from vedette.cli.output import OK, WRONG, errors_said, note, say, table, write_json
from vedette.model.errors import VedetteError
from vedette.rules.coverage import By, Row, coverage, layer, untagged
from vedette.rules.loading import load
from vedette.system.files import write_atomic

_SHOWN = 8


def rules_coverage(
    paths: RulePaths = None,
    by: Annotated[By, typer.Option("--by", help="what the rows are: technique, tactic or service")] = By.TECHNIQUE,
    output: Annotated[
        str, typer.Option("--output", help="text; json: the rows; -, or a file: an ATT&CK Navigator layer")
    ] = "text",
) -> None:
    """Which ATT&CK techniques the rules look for, by their tags."""
    with errors_said():
        result = load(paths or [], packs=not paths, keep_going=True)
        for problem in result.errors:
            note(str(problem))
        if output == "text":
            _print(coverage(result.rules, by), by)
        elif output == "json":
            write_json(_record(row, by) for row in coverage(result.rules, by))
        else:
            title = ", ".join(str(path) for path in paths) if paths else "Vedette"
            _write(layer(result.rules, title), output)
        without = untagged(result.rules)
        if without:
            count = f"{len(without)} rules name" if len(without) > 1 else "1 rule names"
            note(f"{count} no technique: {_some([rule.id for rule in without])}")
        raise SystemExit(WRONG if result.errors else OK)


def _print(rows: list[Row], by: By) -> None:
    if by is By.TECHNIQUE:
        table(
            ("TECHNIQUE", "RULES", "LEVEL", "WHICH"),
            [(row.name, len(row.rules), row.level.label, _some(_ids(row))) for row in rows],
        )
        return
    columns = (by.value.upper(), "RULES", "LEVEL", "TECHNIQUES", "WHICH")
    table(
        columns,
        [(row.name, len(row.rules), row.level.label, len(row.techniques), _some(row.techniques)) for row in rows],
    )


def _ids(row: Row) -> list[str]:
    return [rule.id for rule in row.rules]


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _record(row: Row, by: By) -> dict[str, Any]:
    return {
        by.value: row.name,
        "rules": _ids(row),
        "level": row.level.label,
        "techniques": list(row.techniques),
    }


def _write(made: dict[str, Any], where: str) -> None:
    # Plain ASCII, so that no title acts on a terminal.
    text = json.dumps(made, indent=2).replace("\x7f", "\\u007f")
    if where == "-":
        for line in text.splitlines():
            say(line)
        return
    try:
        write_atomic(Path(where), text.encode() + b"\n", mode=0o644)
    except OSError as error:
        raise VedetteError(f"cannot write {where}: {error.strerror}") from None
    note(f"{where}: {len(made['techniques'])} techniques")

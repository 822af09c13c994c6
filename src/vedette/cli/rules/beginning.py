"""`vedette rules new`: a rule with cases, from records that must fire and others that must not.
Counterpart: `app.scaffolding` makes and proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import Output
from vedette.cli.output import Format, errors_said, note, say, write_json
from vedette.model.errors import VedetteError
from vedette.model.levels import Level


def new_rule(
    wanted: Annotated[list[str], typer.Option("--from", help="a line that must fire, or a file of them")],
    unwanted: Annotated[list[str] | None, typer.Option("--not", help="a line that must not fire, or a file")] = None,
    rule_id: Annotated[str, typer.Option("--id", help="a slug of yours; none: made from what happened")] = "",
    title: Annotated[str, typer.Option("--title", help="what the alert is called")] = "",
    level: Annotated[str, typer.Option("--level", help="informational, low, medium, high or critical")] = "low",
    write: Annotated[Path | None, typer.Option("--write", help="a new file, in place of standard output")] = None,
    output: Output = Format.TEXT,
) -> None:
    """Draft a rule from sample records: what they share, and what tells them from the others.

    What is printed loads, has cases and passes them. It starts at the step `store`.
    """
    with errors_said():
        from vedette.app.scaffolding import begin, read_samples
        from vedette.rules.sigma import SLUG

        if rule_id and not SLUG.fullmatch(rule_id):
            raise VedetteError(f"{rule_id!r} is no slug", hint="lower case words joined by '-', my-rule for example")
        made = begin(
            read_samples(wanted, "--from"),
            read_samples(unwanted or [], "--not"),
            rule_id=rule_id,
            title=title,
            level=_level(level),
        )
        if write is not None:
            _write(write, made.text)
        if output is Format.JSON:
            write_json(
                [
                    {
                        "rule.id": made.draft.id,
                        "rule.name": made.draft.title,
                        "file": str(write) if write else None,
                        "yaml": made.text,
                        "samples": made.draft.samples,
                        "fields": [test.field or "(any text)" for test in (*made.draft.asked, *made.draft.excluded)],
                        "key": list(made.draft.key),
                    }
                ]
            )
        elif write is None:
            for line in made.text.splitlines():
                say(line)
        note(f"{made.draft.id}: drafted; read it, say what to do under vedette: advice, then `vedette rules test` it")


def _level(text: str) -> Level:
    try:
        return Level.parse(text)
    except ValueError as error:
        raise VedetteError(str(error)) from None


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise VedetteError(f"{path} is there already", hint="name a new file") from None
    except OSError as error:
        raise VedetteError(f"cannot write {path}: {error.strerror}") from None

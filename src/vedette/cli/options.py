"""Options that several commands have, spelled the same everywhere.
Counterpart: each command's signature; docs/cli.md explains them once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.output import Format
from vedette.model.errors import VedetteError
from vedette.text.times import parse_duration

Config = Annotated[Path | None, typer.Option("--config", help="default: /etc/vedette/vedette.yml if it is there")]
Data = Annotated[Path | None, typer.Option("--data", help="data folder, in place of the configured one")]
Output = Annotated[Format, typer.Option("--output", help="text or json")]
RulePaths = Annotated[list[Path] | None, typer.Argument(help="rule files or folders; none: our packs")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many, newest first")]
Pipelines = Annotated[
    list[str] | None, typer.Option("--pipeline", help="a pySigma pipeline for the rules: one of ours, or a .yml file")
]


def duration(text: str, option: str) -> int:
    """A duration above nothing as microseconds; VedetteError names the option it was given to."""
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise VedetteError(f"{option}: {error}") from None
    if length <= 0:
        raise VedetteError(f"{option}: {text!r} is no time at all", hint="write 90s, 10m, 1h30m, 7d")
    return length

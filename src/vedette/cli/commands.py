"""Every command in one visible place; each is imported when it is called, so that none pays for another.
Counterpart: one module a command group; docs/cli.md names them all."""

from __future__ import annotations

import sys

import typer

from vedette import __version__
from vedette.cli import rules
from vedette.cli.explain import explain_line
from vedette.cli.replay import replay

app = typer.Typer(
    name="vedette",
    help="Watches hosts: reads logs, judges them by rules, tells people, blocks attackers with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("replay")(replay)
app.command("explain")(explain_line)
app.add_typer(rules.app, name="rules")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="say the version and stop")) -> None:
    if version:
        typer.echo(f"vedette {__version__}")
        raise typer.Exit(0)


def run() -> None:
    """Run the command line of this process."""
    app(args=sys.argv[1:], prog_name="vedette")

"""Every command in one visible place; each is imported when it is called, so that none pays for another.
Counterpart: one module a command or group; docs/cli.md names them all."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from vedette import __version__


class Entry(NamedTuple):
    """Where a command lies, and what `--help` says of it without importing it."""

    module: str
    attribute: str
    words: str


COMMANDS = {
    "up": Entry("vedette.cli.up", "up", "Watch this host: read, judge, tell people, block."),
    "agent": Entry("vedette.cli.up", "agent", "Watch this host as one of a fleet: judge here, ship to the hub."),
    "hub": Entry("vedette.cli.up", "hub", "Watch this host, and be the place that agents ship to."),
    "replay": Entry("vedette.cli.replay", "replay", "Run detections over files."),
    "explain": Entry("vedette.cli.explain", "explain_line", "Show a record on its way through every stage."),
    "rules": Entry("vedette.cli.rules", "app", "Rules: list, test, lint, coverage, new, import, promote, demote."),
    "alerts": Entry("vedette.cli.alerts", "app", "Alerts: list, show, ack, resolve, silence."),
    "block": Entry("vedette.cli.block", "app", "Blocks: list, backtest, promote, demote, add, remove, allow, ..."),
    "search": Entry("vedette.cli.search", "search", "Look for records in the lake."),
    "tail": Entry("vedette.cli.tail", "tail", "Show what comes into the lake from now on"),
    "ports": Entry("vedette.cli.ports", "app", "Ports: check, learn, explain, schema."),
    "integrity": Entry("vedette.cli.integrity", "app", "Integrity: init, check, explain, odd, accept."),
    "attack": Entry("vedette.cli.attack", "app", "Attack files: run, check."),
    "lake": Entry("vedette.cli.lake", "app", "The lake: erase."),
    "ledger": Entry("vedette.cli.ledger", "app", "The ledger: head, prove, export, verify."),
    "backup": Entry(
        "vedette.cli.backup", "backup", "Write state, keys and configuration to one file, while everything runs."
    ),
    "restore": Entry(
        "vedette.cli.backup", "restore", "Make a data folder of an archive: verified first, all of it or nothing"
    ),
    "enrol": Entry("vedette.cli.enrol", "enrol", "Join the fleet of a hub by a join token."),
    "fleet": Entry(
        "vedette.cli.fleet",
        "app",
        "The fleet: list, bundle, token, tokens, forget, retire, revoke, coverage, witnesses.",
    ),
    "login": Entry("vedette.cli.login", "login", "Log in as an operator, with password and code"),
    "logout": Entry("vedette.cli.login", "logout", "End the session of this account."),
    "operators": Entry("vedette.cli.operators", "app", "Operators: add, list, role, reset, remove, token."),
    "config": Entry("vedette.cli.config", "app", "The configuration: check, show, schema."),
    "doctor": Entry("vedette.cli.doctor", "doctor", "Say what is wrong and how to mend it."),
}


def load_command(name: str) -> TyperCommand | TyperGroup:
    """The command called `name`, imported now, with the question who may run it around it."""
    from vedette.cli.admission import guard

    entry = COMMANDS[name]
    found = getattr(import_module(entry.module), entry.attribute)
    around = typer.Typer(cls=TyperGroup, add_completion=False, rich_markup_mode=None)
    around.callback()(lambda: None)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name)(found)
    group = typer.main.get_command(around)
    assert isinstance(group, TyperGroup)
    made = group.commands[name]
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    assert isinstance(made, TyperCommand | TyperGroup)
    guard(made, name)
    return made


class _Commands(TyperGroup):
    """Names and one sentence each; the command itself comes when it is asked for by name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.commands[name] = TyperCommand(name, callback=None, help=entry.words)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


app = typer.Typer(
    name="vedette",
    cls=_Commands,
    help="Watches hosts: reads logs, judges them by rules, tells people, blocks attackers with proof.",
    no_args_is_help=True,
    # Plain help: boxes would double what `--help` costs, and be of no use in a pipe.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="say the version and stop")) -> None:
    if version:
        typer.echo(f"vedette {__version__}")
        raise typer.Exit(0)


def run() -> None:
    """Run the command line of this process."""
    app(args=sys.argv[1:], prog_name="vedette")

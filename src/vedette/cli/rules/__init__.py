"""`vedette rules ...`: what is loaded, what is wrong with it, what it covers, how rules begin and how they rise.
Counterpart: one module a verb in this folder; the rules room finds and judges, here it becomes output."""

from __future__ import annotations

import typer

from vedette.cli.rules.beginning import new_rule
from vedette.cli.rules.covering import rules_coverage
from vedette.cli.rules.importing import import_rules
from vedette.cli.rules.linting import lint_rules
from vedette.cli.rules.listing import list_rules
from vedette.cli.rules.promoting import demote, promote
from vedette.cli.rules.testing import run_tests

app = typer.Typer(help="Rules: list, test, lint, coverage, new, import, promote, demote.", no_args_is_help=True)
app.command("list")(list_rules)
app.command("test")(run_tests)
app.command("lint")(lint_rules)
app.command("coverage")(rules_coverage)
app.command("new")(new_rule)
app.command("import")(import_rules)
app.command("promote")(promote)
app.command("demote")(demote)

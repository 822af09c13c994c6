"""How far a rule's response may go: up by what the lake says of its past alone, down at a word.
Counterpart: `backtest` makes the report, `cli.block_promoting` shows it; a running `up` takes the rung with SIGHUP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vedette.app.audit import Action, Audit
from vedette.app.backtest import Report
from vedette.app.config_lines import Line, OwnFile, comment_of, set_line, why_of
from vedette.config.settings import Settings
from vedette.model.decisions import Rung
from vedette.model.errors import VedetteError
from vedette.model.rules import Rule
from vedette.respond.ladder import rung_of

RUNGS_FILE = OwnFile(
    "respond.yml",
    "Written by `vedette block promote` and `demote`; may be edited by hand.\n"
    "How far each rule's response has climbed: observe, simulate, canary, enforce.",
)
LADDER = (Rung.OBSERVE, Rung.SIMULATE, Rung.CANARY, Rung.ENFORCE)


@dataclass(frozen=True, slots=True)
class Climb:
    """One change of a rule's rung: from, to, where it was written, who and why."""

    rule_id: str
    before: Rung
    after: Rung
    path: Path
    who: str
    why: str


def next_rung(settings: Settings, rule: Rule) -> Rung:
    """One further up, the last stays. Where no canary hosts are named, that rung is passed over."""
    ladder = [rung for rung in LADDER if rung is not Rung.CANARY or settings.blocking.canary_hosts]
    above = [rung for rung in ladder if LADDER.index(rung) > LADDER.index(rung_of(settings.respond, rule.id))]
    return above[0] if above else LADDER[-1]


def check_possible(settings: Settings, rule: Rule, to: Rung) -> None:
    """VedetteError where the rule cannot climb to `to`, whatever the lake says."""
    rung = rung_of(settings.respond, rule.id)
    if rule.response is None:
        raise VedetteError(f"{rule.id} asks for no block", hint="`vedette rules list` says which rules do")
    if LADDER.index(to) <= LADDER.index(rung):
        hint = f"`vedette block demote {rule.id} --to {to.value}` goes down" if to is not rung else ""
        raise VedetteError(f"{rule.id} is at {rung.value} already", hint=hint)
    if to is Rung.CANARY and not settings.blocking.canary_hosts:
        raise VedetteError("there are no canary hosts", hint="name them under `blocking: canary_hosts:`")


def check_climb(settings: Settings, rule: Rule, to: Rung, report: Report, *, sure: bool, despite: str) -> None:
    """VedetteError where the report does not carry so far a climb.

    sure: several rungs at once are meant. despite: why customers it would have blocked do not stand against it.
    """
    if not report.records:
        raise VedetteError(
            f"nothing is known of {rule.id}: the lake has no records of that time",
            hint="--since goes further back; without history a person may still write `respond:` in the configuration",
        )
    if report.false_blocks and not despite.strip():
        count = len({block.target for block in report.false_blocks})
        who = "1 address" if count == 1 else f"{count} addresses"
        raise VedetteError(
            f"{rule.id} would have blocked {who} from which somebody logged in",
            hint="see FALSE BLOCKS; --despite WHY where that would have been right",
        )
    rung = rung_of(settings.respond, rule.id)
    if to is not next_rung(settings, rule) and not sure:
        raise VedetteError(
            f"from {rung.value} to {to.value} is more than one rung",
            hint=f"--to {next_rung(settings, rule).value} is the next one; --yes if all of them are meant",
        )


def check_fall(settings: Settings, rule: Rule, to: Rung) -> None:
    """VedetteError where `to` is not further down."""
    rung = rung_of(settings.respond, rule.id)
    if LADDER.index(to) >= LADDER.index(rung):
        raise VedetteError(f"{rule.id} is at {rung.value} already")


def climb(config: Path | None, settings: Settings, rule: Rule, to: Rung, *, who: str, why: str, now: int) -> Climb:
    """Write the rung of `rule` to the configuration and say so in the audit; all of it or nothing.

    ConfigError where the rung is set in another file, or the file cannot be written; StateError for the audit.
    """
    before, path, why = rung_of(settings.respond, rule.id), RUNGS_FILE.beside(config), why_of(why)
    done = Climb(rule.id, before, to, path, who, why)
    comment = comment_of(now, who, before.value, why)
    line = Line(("respond", rule.id), to.value, f"the rung of {rule.id}", comment)
    with Audit(settings.data_folder()) as audit:
        set_line(config, RUNGS_FILE, line, lambda: audit.write(_audited(done), now))
    return done


def _audited(done: Climb) -> Action:
    up = LADDER.index(done.after) > LADDER.index(done.before)
    return Action(
        "response-promoted" if up else "response-demoted",
        done.who,
        f"{done.who}: the response of {done.rule_id} from {done.before.value} to {done.after.value}",
        about={"rule": done.rule_id, "before": done.before.value, "after": done.after.value, "reason": done.why},
    )

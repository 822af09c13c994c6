"""`vedette block promote|demote`: what the lake says of a rule's blocks, and how far its response may go from now on.
Counterpart: `app.backtest` makes the report, `app.block_promotion` judges and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedette.cli.backtesting import print_report, sentence
from vedette.cli.output import OK, Format, errors_said, note, say, write_json
from vedette.model.clock import SystemClock
from vedette.model.decisions import Rung
from vedette.model.errors import VedetteError
from vedette.respond.ladder import rung_of
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.backtest import Report
    from vedette.app.block_promotion import Climb
    from vedette.cli.backtesting import Asked
    from vedette.config.settings import Settings
    from vedette.model.rules import Rule


def run_promote(
    asked: Asked, to: Rung | None, *, yes: bool, despite: str, dry_run: bool, reason: str, output: Format
) -> None:
    """One rung up, or to `to`; exit 2 where the report does not carry that."""
    with errors_said():
        from vedette.app.block_promotion import check_climb, check_possible, next_rung

        rule = asked.rule()
        wanted = to or next_rung(asked.settings, rule)
        check_possible(asked.settings, rule, wanted)
        report = asked.report()
        if output is Format.TEXT:
            print_report(report)
        done: Climb | None = None
        try:
            check_climb(asked.settings, rule, wanted, report, sure=yes, despite=despite)
        except VedetteError:
            if output is Format.JSON:
                write_json([_record(asked.settings, rule, wanted, report, None)])
            raise
        if not dry_run:
            why = "; ".join(filter(None, (reason, despite and f"despite false blocks: {despite}", sentence(report))))
            done = _climb(asked.config, asked.settings, rule, wanted, why)
        _told(asked.settings, rule, wanted, report, done, output)
        raise SystemExit(OK)


def run_demote(asked: Asked, to: Rung, *, dry_run: bool, reason: str, output: Format) -> None:
    """Down to `to`; nothing is asked for that."""
    with errors_said():
        from vedette.app.block_promotion import check_fall

        rule = asked.rule()
        check_fall(asked.settings, rule, to)
        done = None if dry_run else _climb(asked.config, asked.settings, rule, to, reason)
        _told(asked.settings, rule, to, None, done, output)
        raise SystemExit(OK)


def _climb(config: Path | None, settings: Settings, rule: Rule, to: Rung, why: str) -> Climb:
    from vedette.app.block_promotion import climb
    from vedette.app.host import operator_name

    return climb(config, settings, rule, to, who=operator_name(), why=why, now=SystemClock().now())


def _told(settings: Settings, rule: Rule, to: Rung, report: Report | None, done: Climb | None, output: Format) -> None:
    if output is Format.JSON:
        write_json([_record(settings, rule, to, report, done)])
    elif done is None:
        say(f"{rule.id}: {rung_of(settings.respond, rule.id).value} -> {to.value} (nothing written)")
    else:
        say(f"{rule.id}: {done.before.value} -> {to.value}, written to {done.path}")
        note("a running `up` takes it when it is reloaded (SIGHUP)")


def _record(settings: Settings, rule: Rule, to: Rung, report: Report | None, done: Climb | None) -> dict[str, Any]:
    return {
        "rule.id": rule.id,
        "from": rung_of(settings.respond, rule.id).value,
        "to": to.value,
        "written": str(done.path) if done else None,
        "user.name": done.who if done else None,
        "reason": done.why if done else None,
        "report": None if report is None else _report(report),
    }


def _report(report: Report) -> dict[str, Any]:
    false: Sequence[str] = list(dict.fromkeys(block.target for block in report.false_blocks))
    return {
        "records": report.records,
        "begin": rfc3339(report.begin) if report.records else None,
        "end": rfc3339(report.end) if report.records else None,
        "findings": report.findings,
        "blocks": len(report.blocks),
        "simulated": sum(block.simulated for block in report.blocks),
        "false_blocks": len(report.false_blocks),
        "false_targets": false[:100],
        "refused": {reason.value: count for reason, count in report.refused.items()},
        "logins_cut": report.logins_cut,
    }

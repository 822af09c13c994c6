"""`vedette rules promote|demote`: how loud a rule would have been, and how far its alerts may go from now on.
Counterpart: `app.promotion` replays, judges and writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import OK, Format, errors_said, note, say, table, write_json
from vedette.cli.replaying import check_options, progress_bar
from vedette.config.load import load_settings
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.rules import NotifyStep, Rule
from vedette.rules.problems import did_you_mean
from vedette.rules.promotion import count_of
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.promotion import Move
    from vedette.config.settings import Settings
    from vedette.rules.promotion import Report

RuleId = Annotated[str, typer.Argument(help="id of the rule, as `vedette rules list` names it")]
Rules = Annotated[list[Path] | None, typer.Option("--rules", help="rule files or folders besides the configured ones")]
Reason = Annotated[str, typer.Option("--reason", help="why, for the audit and whoever reads the configuration")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]


def promote(
    rule_id: RuleId,
    to: Annotated[
        NotifyStep | None, typer.Option("--to", help="store, digest, mail or page; none: one further")
    ] = None,
    over: Annotated[
        list[Path] | None, typer.Option("--over", help="log files to look at how loud it would have been")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="one step without a report, or several with one")] = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    rules: Rules = None,
    format: Annotated[str, typer.Option("--format", help="of the log files, as in replay")] = "auto",  # noqa: A002
    timezone: Annotated[str, typer.Option("--timezone", help="of header times without one, and of days")] = "UTC",
    year: Annotated[int, typer.Option("--year", help="year of the first record, where headers have none")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="matching processes; 0: one a processor")] = 0,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Let the alerts of a rule go further: store, digest, mail, page. Shows how loud it would have been over files."""
    with errors_said():
        from vedette.app.promotion import check_climb, next_step, would_have_fired
        from vedette.app.workers import default_workers

        check_options(format, timezone, year)
        settings = _settings(config, data)
        rule, among = _rule(settings, rules or [], rule_id)
        wanted = to or next_step(rule.step)
        report = None
        if over:
            with progress_bar() as show:
                report = would_have_fired(
                    among,
                    rule,
                    over,
                    record_format=format,
                    timezone=timezone,
                    year=year,
                    workers=workers or default_workers(),
                    progress=show,
                )
            if output is Format.TEXT:
                print_report(report, rule)
        done: Move | None = None
        if not dry_run:
            try:
                check_climb(rule, wanted, report, sure=yes)
            except VedetteError:
                if report is not None and output is Format.JSON:
                    write_json([_record(rule, wanted, report, None)])
                raise
            why = "; ".join(filter(None, (reason, report.sentence() if report else "")))
            done = _move(config, settings, rule, wanted, why)
        _told(rule, wanted, report, done, output)
        raise SystemExit(OK)


def demote(
    rule_id: RuleId,
    to: Annotated[NotifyStep, typer.Option("--to", help="store, digest or mail")] = NotifyStep.STORE,
    dry_run: DryRun = False,
    reason: Reason = "",
    rules: Rules = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Let the alerts of a rule go less far; nothing is asked for that."""
    with errors_said():
        from vedette.app.promotion import check_fall

        settings = _settings(config, data)
        rule, _ = _rule(settings, rules or [], rule_id)
        check_fall(rule, to)
        done = None if dry_run else _move(config, settings, rule, to, reason)
        _told(rule, to, None, done, output)
        raise SystemExit(OK)


def _settings(config: Path | None, data: Path | None) -> Settings:
    settings = load_settings(config)
    return settings if data is None else settings.model_copy(update={"data": data})


def _rule(settings: Settings, paths: list[Path], rule_id: str) -> tuple[Rule, list[Rule]]:
    from vedette.app.detection import load_rules

    loaded = load_rules(
        [*settings.rules.paths, *paths], packs=settings.rules.packs, keep_going=True, settings=settings.rules, say=note
    )
    known = {rule.id: rule for rule in loaded}
    if rule_id not in known:
        hint = did_you_mean(rule_id, known) or "`vedette rules list` names them"
        raise VedetteError(f"there is no rule {rule_id!r}", hint=hint)
    return known[rule_id], loaded


def _move(config: Path | None, settings: Settings, rule: Rule, to: NotifyStep, why: str) -> Move:
    from vedette.app.host import operator_name
    from vedette.app.promotion import move

    return move(config, settings, rule, to, who=operator_name(), why=why, now=SystemClock().now())


def _told(rule: Rule, to: NotifyStep, report: Report | None, done: Move | None, output: Format) -> None:
    if output is Format.JSON:
        write_json([_record(rule, to, report, done)])
    elif done is None:
        say(f"{rule.id}: {rule.step.value} -> {to.value} (nothing written)")
    else:
        say(f"{rule.id}: {rule.step.value} -> {to.value}, written to {done.path}")
        note("a running `up` takes it when it is reloaded (SIGHUP)")


def _record(rule: Rule, to: NotifyStep, report: Report | None, done: Move | None) -> dict[str, Any]:
    return {
        "rule.id": rule.id,
        "level": rule.level.label,
        "from": rule.step.value,
        "to": to.value,
        "written": str(done.path) if done else None,
        "user.name": done.who if done else None,
        "reason": done.why if done else None,
        "report": report_record(report) if report else None,
    }


def report_record(report: Report) -> dict[str, Any]:
    """The report as JSON-ready values."""
    return {
        "files": report.files,
        "records": report.records,
        "begin": rfc3339(report.begin) if report.records else None,
        "end": rfc3339(report.end) if report.records else None,
        "days": report.days,
        "findings": report.findings,
        "alerts": report.alerts,
        "alerts_a_day": round(report.alerts_a_day, 2),
        "first": rfc3339(report.first) if report.findings else None,
        "last": rfc3339(report.last) if report.findings else None,
        "night": report.night,
        "timezone": report.zone,
        "by_day": [{"date": day.date, "findings": day.findings, "alerts": day.alerts} for day in report.by_day],
        "hosts": [{"host.name": name, "findings": count} for name, count in report.hosts],
        "hosts_total": report.hosts_total,
        "keys": [{"key": name, "findings": count} for name, count in report.keys],
        "keys_total": report.keys_total,
    }


_DAYS_SHOWN = 14


def print_report(report: Report, rule: Rule) -> None:
    """The report for people."""
    say(f"{rule.id} ({rule.level.label}): {rule.name}")
    if not report.records:
        say("looked at  no records")
        return
    span = f"{rfc3339(report.begin)[:19]}Z to {rfc3339(report.end)[:19]}Z"
    say(f"looked at  {count_of(report.records, 'record')} of {count_of(report.files, 'file')}, {span}")
    if not report.findings:
        say("fired      never: nothing is known of how loud it is")
        return
    first, last = (rfc3339(time)[:19] + "Z" for time in (report.first, report.last))
    say(f"fired      {count_of(report.findings, 'time')}, first {first}, last {last}")
    busiest = report.busiest
    most = f", at most {busiest.alerts} ({busiest.date})" if busiest else ""
    joined = f"findings of one key joined: {report.alerts_a_day:.1f} a day over {count_of(report.days, 'day')}"
    say(f"alerts     {report.alerts}, {joined}{most}")
    share = 100 * report.night / report.findings
    say(f"at night   {report.night} of {report.findings} findings ({share:.0f} %) from 22 to 6 o'clock {report.zone}")
    say()
    shown = report.by_day[-_DAYS_SHOWN:]
    table(("DAY", "FINDINGS", "ALERTS"), [(day.date, day.findings, day.alerts) for day in shown])
    if len(report.by_day) > len(shown):
        say(f"and {len(report.by_day) - len(shown)} days before")
    say()
    table(("HOST", "FINDINGS"), report.hosts)
    if report.hosts_total > len(report.hosts):
        say(f"and {report.hosts_total - len(report.hosts)} hosts more")
    say()
    table(("KEY", "FINDINGS"), report.keys)
    if report.keys_total > len(report.keys):
        say(f"and {report.keys_total - len(report.keys)} keys more")
    say()

"""`vedette alerts list|show|ack|resolve|silence`: the lifecycle of alerts from the command line.
Counterpart: `app.operating` carries the verbs out on the state that a running `up` shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vedette.alerts.silences import all_match, matcher_text, parse_matchers
from vedette.cli.options import Config, Data, Limit, Output, duration
from vedette.cli.output import Format, note, say, table, write_json
from vedette.cli.records import alert_record, decision_record, silence_record, stored_finding_record
from vedette.cli.state import operator
from vedette.model.alerts import Alert, AlertState, Disposition, Silence
from vedette.model.decisions import Decision
from vedette.model.errors import VedetteError
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.store.queries import AlertFilter, DecisionFilter
from vedette.text.escape import shorten, terminal
from vedette.text.times import duration_text, rfc3339

if TYPE_CHECKING:
    from vedette.app.operating import Operating

app = typer.Typer(help="Alerts: list, show, ack, resolve, silence.", no_args_is_help=True)

Ids = Annotated[list[str], typer.Argument(help="alert ids, or the beginning of one that no other has")]
Note = Annotated[str, typer.Option("--note", help="words to keep with the alert")]

_SHOWN_EVIDENCE = 10


# ---------------------------------------------------------------------------------------------------- list and show
@app.command("list")
def list_alerts(
    state: Annotated[str, typer.Option("--state", help="open, acknowledged, resolved; several with commas; all")] = (
        "open,acknowledged"
    ),
    level: Annotated[str, typer.Option("--level", help="this level and higher")] = "informational",
    rule: Annotated[str, typer.Option("--rule", help="of this rule only")] = "",
    limit: Limit = 100,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Alerts, newest first; those that are not resolved unless told otherwise."""
    with operator(config, data) as at:
        chosen = AlertFilter(states=_states(state), level=_level(level), rule_id=rule)
        # One more than shown, to know whether there are more.
        found = at.state.alerts(chosen, limit=limit + 1)
        if output is Format.JSON:
            write_json(alert_record(alert) for alert in found[:limit])
        else:
            table(
                ("ALERT", "STATE", "LEVEL", "OPENED", "COUNT", "WHAT"),
                [
                    (
                        alert.id,
                        alert.state.value,
                        alert.level.label,
                        _second(alert.opened_at),
                        alert.count,
                        shorten(terminal(alert.summary), 200),
                    )
                    for alert in found[:limit]
                ],
            )
        if len(found) > limit:
            note(f"there are more than {limit}: --limit shows more")


def _states(text: str) -> frozenset[AlertState]:
    if text == "all":
        return frozenset()
    try:
        return frozenset(AlertState(part.strip()) for part in text.split(","))
    except ValueError:
        raise VedetteError(
            f"--state: {text!r} names no states", hint="open, acknowledged, resolved, with commas; or all"
        ) from None


def _level(text: str) -> Level:
    try:
        return Level.parse(text)
    except ValueError as error:
        raise VedetteError(f"--level: {error}") from None


def _second(time: int) -> str:
    return rfc3339(time)[:19] + "Z" if time else "-"


@app.command("show")
def show_alert(
    alert: Annotated[str, typer.Argument(help="its id, or the beginning of it")],
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """All that is known of one alert: labels, counts, findings with their evidence, history, advice."""
    with operator(config, data) as at:
        found = at.find_alert(alert)
        findings = at.state.findings(found.finding_ids)
        owner = DecisionFilter(owner=f"rule:{found.rule_id}", since=found.opened_at)
        decisions = [one for one in at.state.decisions(owner, limit=10_000) if one.alert_id == found.id]
        if output is Format.JSON:
            whole: dict[str, Any] = alert_record(found)
            whole["findings"] = [stored_finding_record(one) for one in findings]
            whole["decisions"] = [decision_record(one) for one in decisions]
            write_json([whole])
        else:
            for line in _words_of(found, findings, decisions):
                say(line)


def _words_of(alert: Alert, findings: Iterable[Finding], decisions: Iterable[Decision]) -> Iterator[str]:
    yield f"alert     {alert.id}   {alert.state.value}"
    yield f"what      {alert.summary}"
    yield f"rule      {alert.rule_id}: {alert.rule_name}   level {alert.level.label}, {alert.kind.value}"
    for name, value in sorted(alert.labels.items()):
        yield f"label     {name} = {value}"
    yield f"count     {alert.count} events in {alert.finding_count} findings"
    if alert.sample:
        yield f"sample    {alert.sample}"
    for line in _history(alert):
        yield f"history   {line}"
    for text in alert.note.splitlines():
        yield f"note      {text}"
    for finding in findings:
        yield (
            f"finding   {finding.id}   {rfc3339(finding.time)}   count {finding.count}   blame {finding.blame.value}"
            + ("   inexact: older records were forgotten" if finding.inexact else "")
        )
        for record in finding.records[:_SHOWN_EVIDENCE]:
            yield f"            {rfc3339(record.time)}   {record.record_id}"
        if len(finding.records) > _SHOWN_EVIDENCE:
            yield f"            and {len(finding.records) - _SHOWN_EVIDENCE} more records (--output json has them)"
    for decision in decisions:
        yield (
            f"decision  {decision.id}   {decision.state.value}   {decision.target.value} "
            f"until {rfc3339(decision.expires_at)}"
        )
    if alert.advice:
        yield f"advice    {' '.join(alert.advice.split())}"


def _history(alert: Alert) -> Iterator[str]:
    yield f"{rfc3339(alert.opened_at)} opened"
    if alert.acknowledged_at:
        yield f"{rfc3339(alert.acknowledged_at)} acknowledged by {alert.acknowledged_by}"
    if alert.last_event_at:
        yield f"{rfc3339(alert.last_event_at)} last event"
    if alert.resolved_at:
        by = f" by {alert.resolved_by}" if alert.resolved_by else ""
        was = "" if alert.disposition is Disposition.NONE else f", {alert.disposition.value}"
        yield f"{rfc3339(alert.resolved_at)} resolved{by} ({alert.resolve_reason.value}{was})"


# ---------------------------------------------------------------------------------------------------- verbs
@app.command("ack")
def acknowledge(ids: Ids, note: Note = "", config: Config = None, data: Data = None) -> None:
    """Say that somebody looks after these alerts: the pager stops asking."""
    with operator(config, data) as at:
        _told(at, "acknowledged", at.acknowledge(ids, note))


@app.command("resolve")
def resolve(
    ids: Ids,
    disposition: Annotated[
        str, typer.Option("--disposition", help="true-positive, false-positive or benign; conditions need none")
    ] = "none",
    note: Note = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Close these alerts and say what they were."""
    with operator(config, data) as at:
        try:
            what = Disposition(disposition)
        except ValueError:
            known = ", ".join(one for one in Disposition if one is not Disposition.NONE)
            raise VedetteError(f"--disposition: {disposition!r} is none", hint=known) from None
        _told(at, "resolved", at.resolve(ids, what, note))


def _told(at: Operating, verb: str, changed: list[Alert]) -> None:
    for alert in changed:
        say(f"{verb}: {alert.id}   {alert.summary}")
    if not changed:
        say("nothing to change: that is how it stands already")
    elif not at.running and at.settings.notify.receivers:
        note(f"no `vedette up` runs on {at.folder}: receivers are told when one does")


# ---------------------------------------------------------------------------------------------------- silences
class _SilenceGroup(TyperGroup):
    """`silence MATCHER...` is `silence add MATCHER...`: a matcher has an operator in it, so no name is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not {"-h", "--help"} & set(args):
            args = ["add", *args]
        return super().parse_args(ctx, args)


silence = typer.Typer(
    cls=_SilenceGroup,
    help="Mute what matches: `silence MATCHER... --for 2h --comment TEXT`; list and expire.",
    no_args_is_help=True,
)
app.add_typer(silence, name="silence")


@silence.command("add")
def add_silence(
    matchers: Annotated[
        list[str], typer.Argument(help="rule.id=ssh-*, level!=critical, source.ip=~RE; all must match")
    ],
    comment: Annotated[str, typer.Option("--comment", help="why, for whoever finds it")],
    length: Annotated[str, typer.Option("--for", help="how long, 2h for example; none: as the settings say")] = "",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Tell nobody of alerts that all matchers match, for a while; they are kept all the same."""
    with operator(config, data, create=True) as at:
        wanted = parse_matchers(matchers)
        if not comment.strip():
            raise VedetteError("--comment: say why, for whoever finds it")
        made = at.silence(wanted, duration(length, "--for") if length else 0, comment)
        if output is Format.JSON:
            write_json([_silence_record(made)])
        else:
            say(f"silenced until {_second(made.ends_at)}: {_matchers(made)}   {made.id}")
        muted = at.state.alerts(
            AlertFilter(states=frozenset({AlertState.OPEN, AlertState.ACKNOWLEDGED})),
            limit=1000,
            where=lambda alert: all_match(made.matchers, alert.labels),
        )
        note(f"{len(muted)} alerts that are not resolved match now")


@silence.command("list")
def list_silences(
    ended: Annotated[bool, typer.Option("--ended", help="those that have ended, too")] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Silences that mute or will."""
    with operator(config, data) as at:
        found = at.silences(ended=ended)
        if output is Format.JSON:
            write_json(_silence_record(one) for one in found)
            return
        now = at.now()
        table(
            ("SILENCE", "LEFT", "BY", "MUTES", "COMMENT"),
            [
                (
                    one.id,
                    duration_text(one.ends_at - now) if one.ends_at > now else "ended",
                    one.created_by,
                    _matchers(one),
                    one.comment,
                )
                for one in found
            ],
        )


@silence.command("expire")
def expire_silences(
    ids: Annotated[list[str], typer.Argument(help="silence ids, or the beginning of one")],
    config: Config = None,
    data: Data = None,
) -> None:
    """End silences now: what they muted is told."""
    with operator(config, data) as at:
        for named in ids:
            ended = at.expire_silence(named)
            say(f"ended: {ended.id}   {_matchers(ended)}")


def _silence_record(made: Silence) -> dict[str, Any]:
    return silence_record(made, [matcher_text(one) for one in made.matchers])


def _matchers(made: Silence) -> str:
    return " ".join(matcher_text(one) for one in made.matchers)

"""`vedette block list|backtest|promote|demote|add|remove|allow|stats|import`: decisions from the command line.
Counterpart: `app.operating` carries the verbs out; `respond` knows floor, allowlist and leases."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.block_fleet import add_block, check_options, list_fleet_blocks, remove_blocks
from vedette.cli.config import yaml_lines
from vedette.cli.options import Config, Data, Limit, Output, duration
from vedette.cli.output import WRONG, Format, errors_said, note, say, table, write_json
from vedette.cli.records import decision_record
from vedette.cli.state import operator, settings_of
from vedette.model.clock import SystemClock
from vedette.model.decisions import Decision, DecisionState, Rung
from vedette.model.errors import VedetteError
from vedette.text.times import duration_text, rfc3339

if TYPE_CHECKING:
    from vedette.app.operating import Carried, Operating
    from vedette.cli.backtesting import Asked
    from vedette.respond.denyhosts import Imported
    from vedette.respond.policy import Outcome

app = typer.Typer(
    help="Blocks: list, backtest, promote, demote, add, remove, allow, ...",
    no_args_is_help=True,
)
imports = typer.Typer(help="Take over what another program blocked.", no_args_is_help=True)
app.add_typer(imports, name="import")


# ---------------------------------------------------------------------------------------------------- what stands
@app.command("list")
def list_blocks(
    history: Annotated[bool, typer.Option("--history", help="every decision, those that have ended too")] = False,
    limit: Limit = 1000,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="blocks of the fleet, and what each host made of them")
    ] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Who is blocked, until when, why and by whom."""
    with operator(config, data) as at:
        if fleet:
            list_fleet_blocks(at, output)
            return
        now = at.now()
        found = at.state.decisions(limit=limit + 1) if history else at.state.active_decisions(now)[::-1]
        shown = found[:limit]
        if output is Format.JSON:
            write_json(decision_record(one) for one in shown)
        else:
            columns = ("TARGET", "STATE", "LEFT", "SINCE", "OWNER", "REASON")
            table(columns, [_row(one, now) for one in shown])
        if len(found) > limit:
            note(f"there are more than {limit}: --limit shows more")


def _row(one: Decision, now: int) -> tuple[str, ...]:
    running = one.state in (DecisionState.ACTIVE, DecisionState.SIMULATED) and one.expires_at > now
    left = duration_text((one.expires_at - now) // 1_000_000 * 1_000_000) if running else "-"
    return one.target.value, one.state.value, left, rfc3339(one.starts_at)[:19] + "Z", one.owner, one.reason


@app.command("stats")
def stats(
    since: Annotated[str, typer.Option("--since", help="decisions of this long until now")] = "30d",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """How many addresses were blocked, by which rule, and what was refused for which reason."""
    with operator(config, data) as at:
        now = at.now()
        begin = now - duration(since, "--since")
        found = at.state.decision_stats(begin, now)
        refusals = at.state.refusal_counts(begin)
        if output is Format.JSON:
            record: dict[str, Any] = {
                "since": rfc3339(begin),
                "addresses": found.addresses,
                "decisions": found.total,
                "active": found.active,
                "by_state": {state.value: count for state, count in found.by_state.items()},
                "by_owner": {
                    owner: {"decisions": count, "targets": targets}
                    for owner, (count, targets) in found.by_owner.items()
                },
                "refusals": [
                    {"rule.id": one.rule_id, "reason": one.reason.value, "count": one.count} for one in refusals
                ],
            }
            write_json([record])
            return
        say(f"since {rfc3339(begin)[:19]}Z")
        say(f"addresses  {found.addresses} unique addresses")
        states = ", ".join(f"{count} {state.value}" for state, count in sorted(found.by_state.items()))
        say(f"decisions  {found.total}, {found.active} of them in force now" + (f" ({states})" if states else ""))
        if found.by_owner:
            say()
            rows = sorted(found.by_owner.items(), key=lambda item: (-item[1][0], item[0]))
            table(("BY", "DECISIONS", "TARGETS"), [(owner, count, targets) for owner, (count, targets) in rows])
        if refusals:
            say()
            table(("REFUSED FOR", "REASON", "COUNT"), [(one.rule_id, one.reason.value, one.count) for one in refusals])


# ---------------------------------------------------------------------------------------------------- what would be
RuleId = Annotated[str, typer.Argument(help="id of the rule, as `vedette rules list` names it")]
Rules = Annotated[list[Path] | None, typer.Option("--rules", help="rule files besides the configured ones")]
Since = Annotated[str, typer.Option("--since", help="a time, or how long ago")]
Until = Annotated[str, typer.Option("--until", help="a time, or how long ago; none: now")]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="id of a host; may be given several times")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]
Reason = Annotated[str, typer.Option("--reason", help="why, for the audit and whoever reads the configuration")]


@app.command("backtest")
def backtest_rule(
    rule_id: RuleId,
    since: Since = "30d",
    until: Until = "",
    host: Hosts = None,
    rules: Rules = None,
    accept_forgeable: Annotated[
        bool, typer.Option("--accept-forgeable", help="as if records that a local user can forge were believed")
    ] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Whom a rule would have blocked, by the records of the lake, and which of them logged in successfully."""
    from vedette.cli.backtesting import run_backtest

    run_backtest(_asked(rule_id, since, until, host, rules, config, data, accept_forgeable), output)


@app.command("promote")
def promote(
    rule_id: RuleId,
    to: Annotated[Rung | None, typer.Option("--to", help="simulate, canary or enforce; none: one rung up")] = None,
    since: Since = "30d",
    until: Until = "",
    host: Hosts = None,
    yes: Annotated[bool, typer.Option("--yes", help="several rungs at once are meant")] = False,
    despite: Annotated[
        str, typer.Option("--despite", help="why the customers it would have blocked do not stand against it")
    ] = "",
    dry_run: DryRun = False,
    reason: Reason = "",
    rules: Rules = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Let a rule block further: observe, simulate, canary, enforce. Shows first whom it would have blocked."""
    from vedette.cli.block_promoting import run_promote

    asked = _asked(rule_id, since, until, host, rules, config, data)
    run_promote(asked, to, yes=yes, despite=despite, dry_run=dry_run, reason=reason, output=output)


@app.command("demote")
def demote(
    rule_id: RuleId,
    to: Annotated[Rung, typer.Option("--to", help="observe, simulate or canary")] = Rung.OBSERVE,
    dry_run: DryRun = False,
    reason: Reason = "",
    rules: Rules = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Let a rule block less; nothing is asked for that."""
    from vedette.cli.block_promoting import run_demote

    asked = _asked(rule_id, "30d", "", None, rules, config, data)
    run_demote(asked, to, dry_run=dry_run, reason=reason, output=output)


def _asked(
    rule_id: str,
    since: str,
    until: str,
    hosts: list[str] | None,
    rules: list[Path] | None,
    config: Path | None,
    data: Path | None,
    accept_forgeable: bool = False,
) -> Asked:
    with errors_said():
        from vedette.cli.backtesting import Asked

        settings = settings_of(config, data)
        return Asked(rule_id, since, until, hosts or [], rules or [], accept_forgeable, config, data, settings)


# ---------------------------------------------------------------------------------------------------- verbs
@app.command("add")
def add(
    target: Annotated[str, typer.Argument(help="address or network; names are never resolved")],
    length: Annotated[str, typer.Option("--for", help="how long")] = "1h",
    reason: Annotated[str, typer.Option("--reason", help="why; wanted with --override")] = "",
    override: Annotated[bool, typer.Option("--override", help="pass the allowlist, for a short time")] = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="on the agents of this hub; each of them may refuse")] = False,
    group: Annotated[str, typer.Option("--group", help="with --fleet: on agents of this group alone")] = "",
    canary: Annotated[int | None, typer.Option("--canary", min=0, help="with --fleet: on so many hosts first")] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="with --fleet: on all at once, also one that is held")
    ] = False,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Block an address or network."""
    with operator(config, data, create=True) as at:
        if override and not reason.strip():
            raise VedetteError("--override wants a --reason: it blocks somebody whom others allowed")
        words = reason.strip() or f"blocked by {at.operator}"
        check_options(fleet, (group, canary is not None, everywhere))
        if fleet:
            if override:
                raise VedetteError("--override does not go with --fleet: what a host protects stays protected")
            lease = duration(length, "--for")
            add_block(at, target, lease, words, group=group, canary=canary, everywhere=everywhere, output=output)
            return
        decision, carried = at.block(target, duration(length, "--for"), words, override=override)
        if output is Format.JSON:
            write_json([decision_record(decision)])
        else:
            say(f"blocked: {decision.target.value} until {rfc3339(decision.expires_at)[:19]}Z   {decision.id}")
        _tell(at, carried)


@app.command("remove")
def remove(
    targets: Annotated[list[str] | None, typer.Argument(help="exactly what is blocked, as `block list` has it")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every block there is")] = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="blocks of the fleet, on every agent")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """Lift blocks, or all of them; where no `up` runs, what the enforcers hold is cleared here."""
    with operator(config, data) as at:
        if bool(targets) is everything:
            raise VedetteError("name what is to be lifted, or say --all")
        if fleet:
            remove_blocks(at, targets or [])
            return
        lifted, carried = at.unblock_all() if everything else at.unblock(targets or [])
        for target in lifted:
            say(f"lifted: {target}")
        if everything:
            say(f"{len(lifted)} blocks lifted; nothing is blocked any more")
        _tell(at, carried)


@app.command("allow")
def allow(
    network: Annotated[str, typer.Argument(help="address or network that rules never block")],
    comment: Annotated[str, typer.Option("--comment", help="whose it is, and why")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Put a network on the allowlist of the data folder and lift the blocks on it."""
    with operator(config, data, create=True) as at:
        entry, lifted, carried = at.allow(network, comment)
        say(f"allowed: {entry.network}   {entry.comment}")
        for target in lifted:
            say(f"lifted: {target}")
        if lifted:
            _tell(at, carried)


def _tell(at: Operating, carried: Carried) -> None:
    """What became of it outside the state; exit 2 where it is not in force."""
    from vedette.app.operating import Effect

    match carried.effect:
        case Effect.LEFT_TO_UP:
            note("the running `vedette up` carries it out within a moment")
        case Effect.DONE_HERE:
            note(
                f"carried out here, by {', '.join(at.settings.blocking.enforcers)}: no `vedette up` runs on {at.folder}"
            )
        case Effect.NOTHING_TO_DO:
            note("no enforcer held anything of it")
        case Effect.FAILED:
            note(f"kept, but NOT IN FORCE: {carried.words}")
            raise SystemExit(WRONG)


# ---------------------------------------------------------------------------------------------------- import
@imports.command("denyhosts")
def import_denyhosts(
    conf: Annotated[Path, typer.Argument(help="its denyhosts.conf")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="report only; nothing is written")] = False,
    work_dir: Annotated[Path | None, typer.Option("--work-dir", help="in place of its WORK_DIR")] = None,
    hosts_deny: Annotated[Path | None, typer.Option("--hosts-deny", help="in place of its HOSTS_DENY")] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="in which it wrote its dates")] = "local",
    config: Config = None,
    data: Data = None,
) -> None:
    """Take over a DenyHosts installation: blocks that still run, allowed hosts; its settings are shown."""
    from vedette.sources.settings import zone_name

    if dry_run:
        # Needs no state, and must not make one.
        with errors_said():
            settings_of(config, data)
            found = _read_denyhosts(conf, "", zone_name(timezone), work_dir, hosts_deny)
            _report(found)
            say(f"would take over {len(found.decisions)} blocks and {len(found.allowlist)} allowlist entries")
        return
    with operator(config, data, create=True) as at:
        found = _read_denyhosts(conf, at.host_id(), zone_name(timezone), work_dir, hosts_deny)
        outcome, carried = at.adopt(found)
        _report(found)
        _told_of(found, outcome)
        if outcome.enforce:
            _tell(at, carried)


def _read_denyhosts(
    conf: Path, host_id: str, timezone: str, work_dir: Path | None, hosts_deny: Path | None
) -> Imported:
    from zoneinfo import ZoneInfo

    from vedette.respond.denyhosts import read_installation

    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise VedetteError(f"no such time zone: {timezone!r}", hint="an IANA name, Europe/Berlin for example") from None
    now = SystemClock().now()
    return read_installation(conf, now, host_id=host_id, timezone=timezone, work_dir=work_dir, hosts_deny=hosts_deny)


def _report(found: Imported) -> None:
    for line in found.notes:
        say(str(line))
    say()
    say("# for the configuration (nothing is written to it):")
    settings: dict[str, Any] = dict(found.settings)
    if found.log_files:
        settings["sources"] = {"file": [{"paths": list(found.log_files)}]}
    for text in yaml_lines(settings):
        say(text)
    if found.mail:
        say("# mail, for a receiver of type email (the password is not copied):")
        for name, value in found.mail.items():
            say(f"#   {name}: {value}")
    say()


def _told_of(found: Imported, outcome: Outcome) -> None:
    say(f"taken over: {len(outcome.enforce)} blocks, {len(found.allowlist)} allowlist entries")
    refused = Tally(one.reason.value for one in outcome.refusals)
    for reason, count in sorted(refused.items()):
        say(f"not taken over: {count}, {reason}")

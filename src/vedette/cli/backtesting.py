"""`vedette block backtest`: the report a person looks at before a rule may block.
Counterpart: `app.backtest` runs the rule over the lake; `cli.block_promoting` acts on what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedette.cli.output import FOUND, OK, Format, errors_said, note, say, table, write_json
from vedette.cli.searching import lake_folder, moment, opened
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.rules.problems import did_you_mean
from vedette.rules.promotion import count_of
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.backtest import Block, Login, Report
    from vedette.config.settings import Settings
    from vedette.model.rules import Rule

_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule, and over which part of the lake it is to be run."""

    rule_id: str
    since: str
    until: str
    hosts: Sequence[str]
    paths: Sequence[Path]
    accept_forgeable: bool
    config: Path | None
    data: Path | None
    settings: Settings

    def rule(self) -> Rule:
        """The rule; VedetteError where there is none of that id."""
        rule_id, known = self.rule_id, {rule.id: rule for rule in self._loaded()}
        if rule_id not in known:
            hint = did_you_mean(rule_id, known) or "`vedette rules list` names them"
            raise VedetteError(f"there is no rule {rule_id!r}", hint=hint)
        return known[rule_id]

    def _loaded(self) -> Sequence[Rule]:
        from vedette.app.detection import load_rules

        chosen = self.settings.rules
        return load_rules([*chosen.paths, *self.paths], packs=chosen.packs, keep_going=True, settings=chosen, say=note)

    def report(self) -> Report:
        """What the rule would have blocked."""
        from vedette.app.backtest import backtest
        from vedette.respond.allowlist import Guard
        from vedette.respond.enforcers import allowlist_of, refresh_floor

        settings, now = self.settings, SystemClock().now()
        begin = moment(self.since, "--since", now)
        end = moment(self.until, "--until", now) if self.until else now + 1
        rule = self.rule()
        guard = Guard()
        refresh_floor(guard, settings.responding)
        guard.set_allowlist(allowlist_of(settings.responding))
        with opened(lake_folder(self.config, self.data)) as lake:
            return backtest(
                lake,
                self._loaded(),
                rule,
                since=begin,
                until=end,
                guard=guard,
                known_logins=settings.blocking.known_logins,
                accept_forgeable=lambda _source: self.accept_forgeable,
                hosts=frozenset(self.hosts),
            )


def run_backtest(asked: Asked, output: Format) -> None:
    """Print what the rule would have blocked; exit 1 where one of those logged in successfully."""
    with errors_said():
        report = asked.report()
        if output is Format.JSON:
            write_json(map(_record, report.blocks))
            note(sentence(report))
        else:
            print_report(report)
    raise SystemExit(FOUND if report.false_blocks else OK)


def sentence(report: Report) -> str:
    """How many blocks there would have been, in a line."""
    words = f"{report.rule_id}: {count_of(len(report.blocks), 'block')} of {count_of(report.records, 'record')}"
    if report.records:
        words += f" from {rfc3339(report.begin)[:19]}Z to {rfc3339(report.end)[:19]}Z"
    return f"{words}, {len(report.false_blocks)} of them false"


def print_report(report: Report) -> None:
    """The report for people."""
    say(sentence(report))
    for reason, count in sorted(report.refused.items(), key=lambda item: -item[1]):
        say(f"no block: {count_of(count, 'finding')}: {reason.value}")
    simulated = sum(block.simulated for block in report.blocks)
    if simulated:
        say(f"{simulated} of the blocks would only be simulated: a local user could have forged the records")
    if report.logins_cut:
        say("there were logins from more addresses than are remembered: some false blocks may be missing")
    for title, blocks in (("FALSE BLOCKS", report.false_blocks), ("BLOCKS", report.blocks)):
        if not blocks:
            continue
        say()
        say(title)
        rows = [_row(block) for block in blocks[:_SHOWN]]
        table(("TARGET", "HOST", "FROM", "UNTIL", "RECORDS", "LOGINS BEFORE", "LOGINS AFTER", "EVIDENCE"), rows)
        if len(blocks) > _SHOWN:
            say(f"and {len(blocks) - _SHOWN} more: --output json has all of them")


def _row(block: Block) -> tuple[object, ...]:
    return (
        block.target,
        block.host_name or block.host_id,
        rfc3339(block.at)[:19] + "Z",
        rfc3339(block.until)[:19] + "Z",
        block.count,
        _users(block.before),
        _users(block.after),
        block.evidence[0] if block.evidence else "",
    )


def _users(logins: Sequence[Login]) -> str:
    return ", ".join(dict.fromkeys(login.user for login in logins)) or "-"


def _record(block: Block) -> dict[str, Any]:
    return {
        "target": block.target,
        "host.id": block.host_id,
        "host.name": block.host_name or None,
        "starts_at": rfc3339(block.at),
        "expires_at": rfc3339(block.until),
        "findings.count": block.findings,
        "count": block.count,
        "offence": block.offence,
        "simulated": block.simulated,
        "evidence": list(block.evidence),
        "false": block.false,
        "logins": [
            {
                "@timestamp": rfc3339(login.time),
                "user.name": login.user,
                "source.ip": login.address,
                "host.id": login.host_id,
                "when": when,
            }
            for when, logins in (("before", block.before), ("after", block.after))
            for login in logins
        ],
    }

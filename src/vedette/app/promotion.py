"""How far a rule's alerts may go: the would-have-fired report over files, the step in the configuration, the audit.
Counterpart: `rules.promotion` counts, `cli.rules.promoting` prints; a running `up` takes the step with SIGHUP."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from vedette.alerts.keys import alert_key, finding_fields
from vedette.app.audit import Action, Audit
from vedette.app.config_lines import Line, OwnFile, comment_of, set_line, why_of
from vedette.app.counters import Counters
from vedette.app.detection import matcher_of
from vedette.app.replay import Progress, Replay, ReplayFile, evidence, is_gzip, open_files
from vedette.config.settings import Settings
from vedette.detections.correlate import Correlator
from vedette.detections.match import Matcher
from vedette.detections.stretch import Outcome, Stretch
from vedette.model.batch import Batch, split_lines
from vedette.model.clock import BEGINNING
from vedette.model.errors import VedetteError
from vedette.model.rules import NotifyStep, Rule
from vedette.rules.promotion import Report, Tally

STEPS_FILE = OwnFile(
    "steps.yml",
    "Written by `vedette rules promote` and `demote`; may be edited by hand.\n"
    "How far each rule's alerts may go: store, digest, mail, page.",
)
_HEAD_BYTES = 1 << 16


# ---------------------------------------------------------------------------------------------- the report


class _Span(Correlator):
    """A correlator that remembers up to when there were records."""

    high = BEGINNING

    def process(self, stretch: Stretch) -> Outcome:
        self.high = max(self.high, stretch.matches.batch_high)
        return super().process(stretch)


def would_have_fired(
    rules: Sequence[Rule],
    rule: Rule,
    paths: Sequence[Path],
    *,
    record_format: str = "auto",
    timezone: str = "UTC",
    year: int = 0,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """What `rule` would have done over these files; `rules` are those it needs and those it stands among."""
    counter = Counters()
    chosen = needed(rules, rule)
    matcher = matcher_of(chosen, counter=counter)
    correlator = _Span(matcher.rules, counter=counter, evidence=evidence)
    files = open_files(paths, year=year, timezone=timezone, record_format=record_format)
    tally = Tally(rule.id, ZoneInfo(timezone))
    run = Replay(files, matcher, correlator, counter=counter, timezone=timezone, workers=workers, progress=progress)
    for finding in run.run():
        fields = finding_fields(finding, rule)
        fields.pop("host.id", None)
        words = ", ".join(f"{name}={value}" for name, value in fields.items()) or "(one for all)"
        tally.add(finding, alert_key(rule.id, {**fields, "host.name": finding.host_name}), words)
    end = max(correlator.high, tally.last)
    begin = min([_begin(matcher, file, timezone) for file in files] + [tally.first or end])
    records = run.progress.records if end > BEGINNING else 0
    return tally.report(files=len(files), records=records, begin=min(begin, end), end=end, zone=timezone)


def needed(rules: Sequence[Rule], rule: Rule) -> list[Rule]:
    """The rules without which `rule` would not do what it does, in their order; of a tree all, since siblings count."""
    chosen = {rule.id}
    waiting = [rule]
    while waiting:
        one = waiting.pop()
        names = {one.id, *one.groups}
        if one.parents or any(names & set(other.parents) for other in rules):
            return list(rules)
        counted = set(one.correlate.of) if one.correlate is not None else set()
        for other in rules:
            if other.id not in chosen and {other.id, *other.groups} & counted:
                chosen.add(other.id)
                waiting.append(other)
    return [one for one in rules if one.id in chosen]


def _begin(matcher: Matcher, file: ReplayFile, timezone: str) -> int:
    """The earliest time among the first records of a file."""
    with (
        gzip.open(file.path) if is_gzip(file.path) else file.path.open("rb") as source,
        suppress(EOFError, gzip.BadGzipFile),
    ):
        head = source.read(_HEAD_BYTES)
        block = head[: head.rfind(b"\n") + 1] or head
        starts, ends = split_lines(block)
        if not len(starts):
            return file.read_at
        batch = Batch(
            origin=file.origin,
            number=0,
            block=block,
            starts=starts,
            ends=ends,
            positions=np.arange(1, len(starts) + 1, dtype=np.int64),
            read_at=file.read_at,
            format=file.format,
            timezone=timezone,
            year=file.year,
            spooled=True,
        )
        table = matcher.judge(batch).table
        timed = np.setdiff1d(np.arange(len(batch)), table.untimed)
        if len(timed):
            return int(table.time[timed].min())
    return file.read_at


# ---------------------------------------------------------------------------------------------- the step


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a rule's step: from, to, where it was written, who and why."""

    rule_id: str
    before: NotifyStep
    after: NotifyStep
    path: Path
    who: str
    why: str


def next_step(step: NotifyStep) -> NotifyStep:
    """One further; the last one stays."""
    steps = tuple(NotifyStep)
    return steps[min(step.rank + 1, len(steps) - 1)]


def check_climb(rule: Rule, to: NotifyStep, report: Report | None, *, sure: bool) -> None:
    """VedetteError where a rule may not go up so far: unseen, or several steps at once, without a word that it may."""
    steps = to.rank - rule.step.rank
    if rule.silent:
        raise VedetteError(f"{rule.id} makes no findings of its own: it is counted by other rules")
    if steps <= 0:
        hint = f"`vedette rules demote {rule.id} --to {to.value}` goes down" if steps else ""
        raise VedetteError(f"{rule.id} is at {rule.step.value} already", hint=hint)
    if report is None and (steps > 1 or not sure):
        hint = "--over FILE... shows how loud it would have been"
        if steps == 1:
            hint += "; --yes goes up one step without"
        raise VedetteError(f"{rule.id} has not been looked at: nothing was replayed", hint=hint)
    if steps > 1 and not sure:
        one = next_step(rule.step)
        raise VedetteError(
            f"from {rule.step.value} to {to.value} are {steps} steps at once",
            hint=f"--to {one.value} is the next one; --yes if all of them are meant",
        )


def check_fall(rule: Rule, to: NotifyStep) -> None:
    """VedetteError where `to` is not further down."""
    if to.rank >= rule.step.rank:
        raise VedetteError(f"{rule.id} is at {rule.step.value} already")


def move(config: Path | None, settings: Settings, rule: Rule, to: NotifyStep, *, who: str, why: str, now: int) -> Move:
    """Write the step of `rule` to the configuration and say so in the audit; all of it or nothing.

    ConfigError where the step is set in another file, or the file cannot be written; StateError for the audit.
    """
    path, why = STEPS_FILE.beside(config), why_of(why)
    done = Move(rule.id, rule.step, to, path, who, why)
    comment = comment_of(now, who, rule.step.value, why)
    line = Line(("rules", "steps", rule.id), to.value, f"the step of {rule.id}", comment)
    with Audit(settings.data_folder()) as audit:
        set_line(config, STEPS_FILE, line, lambda: audit.write(_audited(done), now))
    return done


def _audited(done: Move) -> Action:
    up = done.after.rank > done.before.rank
    return Action(
        "rule-promoted" if up else "rule-demoted",
        done.who,
        f"{done.who}: {done.rule_id} from {done.before.value} to {done.after.value}",
        about={"rule": done.rule_id, "before": done.before.value, "after": done.after.value, "reason": done.why},
    )

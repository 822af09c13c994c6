"""What Vedette notices about itself, as rules and findings like any other: nothing goes round the waist.
Counterpart: `app.pipeline` makes them at the commit point; routes, silences and pages treat them alike."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.model.events import Scalar
from vedette.model.findings import Evidence, Finding, finding_id
from vedette.model.levels import Level
from vedette.model.rules import LogSource, Op, Rule, RuleKind, Test
from vedette.text.escape import terminal


def _over(fault: Rule, rule_id: str, name: str) -> Rule:
    """What says that `fault` is over."""
    return Rule(id=rule_id, name=name, level=Level.INFORMATIONAL, key=fault.key, clears=fault.id)


FUSE_BLOWN = Rule(
    id="vedette-fuse-blown",
    name="Blocking stopped itself",
    level=Level.HIGH,
    advice="More was to be blocked than the fuse allows. Look at `vedette block list` and the alerts of the rule it "
    "names: either this is a large attack and the limit should be raised, or the rule is wrong.",
)
ENFORCER_FAILED = Rule(
    id="vedette-enforcer-failed",
    name="Blocks are not in force",
    level=Level.HIGH,
    kind=RuleKind.CONDITION,
    key=("vedette.enforcer",),
    advice="Decisions are made but not carried out. `vedette doctor` says what the enforcer needs.",
)
ENFORCER_MENDED = _over(ENFORCER_FAILED, "vedette-enforcer-mended", "Blocks are in force again")
LAKE_REFUSED = Rule(
    id="vedette-lake-refused",
    name="What is read cannot be kept",
    level=Level.HIGH,
    kind=RuleKind.CONDITION,
    advice="It waits on the shelf, whose room is bounded, and cannot be searched meanwhile. Make room on the disk, or "
    "look at it (kernel log); `vedette doctor` says more.",
)
LAKE_MENDED = _over(LAKE_REFUSED, "vedette-lake-mended", "What is read is kept again")
CLOCK_SKEWED = Rule(
    id="vedette-clock-skewed",
    name="Times in the log are far from this host's clock",
    level=Level.MEDIUM,
    key=("vedette.source",),
    advice="Windows use the time of reading meanwhile. Set the clock (NTP), or the source's `timezone`.",
)
PATTERN_UNDECIDED = Rule(
    id="vedette-pattern-undecided",
    name="A rule's pattern could not decide what it was shown",
    level=Level.LOW,
    key=("vedette.rule",),
    advice="Its steps are limited, lest one record stop everything; what takes more counts as no match, so the rule "
    "may have missed something. `vedette rules lint` names the pattern: write it so that it runs in linear time.",
)
PAGE_BUDGET_SPENT = Rule(
    id="vedette-page-budget-spent",
    name="A rule paged too often and goes by mail now",
    level=Level.MEDIUM,
    kind=RuleKind.CONDITION,
    key=("vedette.rule",),
    advice="Look whether the rule is too loud: `vedette rules promote ID --over FILE --dry-run` says how loud, `rules "
    "demote` takes it down for good. Resolving this alert lets it page again.",
)
RULE_DEAD = Rule(
    id="vedette-rule-dead",
    name="A rule does not find what it is there to find",
    level=Level.MEDIUM,
    kind=RuleKind.CONDITION,
    key=("vedette.rule",),
    advice="Lines that must make its finding were put in, and none came out: whatever it watches goes unseen. "
    "`vedette rules test` runs the same case outside the service; the rule, a filter or a parser was changed last.",
)
RULE_ALIVE = _over(RULE_DEAD, "vedette-rule-alive", "A rule finds again what it is there to find")
PAGER_FAILED = Rule(
    id="vedette-pager-failed",
    name="A drill did not reach the pager",
    level=Level.MEDIUM,
    kind=RuleKind.CONDITION,
    key=("vedette.receiver",),
    advice="What pages may not reach anybody either. Look at the receiver: its key, its network, its service.",
)
PAGER_MENDED = _over(PAGER_FAILED, "vedette-pager-mended", "A drill reached the pager again")
STATE_REMOVED = Rule(
    id="vedette-state-removed",
    name="Somebody took the state's file away",
    level=Level.HIGH,
    tags=("attack.defense-evasion", "attack.t1070.004"),
    advice="It was written anew with everything in it, and nothing was lost. Find out who did it: alerts, blocks and "
    "what is still to be told live there.",
)
LOGIN = Rule(
    id="vedette-login",
    name="Somebody logged in",
    level=Level.INFORMATIONAL,
    when=Test("event.action", Op.EQUALS, ("ssh-login-succeeded",)),
    logsource=LogSource(product="linux", service="sshd"),
    silent=True,
)
"""What `app.knowing` looks for; silent, and no rule counts it."""
RULES = (
    FUSE_BLOWN,
    ENFORCER_FAILED,
    ENFORCER_MENDED,
    LAKE_REFUSED,
    LAKE_MENDED,
    CLOCK_SKEWED,
    PATTERN_UNDECIDED,
    PAGE_BUDGET_SPENT,
    RULE_DEAD,
    RULE_ALIVE,
    PAGER_FAILED,
    PAGER_MENDED,
    STATE_REMOVED,
)


@dataclass(frozen=True, slots=True)
class Self:
    """Who speaks: the host this process runs on."""

    host_id: str
    host_name: str

    def finding(self, rule: Rule, key: dict[str, Scalar], now: int, words: str) -> Finding:
        """A finding of one of `RULES`; `words` is its sample, what a person reads first."""
        return Finding(
            id=finding_id(rule.id, key, now, words.encode(), 0),
            rule_id=rule.id,
            rule_name=rule.name,
            level=rule.level,
            time=now,
            key=key,
            host_id=self.host_id,
            host_name=self.host_name,
            source_ip="",
            user_name="",
            count=1,
            records=(Evidence(f"{self.host_id}/vedette/{now}", now),),
            sample=terminal(words),
            clears=rule.clears,
            created=now,
        )

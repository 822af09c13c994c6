"""Random transactions for every kind of store, and every question a face may ask of one.
Counterpart: test_state.py and test_postgresql.py, which hold stores to the plain model with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from vedette.model.alerts import Alert, AlertState, Matcher, MatchKind, Silence
from vedette.model.batch import Trust
from vedette.model.decisions import Decision, DecisionState, Refusal, Target, TargetKind
from vedette.model.errors import StateError
from vedette.model.findings import Evidence, Finding
from vedette.model.levels import Level
from vedette.model.notifications import (
    GroupState,
    MemberAlert,
    Notification,
    NotificationKind,
    OutboxItem,
    OutboxState,
)
from vedette.model.protocols import StateStore
from vedette.model.reasons import DeliveryReason, RefusalReason
from vedette.model.retention import Kept
from vedette.model.rules import RuleKind
from vedette.store.queries import AlertFilter, DecisionFilter
from vedette.store.state import State
from vedette.testing.state import MemoryState

HOSTILE = ["plain", "'; DROP TABLE alerts; --", '"x" OR 1=1', "nul\0byte", "\u202eevil\x1b[2J", "", "%_*?", "ümläut 🐎"]

words = st.sampled_from(HOSTILE)
names = st.sampled_from([word for word in HOSTILE if "\0" not in word])
few = st.sampled_from(["a", "b", "c", "d"])
times = st.integers(0, 20)
levels = st.sampled_from(Level)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    return Finding(
        id=draw(few),
        rule_id=draw(names),
        rule_name="name",
        level=draw(levels),
        time=draw(times),
        created=draw(times),
        key={draw(words): draw(st.one_of(words, st.integers(-(2**63), 2**63 - 1), st.none(), st.booleans()))},
        host_id="h",
        host_name=draw(words),
        source_ip="",
        user_name=draw(words),
        count=draw(times),
        records=(Evidence("h/file/0:1", 5, "auth.log", 3),),
        trust=draw(st.sampled_from(Trust)),
        sample=draw(words),
    )


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    ident = draw(few)
    return Alert(
        id=ident,
        key=draw(st.sampled_from([ident, "shared"])),
        rule_id=draw(names),
        rule_name="name",
        level=draw(levels),
        kind=draw(st.sampled_from(RuleKind)),
        labels={"host.id": draw(words), "user.name": draw(words)},
        state=draw(st.sampled_from(AlertState)),
        opened_at=draw(times),
        updated_at=draw(times),
        last_event_at=draw(times),
        finding_ids=draw(st.lists(few, max_size=2)),
        summary=draw(words),
    )


@st.composite
def items(draw: st.DrawFn) -> OutboxItem:
    ident = draw(few)
    member = MemberAlert("a", "r", "n", Level.LOW, "open", {"x": draw(words)}, "s", "", "", 1, 1, 1)
    notification = Notification(
        draw(st.sampled_from(NotificationKind)), "mail", "g", {}, 1, "d", draw(levels), [member], 1, draw(times)
    )
    return OutboxItem(
        id=ident,
        notification=notification,
        order_key=draw(st.sampled_from(["p", "q"])),
        sequence=ord(ident),
        state=draw(st.sampled_from(OutboxState)),
        next_try_at=draw(times),
        created_at=draw(times),
        last_reason=draw(st.sampled_from([None, DeliveryReason.TIMEOUT])),
    )


targets = st.builds(Target, st.sampled_from(TargetKind), words)
decisions = st.builds(
    Decision,
    id=few,
    target=targets,
    host_id=st.just("h"),
    owner=names,
    reason=words,
    starts_at=times,
    expires_at=times,
    state=st.sampled_from(DecisionState),
    evidence=st.just(("h/file/0:1",)),
)
groups = st.builds(
    GroupState,
    key=words,
    route=st.just("{}"),
    receiver=st.just("mail"),
    labels=st.dictionaries(words, words, max_size=1),
    due_at=times,
    last_notified_at=times,
    triggered=st.booleans(),
    members=st.lists(few, max_size=2),
    notified=st.dictionaries(few, words, max_size=2),
)
silences = st.builds(
    Silence,
    id=few,
    matchers=st.tuples(st.builds(Matcher, words, st.sampled_from(MatchKind), words)),
    starts_at=times,
    ends_at=times,
    created_by=words,
    comment=words,
)
refusals = st.builds(Refusal, rule_id=few, target=words, reason=st.sampled_from(RefusalReason), finding_id=few)

Step = Callable[[Any], Any]


@st.composite
def full_tables(draw: st.DrawFn) -> list[Step]:
    """A first transaction after which every table has rows."""
    return [
        *[
            lambda tx, a=a: tx.save_alert(replace(a, key=a.id))
            for a in draw(st.lists(alerts(), min_size=2, max_size=5))
        ],
        *[lambda tx, i=i: tx.enqueue(i) for i in draw(st.lists(items(), min_size=2, max_size=5))],
        *[lambda tx, d=d: tx.save_decision(d) for d in draw(st.lists(decisions, min_size=2, max_size=5))],
        *[lambda tx, g=g: tx.save_group(g) for g in draw(st.lists(groups, min_size=1, max_size=3))],
        *[lambda tx, s=s: tx.save_silence(s) for s in draw(st.lists(silences, min_size=1, max_size=3))],
        *[lambda tx, f=f: tx.save_findings(f) for f in [draw(st.lists(findings(), min_size=2, max_size=4))]],
        *[lambda tx, r=r: tx.save_refusals(r, 9) for r in [draw(st.lists(refusals, min_size=2, max_size=6))]],
    ]


def step(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(*arguments).map(lambda drawn: lambda tx: getattr(tx, name)(*drawn))


steps = st.one_of(
    step("save_cursor", few, few),
    step("save_correlation", st.dictionaries(st.tuples(few, names), st.one_of(st.none(), st.binary(max_size=4)))),
    step("save_findings", st.lists(findings(), max_size=4)),
    step("save_alert", alerts()),
    step("unresolved_alert", few),
    step("alert", few),
    step("alerts", st.lists(few, max_size=5, unique=True)),
    step("unresolved_alerts"),
    step("quiet_alerts", times),
    step("silences", times),
    step("save_silence", silences),
    step("group", words),
    step("save_group", groups),
    step("due_groups", times),
    step("next_due"),
    step("enqueue", items()),
    step("supersede", st.sampled_from(["p", "q"])),
    step("save_outbox", items()),
    step("active_decisions", times),
    step("decisions_on", targets),
    step("save_decision", decisions),
    step("save_refusals", st.lists(refusals, max_size=3), times),
    step("prune", st.sampled_from(Kept), times, st.integers(0, 4)),
)


class Abandoned(Exception):
    pass


def run(store: StateStore, script: list[Step], fails: bool) -> tuple[list[Any], str]:
    """What every step of one transaction answered, and how it ended."""
    answers: list[Any] = []
    try:
        with store.transaction() as tx:
            for each in script:
                answers.append(each(tx))
            if fails:
                raise Abandoned
    except (Abandoned, StateError) as error:
        return answers, type(error).__name__
    return answers, "committed"


def everything(store: State | MemoryState) -> dict[str, Any]:
    """The answers to every question a face may ask."""
    states = frozenset({AlertState.OPEN, AlertState.ACKNOWLEDGED})
    return {
        "cursors": dict(store.cursors()),
        "correlation": sorted(store.correlation()),
        "findings": store.findings(["d", "c", "b", "a"]),
        "finding": store.finding("a"),
        "recent": store.recent_findings(since=5, limit=2),
        "alert": store.alert("b"),
        "alerts": store.alerts(),
        "page": [store.alerts(limit=2, after=ident) for ident in ("a", "b", "none")],
        "chosen": store.alerts(AlertFilter(states=states, level=Level.MEDIUM, since=3)),
        "of-host": [store.alerts(AlertFilter(host_id=word, rule_id=word)) for word in HOSTILE if "\0" not in word],
        "where": store.alerts(limit=2, where=lambda alert: alert.summary != "plain"),
        "counts": store.alert_counts(),
        "silences": (store.silences(10), store.silences(10, ended=True)),
        "groups": store.groups(),
        "due": store.next_due(),
        "pending": (store.pending_outbox(10), store.pending_outbox(20, limit=1)),
        "outbox": (store.outbox(), store.outbox([OutboxState.PENDING], limit=2), store.outbox_counts()),
        "decisions": (store.decisions(), store.decisions(limit=1, after="b"), store.active_decisions(10)),
        "history": [store.decisions(DecisionFilter(value=word, since=4)) for word in HOSTILE if "\0" not in word],
        "of-state": store.decisions(DecisionFilter(states=frozenset({DecisionState.EXPIRED}), owner="plain")),
        "stats": store.decision_stats(5, 10),
        "refusals": store.refusal_counts(7),
    }


scripts = st.lists(st.tuples(st.lists(steps, max_size=6), st.sampled_from([False, False, True])), max_size=4)

"""The store's promises: same answers as the plain model, all or nothing, one writer, readers undisturbed.
Counterpart: vedette.store and vedette.testing.state, held to each other."""

from __future__ import annotations

import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, text

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
from vedette.model.protocols import StateStore, Transaction
from vedette.model.reasons import DeliveryReason, RefusalReason
from vedette.model.rules import RuleKind
from vedette.store.queries import AlertFilter, DecisionFilter
from vedette.store.state import State
from vedette.store.tables import HEAD, METADATA
from vedette.testing.state import MemoryState

HOSTILE = ["plain", "'; DROP TABLE alerts; --", '"x" OR 1=1', "nul\0byte", "\u202eevil\x1b[2J", "", "%_*?", "ümläut 🐎"]

words = st.sampled_from(HOSTILE)
few = st.sampled_from(["a", "b", "c", "d"])
times = st.integers(0, 20)
levels = st.sampled_from(Level)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    return Finding(
        id=draw(few),
        rule_id=draw(words),
        rule_name="name",
        level=draw(levels),
        time=draw(times),
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
        rule_id=draw(words),
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
    owner=words.map(lambda word: word.replace("\0", "")),
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
    step("save_correlation", st.dictionaries(st.tuples(few, words), st.one_of(st.none(), st.binary(max_size=4)))),
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
    step("enqueue", items()),
    step("supersede", st.sampled_from(["p", "q"])),
    step("save_outbox", items()),
    step("active_decisions", times),
    step("decisions_on", targets),
    step("save_decision", decisions),
    step("save_refusals", st.lists(refusals, max_size=3), times),
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


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its schema and nothing in it, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "state.db"
    State(path).close()
    return path


@settings(max_examples=20)
@given(
    full_tables(), st.lists(st.tuples(st.lists(steps, max_size=6), st.sampled_from([False, False, True])), max_size=4)
)
def test_random_transactions_give_what_the_plain_model_gives(
    empty: Path, seeds: list[Step], transactions: list[tuple[list[Step], bool]]
):
    with TemporaryDirectory() as folder, ExitStack() as stack:
        shutil.copy(empty, folder)
        disk, memory = State(Path(folder) / "state.db"), MemoryState()
        stack.callback(disk.close)
        for script, fails in [(seeds, False), *transactions]:
            assert run(disk, script, fails) == run(memory, script, fails)
        kept = everything(disk)
        assert kept == everything(memory)
        disk.close()
        again = State(Path(folder) / "state.db")
        stack.callback(again.close)
        assert everything(again) == kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[State]:
    state = State(path)
    yield state
    state.close()


def an_alert(ident: str = "a", **changes: Any) -> Alert:
    made = Alert(ident, ident, "rule", "name", Level.HIGH, RuleKind.EVENT, {"host.id": "h"})
    return replace(made, **changes)


def test_an_alert_that_two_would_be_unresolved_of_is_refused_and_nothing_of_the_transaction_stays(store: State):
    with store.transaction() as tx:
        tx.save_alert(an_alert("a", key="k"))

    script: list[Step] = [lambda tx: tx.save_cursor("file", "1"), lambda tx: tx.save_alert(an_alert("b", key="k"))]
    assert run(store, script, fails=False) == ([None], "StateError")
    assert store.cursors() == {}
    with store.transaction() as tx:
        tx.save_alert(an_alert("a", key="k", state=AlertState.RESOLVED))
        tx.save_alert(an_alert("b", key="k"))
    assert [alert.id for alert in store.alerts()] == ["b", "a"]


def an_item(ident: str, order_key: str, sequence: int, level: Level, created_at: int, **changes: Any) -> OutboxItem:
    kind = changes.pop("kind", NotificationKind.TRIGGER)
    notification = Notification(kind, "mail", "g", {}, 1, "d", level, [], 1, created_at)
    return OutboxItem(ident, notification, order_key, sequence, created_at=created_at, **changes)


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_the_outbox_gives_the_most_urgent_first_and_never_the_second_of_an_order_before_its_first(
    store: State, kept: str
):
    chosen = store if kept == "disk" else MemoryState()
    with chosen.transaction() as tx:
        for item in (
            an_item("low-old", "p", 1, Level.LOW, 1),
            an_item("high-new", "q", 1, Level.HIGH, 9),
            an_item("high-old", "r", 1, Level.HIGH, 5),
            an_item("second-of-low", "p", 2, Level.CRITICAL, 2),
            an_item("first-waits", "s", 1, Level.CRITICAL, 1, next_try_at=50),
            an_item("so-second-waits", "s", 2, Level.CRITICAL, 1),
        ):
            tx.enqueue(item)

    def due(now: int) -> list[str]:
        return [item.id for item in chosen.pending_outbox(now)]

    assert due(10) == ["high-old", "high-new", "low-old"]
    assert due(50) == ["first-waits", "high-old", "high-new", "low-old"]
    chosen.save_outbox(an_item("low-old", "p", 1, Level.LOW, 1, state=OutboxState.DELIVERED))
    assert due(10) == ["second-of-low", "high-old", "high-new"]


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_an_item_superseded_while_it_was_tried_stays_so_unless_it_was_delivered(store: State, kept: str):
    chosen = store if kept == "disk" else MemoryState()
    items = [an_item(name, "p", number, Level.HIGH, 1) for number, name in enumerate(("tried", "left"), 1)]
    resolve = an_item("end", "p", 3, Level.HIGH, 1, kind=NotificationKind.RESOLVE)
    with chosen.transaction() as tx:
        for item in (*items, resolve):
            tx.enqueue(item)
        assert [item.id for item in tx.supersede("p")] == ["tried", "left"]
        assert list(tx.supersede("p")) == []
    chosen.save_outbox(replace(items[0], attempts=1, last_reason=DeliveryReason.TIMEOUT))
    chosen.save_outbox(replace(items[1], state=OutboxState.DELIVERED))
    states = {item.id: (item.state, item.attempts) for item in chosen.outbox()}
    assert states == {
        "tried": (OutboxState.SUPERSEDED, 1),
        "left": (OutboxState.DELIVERED, 0),
        "end": (OutboxState.PENDING, 0),
    }


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_quiet_are_unresolved_low_and_medium_event_alerts_without_event_or_change(store: State, kept: str):
    chosen = store if kept == "disk" else MemoryState()
    quiet = {"level": Level.LOW, "updated_at": 9, "last_event_at": 9}
    with chosen.transaction() as tx:
        for ident, changes in {
            "low": {},
            "medium": {"level": Level.MEDIUM},
            "acknowledged": {"state": AlertState.ACKNOWLEDGED},
            "high": {"level": Level.HIGH},
            "critical": {"level": Level.CRITICAL},
            "condition": {"kind": RuleKind.CONDITION},
            "resolved": {"state": AlertState.RESOLVED},
            "event-since": {"last_event_at": 10},
            "changed-since": {"updated_at": 10},
        }.items():
            tx.save_alert(an_alert(ident, **{**quiet, **changes}))
        assert sorted(alert.id for alert in tx.quiet_alerts(10)) == ["acknowledged", "low", "medium"]


def test_a_transaction_does_not_nest_and_is_of_no_use_afterwards(store: State):
    kept: list[Transaction] = []
    with store.transaction() as tx:
        kept.append(tx)
        with pytest.raises(RuntimeError, match="nest"):
            with store.transaction():
                pass
        tx.save_cursor("file", "1")
    with pytest.raises(RuntimeError, match="ended"):
        kept[0].save_cursor("file", "2")
    assert store.cursors() == {"file": "1"}


def test_what_a_body_raises_passes_through_untranslated(store: State):
    with pytest.raises(PermissionError):
        with store.transaction():
            raise PermissionError("of the body, not of the store")


def test_only_the_owner_reads_the_files(store: State, path: Path):
    with store.transaction() as tx:
        tx.save_cursor("file", "1")
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path):
    path.parent.mkdir()
    path.touch(mode=0o644)
    State(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_writer_syncs_each_commit_and_readers_cannot_write(store: State):
    with store._writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with pytest.raises(StateError, match="readonly"), store._reading() as connection:
        connection.execute(text("DELETE FROM alerts"))


def test_a_newer_schema_is_refused_with_a_hint_and_left_alone(path: Path):
    first = State(path)
    with first._writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    first.close()
    with pytest.raises(StateError, match=f"9999.*newer than {HEAD}.*hint"):
        State(path)
    with pytest.raises(StateError, match="9999"):
        State(path)


def test_a_damaged_file_is_named_with_a_hint(path: Path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 500)
    with pytest.raises(StateError, match=r"state\.db.*hint"):
        State(path)


@pytest.mark.parametrize("where", ["mysql://u@h/d", "postgresql+nosuchdriver://u:hunter2@h/d", "::"])
def test_a_database_we_cannot_use_is_refused_without_its_password(where: str):
    with pytest.raises(StateError) as caught:
        State(where)
    assert "hint" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_migrations_give_the_tables_that_the_code_uses(store: State):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store._reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        indexes = {
            index["name"]: bool(index["unique"])
            for table in METADATA.tables
            for index in inspect(connection).get_indexes(table)
        }
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    declared = {index.name: bool(index.unique) for table in METADATA.tables.values() for index in table.indexes}
    assert indexes == declared


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("unresolved_alert", "alerts_unresolved_key"),
        ("due_groups", "alert_groups_by_due"),
        ("pending_outbox", "outbox_by_state"),
        ("decisions_on", "decisions_by_target"),
        ("active_decisions", "decisions_by_state"),
    ],
)
def test_what_is_asked_often_is_answered_from_an_index(store: State, statement: str, index: str):
    compiled = getattr(store._statements, statement).compile(store._writer, compile_kwargs={"render_postcompile": True})
    with store._reading() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", tuple(compiled.params.values())).fetchall()
    assert index in " ".join(str(row) for row in plan)


def test_readers_of_other_threads_see_whole_transactions_only(store: State):
    stop, torn, looks = threading.Event(), list[object](), list[int]()

    def read() -> None:
        while not stop.is_set():
            try:
                seen = store.cursors()
            except StateError as error:
                torn.append(error)
                return
            if len(set(seen.values())) > 1 or len(seen) not in (0, 3):
                torn.append(dict(seen))
                return
            looks.append(1)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        with store.transaction() as tx:
            for source in ("a", "b", "c"):
                tx.save_cursor(source, str(number))
    while len(looks) < 10 and not torn:
        stop.wait(0.01)
    stop.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert store.cursors() == {"a": "59", "b": "59", "c": "59"}


def test_writers_of_other_threads_wait_their_turn(store: State):
    def count() -> None:
        for _ in range(20):
            with store.transaction() as tx:
                alert = tx.alert("a")
                assert alert is not None
                tx.save_alert(replace(alert, count=alert.count + 1))

    with store.transaction() as tx:
        tx.save_alert(an_alert())
    writers = [threading.Thread(target=count) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    alert = store.alert("a")
    assert alert is not None
    assert alert.count == 80


def test_two_programs_may_hold_one_file(store: State, path: Path):
    other = State(path)
    try:
        for number, each in enumerate([store, other, store, other]):
            with each.transaction() as tx:
                tx.save_cursor("file", str(number))
        assert store.cursors() == other.cursors() == {"file": "3"}
    finally:
        other.close()


def test_closing_twice_does_no_harm(path: Path):
    state = State(path)
    state.close()
    state.close()
    assert path.exists()


def test_the_foreign_version_tells_of_others_and_not_of_ourselves(tmp_path: Path) -> None:
    state, other = State(tmp_path / "state.db"), State(tmp_path / "state.db")
    try:
        before = state.foreign_version()
        with state.transaction() as tx:
            tx.save_cursor("stdin", "1")
        assert state.foreign_version() == before
        with other.transaction() as tx:
            tx.save_cursor("stdin", "2")
        assert state.foreign_version() != before
    finally:
        state.close()
        other.close()

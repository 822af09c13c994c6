"""The store's promises: same answers as the plain model, all or nothing, one writer, readers undisturbed.
Counterpart: vedette.store and vedette.testing.state, held to each other."""

from __future__ import annotations

import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import inspect, text
from tests.store.parts import Step, everything, full_tables, run, scripts

from vedette.model.alerts import Alert, AlertState
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.notifications import (
    Notification,
    NotificationKind,
    OutboxItem,
    OutboxState,
)
from vedette.model.protocols import Transaction
from vedette.model.reasons import DeliveryReason
from vedette.model.rules import RuleKind
from vedette.store.state import Mended, State
from vedette.store.tables import HEAD, METADATA
from vedette.testing.state import MemoryState


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its schema and nothing in it, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "state.db"
    State(path).close()
    return path


@settings(max_examples=20)
@given(full_tables(), scripts)
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
    with store.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with pytest.raises(StateError, match="readonly"), store.reading() as connection:
        connection.execute(text("DELETE FROM alerts"))


def test_a_newer_schema_is_refused_with_a_hint_and_left_alone(path: Path):
    first = State(path)
    with first.writing() as connection:
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


@pytest.mark.parametrize("body", ["{}", "not json", '{"id": 5}'])
def test_a_row_that_cannot_be_read_is_said_with_a_hint(store: State, body: str):
    with store.transaction() as tx:
        tx.save_alert(an_alert())
    with store.writing() as connection:
        connection.execute(text("UPDATE alerts SET body = :body"), {"body": body})
    with pytest.raises(StateError, match=r"cannot be read.*hint"):
        store.alerts()
    with pytest.raises(StateError, match=r"cannot be read.*hint"), store.transaction() as tx:
        tx.alert("a")


@pytest.mark.parametrize("where", ["mysql://u@h/d", "postgresql+nosuchdriver://u:hunter2@h/d", "::"])
def test_a_database_we_cannot_use_is_refused_without_its_password(where: str):
    with pytest.raises(StateError) as caught:
        State(where)
    assert "hint" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_migrations_give_the_tables_that_the_code_uses(store: State):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store.reading() as connection:
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
    with store.reading() as connection:
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


def test_a_driver_that_fails_when_asked_for_the_version_is_said_in_our_words(store: State):
    store.foreign_version()
    assert store._connection is not None
    driver = store._connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(lambda: 1, 1)
    with pytest.raises(StateError, match="interrupted"):
        store.foreign_version()
    driver.set_progress_handler(None, 1)
    assert store.foreign_version() > 0


def test_a_file_that_was_taken_away_is_written_anew_with_everything_in_it(tmp_path: Path) -> None:
    place = tmp_path / "state.db"
    with closing(State(place)) as state:
        assert state.mend() is Mended.NOTHING
        for number in range(20):
            with state.transaction() as tx:
                tx.save_cursor("stdin", str(number))
        assert dict(state.cursors()) == {"stdin": "19"}
        for one in tmp_path.iterdir():
            one.unlink()
        assert state.mend() is Mended.WRITTEN_ANEW
        assert state.mend() is Mended.NOTHING
        assert dict(state.cursors()) == {"stdin": "19"}
        with state.transaction() as tx:
            tx.save_cursor("journal", "7")
    assert place.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["state.db"]
    with closing(State(place)) as again:
        assert dict(again.cursors()) == {"stdin": "19", "journal": "7"}


def test_a_log_left_of_the_file_that_was_taken_away_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    place = tmp_path / "state.db"
    with closing(State(place)) as state:
        with state.transaction() as tx:
            tx.save_cursor("stdin", "1")
        place.unlink()
        with state.transaction() as tx:
            tx.save_cursor("stdin", "2")
        assert state.mend() is Mended.WRITTEN_ANEW
    with closing(State(place)) as again:
        assert dict(again.cursors()) == {"stdin": "2"}


def test_another_file_in_its_place_is_left_alone_and_said(tmp_path: Path) -> None:
    place, other = tmp_path / "state.db", tmp_path / "restored.db"
    with closing(State(other)) as restored, restored.transaction() as tx:
        tx.save_cursor("stdin", "restored")
    with closing(State(place)) as state:
        other.rename(place)
        assert state.mend() is Mended.REPLACED
    with closing(State(place)) as again:
        assert dict(again.cursors()) == {"stdin": "restored"}

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, event, text
from tests.store.test_state import an_alert, an_item

from vedette.model.alerts import AlertState
from vedette.model.clock import DAY
from vedette.model.decisions import Decision, DecisionState, Target, TargetKind
from vedette.model.findings import Evidence, Finding
from vedette.model.levels import Level
from vedette.model.notifications import GroupState, OutboxState
from vedette.model.retention import Kept
from vedette.store import connections
from vedette.store.pruning import prune
from vedette.store.settings import RetentionSettings
from vedette.store.state import State
from vedette.testing.state import MemoryState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[State]:
    with closing(State(tmp_path / "state.db")) as made:
        yield made


def test_history_is_shorter_than_what_repeat_offenders_are_known_by():
    ages = RetentionSettings().ages()
    assert {kind for kind, age in ages.items() if age == 400 * DAY} == {Kept.DECISIONS, Kept.SILENCES, Kept.GROUPS}
    assert {age for kind, age in ages.items() if age != 400 * DAY} == {90 * DAY}
    assert set(ages) == set(Kept)


@pytest.mark.parametrize("text", ["23h", "0s", "soon"])
def test_too_short_an_age_is_refused(text: str):
    with pytest.raises(ValidationError):
        RetentionSettings.model_validate({"history": text})


def a_finding(ident: str, created: int, time: int = 0) -> Finding:
    return Finding(
        ident, "r", "name", Level.LOW, time, {}, "h", "web1", "", "", 1, (Evidence("h/file/0:1", 5),), created=created
    )


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_evidence_of_an_unresolved_alert_is_kept_and_hides_nothing_behind_it(store: State, kept: str):
    chosen: State | MemoryState = store if kept == "disk" else MemoryState()
    evidence = [f"e{number:04}" for number in range(1200)]
    with chosen.transaction() as tx:
        for at in range(0, 1200, 100):
            tx.save_alert(an_alert(f"a{at}", key=f"k{at}", opened_at=5, finding_ids=evidence[at : at + 100]))
        tx.save_findings([a_finding(name, created=1) for name in evidence])
        # Read late: what happened long ago is not old yet.
        tx.save_findings([a_finding("late", created=50, time=1), *(a_finding(f"f{n}", created=3) for n in range(3))])
    with chosen.transaction() as tx:
        assert tx.prune(Kept.FINDINGS, 10, 2) == 2
        assert tx.prune(Kept.FINDINGS, 10, 2) == 1
        assert tx.prune(Kept.FINDINGS, 10, 2) == 0
    assert len(chosen.findings([*evidence, "late", "f0", "f1", "f2"])) == 1201
    with chosen.transaction() as tx:
        tx.save_alert(an_alert("a0", key="k0", opened_at=5, finding_ids=evidence[:100], state=AlertState.RESOLVED))
        assert tx.prune(Kept.FINDINGS, 10, 1000) == 100


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_what_is_not_finished_is_never_let_go(store: State, kept: str):
    chosen: State | MemoryState = store if kept == "disk" else MemoryState()
    decision = Decision("d", Target(TargetKind.ADDRESS, "192.0.2.1"), "h", "rule:r", "r", 1, 2)
    group = GroupState("g", "{}", "mail", {}, members=["a"], last_notified_at=1)
    with chosen.transaction() as tx:
        tx.save_alert(an_alert("a", state=AlertState.ACKNOWLEDGED))
        tx.enqueue(an_item("i", "o", 1, Level.LOW, 1))
        tx.save_decision(decision)
        tx.save_group(group)
        tx.save_group(replace(group, key="planned", members=[], due_at=7))
        tx.save_group(replace(group, key="told", members=[], triggered=True))
    far = 2**61
    with chosen.transaction() as tx:
        assert [tx.prune(kind, far, 100) for kind in Kept] == [0] * len(Kept)
        tx.save_alert(an_alert("a", state=AlertState.RESOLVED))
        tx.save_outbox(an_item("i", "o", 1, Level.LOW, 1, state=OutboxState.FAILED))
        tx.save_decision(replace(decision, state=DecisionState.EXPIRED))
        tx.save_group(replace(group, members=[]))
        finished = {kind: tx.prune(kind, far, 100) for kind in Kept}
    assert {kind for kind, gone in finished.items() if gone} == {
        Kept.ALERTS,
        Kept.OUTBOX,
        Kept.DECISIONS,
        Kept.GROUPS,
    }
    assert set(finished.values()) == {0, 1}


@pytest.mark.parametrize("kind", Kept)
def test_what_is_old_is_found_from_an_index(store: State, kind: Kept):
    seen: list[str] = []
    with store.writing() as connection:

        def look(connection, _cursor, statement, parameters, _context, _many):
            if statement.startswith("SELECT") and "ORDER BY" in statement:
                rows = connection.connection.driver_connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)
                seen.extend(str(row[3]) for row in rows)

        event.listen(store._writer, "before_cursor_execute", look)
        prune(connection, kind, 10, 5)
    assert any("INDEX" in plan for plan in seen)
    assert not [plan for plan in seen if "SCAN" in plan or plan == "USE TEMP B-TREE FOR ORDER BY"]


def test_a_state_of_the_first_schema_is_brought_up_and_its_rows_have_an_age(tmp_path: Path):
    from alembic import command
    from alembic.config import Config

    path = tmp_path / "state.db"
    engine = create_engine(f"sqlite:///{path}")
    folder = Path(connections.__file__).parent / "migrations"
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        body = msgspec.json.encode(a_finding("old", created=0, time=7)).decode()
        connection.execute(text("INSERT INTO findings VALUES ('old', 'r', 1, 7, :body)"), {"body": body})
        group = msgspec.json.encode(GroupState("g", "{}", "mail", {}, last_notified_at=5)).decode()
        connection.execute(text("INSERT INTO alert_groups VALUES ('g', 0, :body)"), {"body": group})
    engine.dispose()
    with closing(State(path)) as store:
        assert [one.id for one in store.recent_findings()] == ["old"]
        with store.transaction() as tx:
            assert tx.prune(Kept.FINDINGS, 7, 10) == 0
            assert tx.prune(Kept.FINDINGS, 8, 10) == 1
            assert tx.prune(Kept.GROUPS, 5, 10) == 0
            assert tx.prune(Kept.GROUPS, 6, 10) == 1

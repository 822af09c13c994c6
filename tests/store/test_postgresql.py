"""A real PostgreSQL keeps the same promises as the file.
Counterpart: vedette.store.state with a URL."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from sqlalchemy import text
from tests.store.parts import Step, everything, full_tables, run, scripts

from vedette.model.alerts import Alert
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.rules import RuleKind
from vedette.store.state import State
from vedette.store.tables import METADATA
from vedette.testing.state import MemoryState

pytestmark = [pytest.mark.root, pytest.mark.slow]


def as_nobody(*command: str) -> None:
    # The server refuses to run as root.
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    subprocess.run([*drop, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found, "the Debian package postgresql is on the list that `make packages` installs"
    programs = found[-1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vedette-pg-") as name:
        folder = Path(name)
        subprocess.run(["chown", "nobody:nogroup", name], check=True)
        data = str(folder / "data")
        as_nobody(
            str(programs / "initdb"),
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            "vedette",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale",
            "C",
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={name} -c fsync=off"
        control = str(programs / "pg_ctl")
        as_nobody(control, "-w", "-D", data, "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://vedette@127.0.0.1:{port}/postgres"
        finally:
            as_nobody(control, "-w", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[State]:
    state = State(url)
    yield state
    state.close()


@pytest.fixture
def store(shared: State) -> State:
    empty(shared)
    return shared


def empty(store: State) -> None:
    with store.writing() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(METADATA.tables)}"))


@settings(max_examples=30)
@given(full_tables(), scripts)
def test_random_transactions_give_what_the_plain_model_gives(
    shared: State, seeds: list[Step], transactions: list[tuple[list[Step], bool]]
):
    empty(shared)
    memory = MemoryState()
    for script, fails in [(seeds, False), *transactions]:
        assert run(shared, script, fails) == run(memory, script, fails)
    assert everything(shared) == everything(memory)


def test_opening_again_keeps_what_is_there(store: State, url: str):
    with store.transaction() as tx:
        tx.save_cursor("file", "1")
    other = State(url)
    try:
        assert other.cursors() == {"file": "1"}
    finally:
        other.close()


def test_writers_of_several_programs_wait_their_turn(store: State, url: str):
    with store.transaction() as tx:
        tx.save_alert(Alert("a", "a", "rule", "name", Level.HIGH, RuleKind.EVENT, {}))

    def count() -> None:
        own = State(url)
        try:
            for _ in range(20):
                with own.transaction() as tx:
                    alert = tx.alert("a")
                    assert alert is not None
                    tx.save_alert(replace(alert, count=alert.count + 1))
        finally:
            own.close()

    writers = [threading.Thread(target=count) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    alert = store.alert("a")
    assert alert is not None
    assert alert.count == 60


def test_readers_cannot_write(store: State):
    with pytest.raises(StateError, match="read-only"), store.reading() as connection:
        connection.execute(text("DELETE FROM alerts"))


def test_a_server_that_is_not_there_is_said_without_the_password():
    with pytest.raises(StateError) as caught:
        State("postgresql+psycopg://vedette:hunter2@127.0.0.1:1/postgres")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)

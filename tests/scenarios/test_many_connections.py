"""Ten thousand connections that say nothing: memory is bounded, the limit's refusals are counted, others are heard.
Counterpart: src/vedette/sources/{syslog,relp,http}.py; parts/listening.py is the listener; bounds: docs/sources.md."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.scenarios.parts.listening import FIRST, LINES, Listener
from tests.scenarios.parts.netns import NetLab

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(120)]

MANY = 10_000
OF_ADDRESS = 100
MOST_EACH = 16 * 1024
"""Bytes a connection costs that says nothing, as docs/sources.md has it."""
MOST_REFUSED = 16 << 20
"""Bytes that as many connections cost which are refused, with those 500 that are not."""


@pytest.fixture
def room_for_many() -> Iterator[None]:
    """Each end of a connection is a file of the process that has it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 1000:
        pytest.fail(f"needs {MANY + 1000} open files, may have {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle(listener: Listener, held: ExitStack) -> None:
    """So many connections, from as many addresses as the bound of each allows, of whom nothing comes."""
    for number in range(MANY):
        of = number // OF_ADDRESS
        held.enter_context(listener.connect(f"127.1.{of // 250}.{of % 250 + 1}"))


@pytest.mark.parametrize("name", LINES)
def test_as_many_as_are_allowed_cost_little_and_others_are_heard(lab: NetLab, room_for_many: None, name: str):
    space = lab.namespace()
    listener = Listener(space, name, max_connections=MANY + 10, idle="1h")

    def scenario() -> None:
        with ExitStack() as held:
            before = listener.ask()
            idle(listener, held)
            full = listener.until(lambda said: said["open"] == MANY)
            assert full["ends"] == {}
            assert full["bytes"] - before["bytes"] < MANY * MOST_EACH
            # One address more than it may.
            refused = held.enter_context(listener.connect("127.1.0.1"))
            assert refused.recv(1) == b""
            other = held.enter_context(listener.connect("127.0.0.2"))
            other.sendall(FIRST.get(name, b""))
            for number in range(1, 4):
                other.sendall(LINES[name])
                listener.until(lambda said, n=number: said["lines"] == n)  # type: ignore[misc]
            assert listener.ask()["ends"] == {"too-many-of-address": 1}
        listener.until(lambda said: said["open"] == 0)

    space.inside(scenario)


@pytest.mark.parametrize("name", LINES)
def test_above_the_limit_memory_is_bounded_each_end_is_counted_and_who_was_there_is_heard(
    lab: NetLab, room_for_many: None, name: str
):
    space = lab.namespace()
    listener = Listener(space, name)

    def scenario() -> None:
        with ExitStack() as held:
            other = held.enter_context(listener.connect("127.0.0.2"))
            other.sendall(FIRST.get(name, b"") + LINES[name])
            before = listener.until(lambda said: said["lines"] == 1)
            idle(listener, held)
            full = listener.until(lambda said: sum(said["ends"].values()) + said["open"] == MANY + 1)
            assert full["open"] == 500
            assert full["ends"].keys() == {"too-many", "gave-way"}
            assert full["bytes"] - before["bytes"] < MOST_REFUSED
            for number in range(2, 5):
                other.sendall(LINES[name])
                listener.until(lambda said, n=number: said["lines"] == n)  # type: ignore[misc]

    space.inside(scenario)


@pytest.mark.parametrize("name", LINES)
def test_who_takes_all_connections_and_says_nothing_locks_nobody_out(lab: NetLab, name: str):
    space = lab.namespace()
    listener = Listener(space, name)

    def scenario() -> None:
        with ExitStack() as held:
            talking = held.enter_context(listener.connect("127.0.0.2"))
            talking.sendall(FIRST.get(name, b"") + LINES[name])
            listener.until(lambda said: said["lines"] == 1)
            # Five addresses, each with as many as it may have; then they try again and again.
            for last in range(1, 6):
                for _ in range(OF_ADDRESS):
                    held.enter_context(listener.connect(f"127.1.0.{last}"))
            listener.until(lambda said: said["open"] == 500)
            refused = listener.until(lambda said: sum(said["ends"].values()) == 1)["ends"]
            for number in range(10):
                held.enter_context(listener.connect(f"127.1.0.{number % 5 + 1}"))
                new = held.enter_context(listener.connect(f"127.0.1.{number + 1}"))
                new.sendall(FIRST.get(name, b"") + LINES[name])
                listener.until(lambda said, n=number: said["lines"] == 2 + n)  # type: ignore[misc]
            talking.sendall(LINES[name])
            said = listener.until(lambda said: said["lines"] == 12)
            # Each newcomer was let in for one of them; of the others nobody was harmed.
            assert said["ends"]["gave-way"] - refused.get("gave-way", 0) >= 10
            assert said["open"] == 500

    space.inside(scenario)

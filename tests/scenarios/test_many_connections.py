"""Ten thousand connections that say nothing: memory is bounded, the limit's refusals are counted, others are heard.
Counterpart: src/vedette/sources/{syslog,relp,http}.py; parts/listening.py is the listener; bounds: docs/sources.md."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts.listening import TOKEN
from tests.scenarios.parts.netns import Namespace, NetLab

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent.parent
MANY = 10_000
OF_ADDRESS = 100
MOST_EACH = 16 * 1024
"""Bytes a connection costs that says nothing, as docs/sources.md has it."""
MOST_REFUSED = 16 << 20
"""Bytes that as many connections cost which are refused, with those 500 that are not."""
LINES = {
    "syslog": b"<38>shop: payment declined\n",
    "relp": b"2 syslog 26 <38>shop: payment declined\n",
    "http": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAuthorization: Bearer %s\r\n\r\n{}" % TOKEN.encode(),
}
FIRST = {"relp": b"1 open 14 relp_version=1\n"}


class Listener:
    """One that runs, and what it says of itself."""

    def __init__(self, space: Namespace, name: str, **settings: object) -> None:
        argv = [sys.executable, "-m", "tests.scenarios.parts.listening", name, json.dumps(settings)]
        self._process = space.start(argv, name=name, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=True)
        self._answers = 0
        self.name = name
        self.port = int(self.ask()["port"])

    def ask(self) -> dict[str, Any]:
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._answers += 1
        while (said := self._process.stdout).count("\n") < self._answers:
            assert self._process.poll() is None, self._process.stderr
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def until(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not done(said := self.ask()):
            time.sleep(0.05)
        return said

    def connect(self, address: str) -> socket.socket:
        made = socket.socket()
        try:
            made.bind((address, 0))
            made.connect(("127.0.0.1", self.port))
        except BaseException:
            made.close()
            raise
        return made


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
def test_above_the_limit_they_are_refused_and_counted_and_who_was_there_is_heard(
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
            assert full["ends"] == {"too-many": MANY + 1 - 500}
            assert full["bytes"] - before["bytes"] < MOST_REFUSED
            for number in range(2, 5):
                other.sendall(LINES[name])
                listener.until(lambda said, n=number: said["lines"] == n)  # type: ignore[misc]

    space.inside(scenario)

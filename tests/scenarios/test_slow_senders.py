"""Who sends a byte now and then, and who guesses tokens by the hundred: each is counted, and others are heard.
Counterpart: src/vedette/sources/{syslog,relp,http}.py; parts/listening.py is the listener; table: docs/sources.md."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest
from tests.scenarios.parts.listening import FIRST, LINES, TOKEN, Listener
from tests.scenarios.parts.netns import NetLab

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(120)]

SLOW = 50
"""Senders of a byte a second, from two addresses."""
SECONDS = 8
GUESSES_A_SECOND = 100
MOST = 24 << 20
"""Bytes that all of it costs."""


@pytest.mark.parametrize("name", LINES)
def test_a_byte_a_second(lab: NetLab, name: str):
    space = lab.namespace()
    more = {"request": "5s"} if name == "http" else {"idle": "3s"}
    listener = Listener(space, name, **more)

    def scenario() -> None:
        with ExitStack() as held:
            before = listener.ask()
            slow = [held.enter_context(listener.connect(f"127.1.0.{number % 2 + 1}")) for number in range(SLOW)]
            # It sends a while and then says nothing, without end.
            silent = held.enter_context(listener.connect("127.1.0.3"))
            silent.sendall(LINES[name][:5])
            other = held.enter_context(listener.connect("127.0.0.2"))
            other.sendall(FIRST.get(name, b""))
            for second in range(SECONDS):
                for one in slow:
                    sent(one, LINES[name][second : second + 1])
                if name == "http":
                    # Its own connection would be closed by then for being idle.
                    held.enter_context(listener.connect("127.0.0.2")).sendall(LINES[name])
                else:
                    other.sendall(LINES[name])
                listener.until(lambda said, n=second + 1: said["lines"] >= n)  # type: ignore[misc]
                time.sleep(1)
            idle = SLOW + 1 if name == "http" else 1
            said = listener.until(lambda said: said["ends"].get("idle", 0) >= idle)
            assert said["bytes"] - before["bytes"] < MOST
        listener.until(lambda said: said["open"] == 0)

    space.inside(scenario)


def test_a_hundred_bad_tokens_a_second(lab: NetLab):
    space = lab.namespace()
    listener = Listener(space, "http")

    def scenario() -> None:
        before = listener.ask()
        with ExitStack() as held:
            for second in range(SECONDS):
                for _ in range(GUESSES_A_SECOND):
                    one = held.enter_context(listener.connect("127.1.0.1"))
                    sent(one, LINES["http"].replace(TOKEN.encode(), b"guess"))
                held.enter_context(listener.connect("127.0.0.2")).sendall(LINES["http"])
                listener.until(lambda said, n=second + 1: said["lines"] == n)  # type: ignore[misc]
                time.sleep(1)
            guessed = SECONDS * GUESSES_A_SECOND
            said = listener.until(lambda said: refused(said) == guessed)
            assert said["requests"]["bad-token"] == 20
            assert said["requests"]["kept"] == SECONDS
            assert said["bytes"] - before["bytes"] < MOST

    space.inside(scenario)


def refused(said: dict[str, dict[str, int]]) -> int:
    """Guesses that were answered, and those of whom there were too many at once to be listened to."""
    return sum(n for end, n in said["requests"].items() if end.startswith("bad-token")) + said["ends"].get(
        "too-many-of-address", 0
    )


def sent(one: socket.socket, data: bytes) -> None:
    """Also where the other side has ended it."""
    try:
        one.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return

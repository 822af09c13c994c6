from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator

import pytest

from vedette.model.clock import SystemClock
from vedette.model.ports import PortRange, PortState, SeenWhy, TargetCondition
from vedette.sources.ports import prober as module
from vedette.sources.ports.prober import Limits, Prober, Target
from vedette.sources.ports.targets import Progress


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        yield request.param, server.getsockname()[1]


@pytest.mark.parametrize("limits", [Limits(), Limits(parallel=1), Limits(rate=2_000), Limits(target_rate=2_000)])
def test_open_and_closed_are_told_apart_within_any_limits(listener: tuple[str, int], limits: Limits):
    address, port = listener
    prober = Prober(SystemClock(), limits=limits)
    (survey,) = prober.look([Target("me", address, (PortRange(1, 9), PortRange(port, port)))], "here")
    seen = survey.observed(port)
    assert seen is not None
    assert (seen.state, seen.why) == (PortState.OPEN, SeenWhy.ACCEPTED)
    assert (survey.rest, survey.condition) == (PortState.CLOSED, TargetCondition.ANSWERS)
    assert prober.effort.connections >= 10


def test_the_ports_that_tell_a_tarpit_are_others_at_every_look(monkeypatch: pytest.MonkeyPatch):
    picked: list[frozenset[int]] = []

    class Watched(Progress):
        def __init__(self, *given):
            super().__init__(*given)
            picked.append(frozenset(self.canaries))

    monkeypatch.setattr(module, "Progress", Watched)
    target = Target("me", "127.0.0.1", (PortRange(1, 1),))

    def looks(chance: random.Random | None) -> list[frozenset[int]]:
        picked.clear()
        for prober in (Prober(SystemClock(), chance=chance), Prober(SystemClock(), chance=chance)):
            prober.look([target, target], "here")
            prober.look([target], "here")
        return picked.copy()

    assert len(set(looks(None))) == 6
    assert looks(random.Random(1)) == looks(random.Random(1))


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EMFILE])
def test_a_machine_that_gives_no_socket_at_all_could_not_tell_and_says_so(monkeypatch: pytest.MonkeyPatch, number: int):
    asked: list[int] = []

    def none_given(*_):
        asked.append(number)
        assert len(asked) < 1_000, "it never ends"
        raise OSError(number, "no socket")

    monkeypatch.setattr(module, "_SOCKET", none_given)
    prober = Prober(SystemClock())
    (survey,) = prober.look([Target("me", "::1", (PortRange(1, 9),))], "here")
    assert (survey.rest, survey.rest_why) == (PortState.UNKNOWN, SeenWhy.LOCAL_LIMIT)
    assert survey.condition is TargetCondition.DOWN
    assert prober.effort.shortages == len(asked) >= 9

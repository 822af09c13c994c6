from __future__ import annotations

import random

import pytest

from vedette.model.ports import PortRange, PortState, SeenWhy, Survey, TargetCondition
from vedette.sources.ports.targets import PING, Code, Progress, Target, Tuning

TARGET = Target("web", "192.0.2.1", (PortRange(1, 2000),), (22, 80))


class World:
    """Answers the way a network does: some ports open, some dropped, some packets lost, the host gone at some point."""

    def __init__(self, dropped: range = range(0), loss: float = 0.0, gone_after: int = 1 << 30, all_open: bool = False):
        self.dropped, self.loss, self.gone_after, self.all_open = dropped, loss, gone_after, all_open
        self.asked = 0
        self._random = random.Random(7)

    def run(self, progress: Progress) -> Survey:
        now = 0.0
        while progress.todo or progress.next_round(now):
            now += 0.001
            port = progress.todo.pop()
            self.asked += 1
            real = port & 0xFFFF
            if self.asked > self.gone_after or real in self.dropped or self._random.random() < self.loss:
                progress.silent(port, now)
            else:
                progress.note(port, Code.OPEN if self.all_open or real in (22, 80) else Code.REFUSED, 0.001)
        return progress.survey("here", 1, 2)


class Limited:
    """Takes `rate` connections a second, `burst` at once, and drops the rest: ports 22 and 80 are open."""

    def __init__(self, rate: float, burst: int):
        self.rate, self.burst = rate, float(burst)

    def run(self, progress: Progress) -> tuple[Survey, float]:
        now, filled, tokens = 0.0, 0.0, self.burst
        while progress.todo or progress.next_round(now):
            if not progress.window(now, 0.0, 1):
                now += 0.001
                continue
            now += 0.000_05
            tokens, filled = min(self.burst, tokens + (now - filled) * self.rate), now
            port = progress.todo.pop()
            if tokens < 1:
                progress.silent(port, now)
            else:
                tokens -= 1
                progress.note(port, Code.OPEN if port & 0xFFFF in (22, 80) else Code.REFUSED, 0.001)
        return progress.survey("here", 1, 2), now


def look(world: World) -> Survey:
    return world.run(Progress(TARGET, Tuning(), 500, 1))


def test_silence_of_a_host_that_lives_is_a_filter():
    survey = look(World(dropped=range(100, 200)))
    states = {port: one.state for port in (22, 99, 100, 199, 200) if (one := survey.observed(port))}
    assert states == {
        22: PortState.OPEN,
        99: PortState.CLOSED,
        100: PortState.FILTERED,
        199: PortState.FILTERED,
        200: PortState.CLOSED,
    }


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2])
def test_loss_changes_no_verdict(loss: float):
    survey = look(World(dropped=range(100, 200), loss=loss))
    filtered = {port for port in range(1, 2001) if (one := survey.observed(port)) and one.state is PortState.FILTERED}
    assert filtered == set(range(100, 200))


def test_a_host_that_never_says_anything_is_not_closed_and_not_filtered():
    survey = look(World(gone_after=0))
    assert (survey.condition, survey.rest, survey.rest_why) == (
        TargetCondition.DOWN,
        PortState.UNKNOWN,
        SeenWhy.NO_ANSWER_AT_ALL,
    )


def test_what_a_host_that_vanished_did_not_answer_is_unknown():
    survey = look(World(gone_after=500))
    states = [one.state for port in range(1, 2001) if (one := survey.observed(port))]
    assert PortState.FILTERED not in states
    assert states.count(PortState.UNKNOWN) > 1000
    assert states.count(PortState.CLOSED) > 400


def test_a_target_that_accepts_everything_is_named_after_a_few_questions():
    world = World(all_open=True)
    survey = look(world)
    assert survey.condition is TargetCondition.ANSWERS_EVERYTHING
    assert survey.rest is PortState.UNKNOWN
    assert world.asked < 50


def test_a_ping_is_no_port():
    progress = Progress(TARGET, Tuning(), 500, 1)
    progress.note(22 | PING, Code.REFUSED, 0.1)
    assert progress.codes[22] == Code.PENDING


@pytest.mark.parametrize("rate", [100.0, 500.0, 5_000.0])
def test_a_target_that_takes_so_many_a_second_is_asked_so_many_a_second(rate: float):
    survey, took = Limited(rate, burst=50).run(Progress(TARGET, Tuning(), 500, 1))
    assert survey.ports_in(PortState.OPEN) == {22, 80}
    assert len(survey.ports_in(PortState.CLOSED)) == 1_998
    assert took < 2.5 * 2_000 / rate + 2.0


@pytest.mark.parametrize("code", [Code.HOST_UNREACHABLE, Code.NETWORK_UNREACHABLE, Code.PROHIBITED])
def test_where_others_alone_answer_there_is_no_way_and_little_is_asked(code: Code):
    progress = Progress(TARGET, Tuning(), 500, 1)
    asked = 0
    while progress.todo or progress.next_round(0.0):
        progress.note(progress.todo.pop(), code, 0.001, by_others=True)
        progress.no_way()
        asked += 1
    survey = progress.survey("here", 1, 2)
    assert asked < 60
    assert (survey.condition, survey.rest) == (TargetCondition.DOWN, PortState.UNKNOWN)
    assert survey.rest_why.value == code.name.lower().replace("_", "-")


def test_a_target_that_rejects_by_itself_lives_and_is_asked_for_everything():
    progress = Progress(TARGET, Tuning(), 500, 1)
    while progress.todo or progress.next_round(0.0):
        port = progress.todo.pop()
        progress.note(port, Code.OPEN if port == 1_999 else Code.PROHIBITED, 0.001)
    survey = progress.survey("here", 1, 2)
    assert survey.condition is TargetCondition.ANSWERS
    assert survey.ports_in(PortState.OPEN) == {1_999}
    assert len(survey.ports_in(PortState.FILTERED)) == 1_999


def test_an_answer_to_the_kernels_own_retransmission_is_loss_and_measures_no_round_trip():
    progress = Progress(TARGET, Tuning(), 500, 1)
    progress.note(22, Code.OPEN, 1.01)
    assert progress.patience == Tuning().first_patience
    assert progress.loss() == 0.5
    progress.note(80, Code.OPEN, 0.1)
    assert progress.patience == pytest.approx(0.3)


def test_answers_of_a_known_port_that_stay_out_are_loss_and_cut_a_round_short():
    progress = Progress(TARGET, Tuning(), 500, 1)
    while progress.round < 1:
        if not progress.todo:
            progress.next_round(0.0)
            continue
        progress.note(progress.todo.pop(), Code.REFUSED, 0.001)
    heard, wide = progress.answers, progress.window(0.0, 0.0, 500)
    for lost in range(1, 13):
        assert progress.todo
        progress.silent(80 | PING, lost * 1.0)
        assert progress.loss() == pytest.approx(lost / (lost + heard))
    assert progress.todo == []
    # What the round did not come to is asked in a later one, after a pause and signs of life.
    assert progress.next_round(13.0)
    assert set(progress.todo) == {progress.todo[0]}
    assert progress.todo[0] & PING
    assert progress.window(13.5, 0.0, 500) == 0
    assert 0 < progress.window(14.1, 0.0, 500) < wide

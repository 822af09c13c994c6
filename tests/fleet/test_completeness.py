"""What is missing is said once and ends once, whatever happens to the reports on their way.
Counterpart: src/vedette/fleet/completeness.py."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.fleet.completeness import Completeness
from vedette.fleet.completeness_state import Limits
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.errors import StateError
from vedette.model.liveness import Fault, LivenessEvent
from vedette.model.shipping import Dropped, Report, SourceState

START = 1_700_000_000 * SECOND
FILE = "file:/var/log/auth.log"


class World:
    """A hub with a clock, and agents that report every five seconds."""

    def __init__(self, hosts: int = 1) -> None:
        self.now = START
        self.judge = Completeness(START)
        self.sequence = 0
        self.hosts = [f"h{number}" for number in range(hosts)]
        self.session = "a"
        self.started_at = START - HOUR
        self.states: dict[str, SourceState] = {FILE: SourceState(number=1, position=10, size=10)}
        self.said: list[LivenessEvent] = []

    def made(self, host: str, **more: object) -> Report:
        self.sequence += 1
        report = Report(
            host, f"name-{host}", self.session, self.sequence, self.now, self.started_at, "1", dict(self.states)
        )
        return replace(report, **more)  # type: ignore[arg-type]

    def report(self, *hosts: str, **more: object) -> None:
        for host in hosts or self.hosts:
            self.judge.report(self.made(host, **more), self.now)

    def wait(self, span: int, *hosts: str, quiet: bool = False, **more: object) -> None:
        """Let time pass; these hosts (all of them) report meanwhile unless it is quiet."""
        until = self.now + span
        while self.now < until:
            self.now += 5 * SECOND
            if not quiet:
                self.report(*hosts, **more)
            self.look()

    def look(self) -> None:
        self.said += self.judge.look(self.now)

    def state(self, **more: object) -> None:
        self.states[FILE] = replace(self.states[FILE], **more)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.judge = Completeness(self.now, cursor=self.judge.cursor())

    def told(self) -> list[tuple[str, bool]]:
        return [(event.fault.value, event.over) for event in self.said]


def begun_and_over(fault: Fault) -> list[tuple[str, bool]]:
    return [(fault.value, False), (fault.value, True)]


@pytest.fixture
def world() -> World:
    made = World()
    made.wait(MINUTE)
    assert made.said == []
    return made


def test_an_agent_that_says_nothing_is_absent_until_it_does(world: World) -> None:
    world.wait(5 * MINUTE, quiet=True)
    world.restart()
    world.wait(5 * MINUTE, quiet=True)
    assert world.told() == [("agent-absent", False)]
    world.wait(MINUTE)
    assert world.told() == begun_and_over(Fault.AGENT_ABSENT)
    assert world.said[-1].resumed


def test_after_a_restart_of_its_own_the_hub_waits_before_it_calls_anybody_absent(world: World) -> None:
    world.now += HOUR
    world.restart()
    world.look()
    world.wait(MINUTE)
    assert world.said == []


def test_fifty_that_go_at_once_are_one_and_fifty_one_by_one_are_fifty() -> None:
    world = World(50)
    world.wait(MINUTE)
    world.wait(5 * MINUTE, quiet=True)
    [event] = world.said
    assert (event.fault, event.count, len(event.hosts)) == (Fault.AGENTS_ABSENT, 50, 50)
    world.wait(MINUTE)
    assert world.told() == begun_and_over(Fault.AGENTS_ABSENT)
    world.said.clear()
    for gone in range(1, 51):
        world.wait(30 * SECOND, *world.hosts[gone:], quiet=gone == 50)
    world.wait(MINUTE, quiet=True)
    assert Counter(world.told()) == {("agent-absent", False): 50}


def test_who_does_not_come_back_with_its_group_is_told_alone() -> None:
    world = World(10)
    world.wait(MINUTE)
    world.wait(2 * MINUTE, quiet=True)
    world.wait(MINUTE, *world.hosts[1:])
    assert world.told() == [("agents-absent", False), ("agents-absent", True), ("agent-absent", False)]
    assert world.said[-1].host_id == "h0"


def test_an_agent_stopped_on_purpose_is_said_and_one_that_was_retired_is_not(world: World) -> None:
    world.report(stopping=True)
    world.wait(MINUTE, quiet=True)
    assert world.told() == [("agent-stopped", False)]
    world.wait(3 * MINUTE, quiet=True)
    assert world.told()[1:] == [("agent-absent", False)]
    world.judge.member("h0", "", world.now, retired=True)
    world.look()
    assert Counter(world.told()[2:]) == {("agent-absent", True): 1, ("agent-stopped", True): 1}
    world.wait(HOUR, quiet=True)
    assert len(world.said) == 4


def test_a_host_that_never_reports_is_absent(world: World) -> None:
    world.judge.member("other", "web2", world.now)
    world.wait(MINUTE)
    assert [(event.fault, event.host_name) for event in world.said] == [(Fault.AGENT_ABSENT, "web2")]


def test_two_under_one_identity(world: World) -> None:
    first, started = world.session, world.started_at
    world.session, world.started_at = "b", world.now
    for _ in range(12):
        world.wait(5 * SECOND)
        world.judge.report(replace(world.made("h0"), session=first, started_at=started), world.now)
    assert world.told() == [("agent-doubled", False)]
    world.wait(10 * MINUTE)
    assert world.told() == begun_and_over(Fault.AGENT_DOUBLED)


@pytest.mark.parametrize(
    ("fault", "wrong", "right"),
    [
        (Fault.SOURCE_STOPPED, {"alive": False, "reason": "permission denied"}, {"alive": True, "reason": ""}),
        (Fault.SOURCE_SHRUNK, {"size": 5, "position": 5}, {}),
        (Fault.STREAM_REWOUND, {"position": 3}, {}),
        (Fault.STREAM_REWOUND, {"number": 0}, {"number": 2}),
        (Fault.RECORDS_DROPPED, {"dropped": {"record-too-long": 3}}, {}),
        (Fault.SOURCE_SHRUNK, {"dropped": {"truncated-unseen": 1}}, {}),
        (Fault.UPSTREAM_DROPPED, {"upstream": {"journald": 9}}, {}),
        (Fault.STREAM_BEHIND, {"size": 1 << 30}, {"size": 1 << 30, "position": 1 << 30}),
        (Fault.LOGGER_STOPPED, {"loggers_stopped": {"rsyslogd": START}}, {"loggers_stopped": {}}),
    ],
)
def test_what_a_stream_suffers_begins_and_ends_once(
    world: World, fault: Fault, wrong: dict[str, object], right: dict[str, object]
) -> None:
    world.state(**wrong)
    world.wait(2 * MINUTE)
    assert world.told() == [(fault.value, False)]
    world.restart()
    world.state(**right)
    world.wait(10 * MINUTE)
    assert world.told() == begun_and_over(fault)
    assert {event.stream for event in world.said} == {FILE}


def test_a_source_that_is_not_spoken_of_any_more(world: World) -> None:
    kept = world.states.pop(FILE)
    world.wait(MINUTE)
    world.states[FILE] = kept
    world.wait(MINUTE)
    assert world.told() == begun_and_over(Fault.SOURCE_ABSENT)


@pytest.mark.parametrize("lost", [False, True])
def test_a_gap_ends_when_the_batches_come_or_are_known_to_be_lost(world: World, lost: bool) -> None:
    world.state(number=5)
    for _ in range(6):
        world.judge.stored({("h0", FILE): [(1, 2), (5, 5)]}, [], world.now)
        world.wait(5 * SECOND)
    assert world.told() == [("batches-missing", False)]
    assert world.said[0].count == 2
    gone = [Dropped("h0", FILE, 3, 4, 70, "spool-full", world.now)] if lost else []
    world.judge.stored({("h0", FILE): [(1, 2), (5, 5)] if lost else [(1, 5)]}, gone, world.now)
    world.wait(10 * MINUTE)
    dropped = [("records-dropped", False), ("records-dropped", True)] if lost else []
    assert Counter(world.told()) == Counter([*begun_and_over(Fault.BATCHES_MISSING), *dropped])


def test_the_last_batches_are_missed_too_once_the_agent_has_nothing_left(world: World) -> None:
    world.state(number=5)
    for spooled, expected in ((100, []), (0, [("batches-missing", False)])):
        for _ in range(6):
            world.wait(5 * SECOND, spooled=spooled)
            world.judge.stored({("h0", FILE): [(1, 4)]}, [], world.now)
        assert world.told() == expected


def test_what_is_read_and_does_not_come_is_behind(world: World) -> None:
    for number in range(2, 30):
        world.state(number=number)
        world.judge.stored({("h0", FILE): [(1, 1)]}, [], world.now)
        world.wait(5 * SECOND, spooled=1)
    assert world.told() == [("stream-behind", False)]
    world.judge.stored({("h0", FILE): [(1, 29)]}, [], world.now)
    world.wait(MINUTE)
    assert world.told() == begun_and_over(Fault.STREAM_BEHIND)


def test_clock_spool_and_the_hub_itself(world: World) -> None:
    world.judge.storage(world.now)
    world.wait(MINUTE, spooled=1 << 30, at=START + DAY)
    world.judge.storage(0)
    world.wait(MINUTE)
    assert Counter(world.told()) == Counter(
        [*begun_and_over(Fault.CLOCK_OFF), *begun_and_over(Fault.SPOOL_FILLING), *begun_and_over(Fault.HUB_BEHIND)]
    )


def test_silence_is_judged_by_a_learned_rhythm_and_not_of_those_that_speak_rarely() -> None:
    for every, expected in ((2 * MINUTE, [("stream-silent", False)]), (HOUR, [])):
        world = World()
        world.judge = Completeness(START, Limits(learn=HOUR))
        for number in range(2, 2 + 3 * HOUR // every):
            world.state(number=number)
            world.wait(every)
        world.wait(30 * MINUTE)
        assert world.told() == expected


def test_a_gap_that_is_given_up_says_so_and_one_that_is_filled_does_not(world: World) -> None:
    for kept, reason in (([(1, 3)], "back"), ([(1, 1), (3, 3)], "given-up")):
        world.said.clear()
        world.state(number=3)
        world.judge.stored({("h0", FILE): [(1, 1), (3, 3)]}, [], world.now)
        world.wait(MINUTE)
        for _ in range(3):
            world.now += DAY // 2
            world.report()
            world.judge.stored({("h0", FILE): kept}, [], world.now)
            world.look()
        ends = [event for event in world.said if event.fault is Fault.BATCHES_MISSING]
        assert [(event.over, event.reason) for event in ends] == [(False, ""), (True, reason)]


def test_a_source_that_is_gone_for_a_day_is_forgotten_and_says_so(world: World) -> None:
    del world.states[FILE]
    world.wait(MINUTE)
    world.now += 2 * DAY
    world.report()
    world.look()
    assert [(event.fault, event.reason) for event in world.said] == [
        (Fault.SOURCE_ABSENT, ""),
        (Fault.SOURCE_ABSENT, "forgotten"),
    ]


def test_a_group_names_those_that_did_not_run_on() -> None:
    world = World(6)
    world.wait(MINUTE)
    world.wait(MINUTE, quiet=True)
    assert world.said[-1].host_ids == tuple(world.hosts)
    world.restart()
    world.wait(10 * SECOND, "h0")
    [stands] = world.judge.standing(world.now)
    assert (stands.over, stands.since, stands.host_ids) == (False, world.said[-1].since, tuple(world.hosts[1:]))
    world.session, world.started_at = "b", world.now
    world.wait(10 * SECOND, "h1", "h2")
    # Those that are left are told alone.
    [ended] = [event for event in world.said if event.over]
    assert (ended.fault, ended.host_ids) == (Fault.AGENTS_ABSENT, ("h1", "h2"))
    assert {event.host_id for event in world.said if event.fault is Fault.AGENT_ABSENT} == {"h3", "h4", "h5"}


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=20, deadline=None)
def test_lost_repeated_and_reordered_reports_say_nothing_twice(seed: int, lost: float, repeated: float) -> None:
    chance = random.Random(seed)
    world = World()
    late: list[Report] = []
    for step in range(300):
        world.now += 2 * SECOND
        world.state(number=step + 1, alive=not 100 <= step < 200, reason="disk" if 100 <= step < 200 else "")
        report = world.made("h0")
        # Not so many in a row that the agent counts as absent.
        if chance.random() >= lost or step % 6 == 0:
            world.judge.report(report, world.now)
            late.append(report)
        while late and chance.random() < repeated:
            world.judge.report(chance.choice(late), world.now)
        if chance.random() < 0.05:
            world.restart()
        world.look()
    assert world.told() == begun_and_over(Fault.SOURCE_STOPPED)


@pytest.mark.parametrize("cursor", ['{"name":"vedette-liveness","version":99}', "nonsense", "[]"])
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(StateError):
        Completeness(START, cursor=cursor)

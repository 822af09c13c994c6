from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.inventory.yaml import parse_policy
from vedette.model.clock import HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.ports import (
    Observation,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
)
from vedette.sources.ports.judge import judge
from vedette.sources.ports.records import encode
from vedette.sources.ports.watch import Looked, Watch
from vedette.text.times import parse_rfc3339

NOW = parse_rfc3339("2026-11-24T10:00:00Z")
WHOLE = (PortRange(1, 65_535),)
POLICY = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24]
hosts:
  web:
    addresses: [192.0.2.1]
    ports:
      443/tcp: {from: world, must_answer: true, owner: shop}
      80/tcp: world
""",
    "p.yml",
)
USUAL = (80, 443)


def looked(
    *ports: int, asked: tuple[PortRange, ...] = WHOLE, rest: PortState = PortState.CLOSED, **more: object
) -> Looked:
    """A look at web that saw these ports open, of those asked."""
    seen = tuple(
        Observation("web", "192.0.2.1", port, Protocol.TCP, PortState.OPEN, "local", NOW, 1, SeenWhy.ACCEPTED)
        for port in ports
        if any(port in span for span in asked)
    )
    survey = Survey(
        "web", "192.0.2.1", Protocol.TCP, "local", NOW, NOW, asked, rest, SeenWhy.REFUSED, seen
    )  # fmt: skip
    survey = replace(survey, **more)  # type: ignore[arg-type]
    return Looked(POLICY, (survey,), tuple(judge(POLICY, (survey,))), whole=asked == WHOLE)


DOWN = {"condition": TargetCondition.DOWN, "rest": PortState.UNKNOWN, "rest_why": SeenWhy.NO_ANSWER_AT_ALL}


def told(watch: Watch, first: Looked, again: Looked | None = None, now: int = NOW) -> list[tuple[str, str, int]]:
    records = watch.take(first, again, now)
    return [
        (one["event"]["action"], one["vedette"]["ports"].get("kind", ""), one["destination"]["port"]) for one in records
    ]


def seen_twice(watch: Watch, look: Looked, now: int = NOW) -> list[tuple[str, str, int]]:
    """One round of a world that stays as it is between two looks."""
    asked = watch.doubtful(look)
    again = None
    if asked:
        spans = tuple(asked["web", Protocol.TCP])
        open_ports = [one.port for one in look.surveys[0].observations]
        about = look.surveys[0]
        again = looked(*open_ports, asked=spans, rest=about.rest, condition=about.condition, rest_why=about.rest_why)
    return told(watch, look, again, now)


def test_what_is_as_policy_says_is_silent() -> None:
    watch = Watch()
    assert seen_twice(watch, looked(*USUAL)) == []
    assert seen_twice(watch, looked(*USUAL)) == []


def test_a_drift_is_told_once_and_its_end_once() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    began = seen_twice(watch, looked(*USUAL, 8080))
    assert began == [("port-opened", "", 8080), ("port-drifted", "open-not-allowed", 8080)]
    assert seen_twice(watch, looked(*USUAL, 8080)) == []
    ended = seen_twice(watch, looked(*USUAL))
    assert ended == [("port-closed", "", 8080), ("port-drift-ended", "open-not-allowed", 8080)]
    assert seen_twice(watch, looked(*USUAL)) == []


def test_what_is_new_is_looked_at_again_together_with_ports_that_prove_life() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    assert watch.doubtful(looked(*USUAL)) == {}
    asked = watch.doubtful(looked(80))
    assert asked == {("web", Protocol.TCP): [PortRange(443, 443), PortRange(80, 80)]}


def test_what_the_second_look_does_not_see_is_not_told() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    first = looked(80)
    again = looked(*USUAL, asked=tuple(watch.doubtful(first)["web", Protocol.TCP]))
    assert told(watch, first, again) == []
    assert seen_twice(watch, looked(*USUAL)) == []


def test_a_second_look_that_cannot_tell_neither_takes_back_nor_ends() -> None:
    watch = Watch()
    first = looked(*USUAL, 8080)
    blind = looked(asked=tuple(watch.doubtful(first)["web", Protocol.TCP]), **DOWN)
    assert ("port-drifted", "open-not-allowed", 8080) in told(watch, first, blind)
    over = looked(*USUAL)
    blind = looked(asked=tuple(watch.doubtful(over)["web", Protocol.TCP]), **DOWN)
    assert ("port-drift-ended", "open-not-allowed", 8080) not in told(watch, over, blind)


def test_a_host_that_is_down_ends_nothing_and_is_told_after_the_limit() -> None:
    watch = Watch(too_long=HOUR)
    seen_twice(watch, looked(*USUAL, 8080))
    assert seen_twice(watch, looked(**DOWN)) == [("port-drifted", "could-not-tell", 0)]
    assert seen_twice(watch, looked(**DOWN), NOW + 59 * MINUTE) == []
    assert seen_twice(watch, looked(**DOWN), NOW + HOUR) == [("port-drifted", "could-not-tell-too-long", 0)]
    back = seen_twice(watch, looked(*USUAL), NOW + 2 * HOUR)
    assert sorted(back) == [
        ("port-closed", "", 8080),
        ("port-drift-ended", "could-not-tell", 0),
        ("port-drift-ended", "could-not-tell-too-long", 0),
        ("port-drift-ended", "open-not-allowed", 8080),
    ]


def test_a_short_look_speaks_only_of_what_it_asked() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL, 8080, 9090))
    short = watch.wanted(POLICY)["web", Protocol.TCP]
    assert PortRange(443, 443) in short
    assert PortRange(8080, 8080) in short
    only = looked(*USUAL, 9090, asked=(PortRange(443, 443), PortRange(8080, 8080)))
    assert seen_twice(watch, only) == [("port-closed", "", 8080), ("port-drift-ended", "open-not-allowed", 8080)]


def test_a_host_that_policy_no_longer_names_ends_its_drifts() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL, 8080))
    gone = Looked(replace(POLICY, hosts=()), (), (), whole=True)
    assert told(watch, gone) == [("port-drift-ended", "open-not-allowed", 8080)]


def test_a_port_that_flaps_stays_told_until_it_is_quiet() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    said = []
    for turn in range(12):
        said += seen_twice(watch, looked(*USUAL, 8080), NOW + turn * MINUTE)
        said += seen_twice(watch, looked(*USUAL), NOW + turn * MINUTE)
    drifts = [one for one in said if "drift" in one[0]]
    # Begun, ended, begun again; from then on one clean look is not enough.
    assert drifts == [
        ("port-drifted", "open-not-allowed", 8080),
        ("port-drift-ended", "open-not-allowed", 8080),
        ("port-drifted", "open-not-allowed", 8080),
    ]
    assert [one for one in seen_twice(watch, looked(*USUAL), NOW + HOUR) if "drift" in one[0]] == [
        ("port-drift-ended", "open-not-allowed", 8080)
    ]


def test_a_restart_says_nothing_anew() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL, 8080))
    again = Watch.restored(watch.cursor())
    assert again.cursor() == watch.cursor()
    assert seen_twice(again, looked(*USUAL, 8080)) == []
    assert ("port-drift-ended", "open-not-allowed", 8080) in seen_twice(again, looked(*USUAL))
    assert again.position > watch.position


def test_a_cursor_of_a_newer_version_is_refused_and_so_is_rubbish() -> None:
    newer = msgspec.json.decode(Watch().cursor()) | {"version": 2}
    with pytest.raises(StateError, match="version 2"):
        Watch.restored(msgspec.json.encode(newer).decode())
    with pytest.raises(StateError, match="cannot be read"):
        Watch.restored("{")


def test_a_record_begins_with_its_message_and_leaves_out_what_is_not_known() -> None:
    [drifted] = Watch().take(looked(*USUAL, 22), looked(*USUAL, 22), NOW)
    raw = encode(drifted)
    assert raw.startswith(b'{"message":"web 192.0.2.1 22/tcp from local: open-not-allowed: close 22/tcp')
    assert drifted["vedette"]["ports"]["level"] == "high"
    assert "owner" not in drifted["vedette"]["ports"]


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from([22, 80, 443, 8080])), st.sampled_from(["up", "down", "short"])), max_size=12
    )
)
def test_what_is_told_is_balanced_and_ends_with_what_is_there(looks: list[tuple[set[int], str]]) -> None:
    watch = Watch()
    standing: set[tuple[str, int]] = set()
    for ports, how in looks:
        if how == "down":
            look = looked(**DOWN)
        elif how == "short" and (asked := watch.wanted(POLICY).get(("web", Protocol.TCP))):
            look = looked(*sorted(ports), asked=tuple(asked))
        else:
            look = looked(*sorted(ports))
        watch = Watch.restored(watch.cursor())
        for action, kind, port in seen_twice(watch, look):
            if action == "port-drifted":
                assert (kind, port) not in standing
                standing.add((kind, port))
            elif action == "port-drift-ended":
                standing.remove((kind, port))
    for _ in range(13):
        for action, kind, port in seen_twice(watch, looked(*USUAL), NOW):
            assert action in ("port-drift-ended", "port-opened", "port-closed")
            standing.discard((kind, port))
    assert standing == set()

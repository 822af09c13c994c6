from __future__ import annotations

from dataclasses import replace

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.inventory.yaml import parse_policy
from vedette.model.clock import HOUR, MINUTE
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.ports import (
    DRIFT_LEVELS,
    Drift,
    DriftKind,
    Observation,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
)
from vedette.sources.ports.judge import judge
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


def test_a_target_of_which_not_all_could_be_told_is_no_pass_and_a_few_ports_that_answer_do_not_end_it() -> None:
    """As of a host that falls silent under a look at everything, and answers one at three ports."""
    watch = Watch(too_long=HOUR)
    seen_twice(watch, looked(*USUAL))
    partly = looked(*USUAL, rest=PortState.UNKNOWN, rest_why=SeenWhy.NO_ANSWER_AT_ALL)
    few = looked(*USUAL, asked=(PortRange(80, 80), PortRange(443, 443)))
    assert told(watch, partly, few) == [("port-drifted", "could-not-tell", 0)]
    watch = Watch.restored(watch.cursor(), HOUR)
    assert told(watch, few, None, NOW + MINUTE) == []
    assert told(watch, partly, few, NOW + HOUR) == [("port-drifted", "could-not-tell-too-long", 0)]
    assert told(watch, few, None, NOW + HOUR) == []
    ended = told(watch, looked(*USUAL), None, NOW + HOUR)
    assert {kind for _, kind, _ in ended} == {"could-not-tell", "could-not-tell-too-long"}


def test_a_host_that_whole_looks_never_see_is_no_pass_because_a_few_ports_answer() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    few = looked(*USUAL, asked=(PortRange(80, 80), PortRange(443, 443)))
    assert told(watch, looked(**DOWN), few) == []
    assert told(watch, looked(*USUAL)) == []
    assert told(watch, looked(**DOWN), few) == []
    assert told(watch, few) == []
    assert told(watch, looked(**DOWN), few) == [("port-drifted", "could-not-tell", 0)]
    assert told(watch, few) == []
    assert told(watch, looked(**DOWN)) == []
    assert told(watch, few) == []
    assert told(watch, looked(*USUAL)) == [("port-drift-ended", "could-not-tell", 0)]


def test_a_host_that_was_down_is_back_as_soon_as_a_few_ports_answer() -> None:
    watch = Watch()
    seen_twice(watch, looked(**DOWN))
    few = looked(*USUAL, asked=(PortRange(80, 80), PortRange(443, 443)))
    assert told(watch, few) == [("port-drift-ended", "could-not-tell", 0)]


@pytest.mark.parametrize("condition", [TargetCondition.UNRESOLVED, TargetCondition.REFUSED])
def test_a_name_that_leads_nowhere_or_elsewhere_ends_nothing_at_the_addresses_it_had(
    condition: TargetCondition,
) -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL, 8080))
    lost = looked(address="www.example.org", condition=condition, rest=PortState.UNKNOWN, observations=())
    assert seen_twice(watch, lost) == [("port-drifted", "could-not-tell", 0)]
    # Known again, and still open: it goes on, as what it was.
    assert seen_twice(watch, looked(*USUAL, 8080)) == [("port-drift-ended", "could-not-tell", 0)]
    elsewhere = looked(*USUAL, address="192.0.2.2")
    assert told(watch, elsewhere) == [("port-drift-ended", "open-not-allowed", 8080)]


def test_what_answers_everything_is_not_over_because_it_is_down() -> None:
    watch = Watch()
    tarpit = {"condition": TargetCondition.ANSWERS_EVERYTHING, "rest": PortState.UNKNOWN, "observations": ()}
    assert seen_twice(watch, looked(**tarpit)) == [("port-drifted", "answers-everything", 0)]
    assert seen_twice(watch, looked(**DOWN)) == [("port-drifted", "could-not-tell", 0)]
    assert ("port-drift-ended", "answers-everything", 0) in seen_twice(watch, looked(*USUAL))


def test_a_port_nothing_can_be_told_of_is_not_told_because_its_host_is_down() -> None:
    watch = Watch()
    unknown = Observation("web", "192.0.2.1", 53, Protocol.TCP, PortState.UNKNOWN, "local", NOW)
    seen_twice(watch, looked(*USUAL))
    silent = looked(*USUAL)
    survey = replace(silent.surveys[0], observations=(*silent.surveys[0].observations, unknown))
    silent = replace(silent, surveys=(survey,), drifts=tuple(judge(POLICY, (survey,))))
    assert told(watch, silent, silent) == [("port-drifted", "could-not-tell", 53)]
    assert PortRange(53, 53) not in watch.wanted(POLICY)["web", Protocol.TCP]
    assert seen_twice(watch, looked(**DOWN)) == [("port-drifted", "could-not-tell", 0)]


def test_what_lasts_is_told_again_unless_it_is_only_informational() -> None:
    watch = Watch()
    lasting = looked(443, 8080)  # and nothing at 80, which may answer
    assert [one for one in seen_twice(watch, lasting) if one[0] == "port-drifted"] == [
        ("port-drifted", "allowed-but-closed", 80),
        ("port-drifted", "open-not-allowed", 8080),
    ]
    assert seen_twice(watch, lasting, NOW + 4 * HOUR - 1) == []
    watch = Watch.restored(watch.cursor())
    [again] = watch.take(lasting, None, NOW + 4 * HOUR)
    assert again["vedette"]["ports"]["kind"] == "open-not-allowed"
    assert again["vedette"]["ports"]["since"] == "2026-11-24T10:00:00.000000Z"
    assert seen_twice(watch, lasting, NOW + 5 * HOUR) == []


def test_a_level_that_policy_changes_is_told_as_another_drift() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL, 8080))
    worse = looked(*USUAL, 8080)
    worse = replace(worse, drifts=tuple(replace(one, level=Level.CRITICAL) for one in worse.drifts))
    records = watch.take(worse, None, NOW + MINUTE)
    assert [(one["event"]["action"], one["vedette"]["ports"]["level"]) for one in records] == [
        ("port-drift-ended", "high"),
        ("port-drifted", "critical"),
    ]
    assert watch.take(worse, None, NOW + MINUTE) == []


def test_a_short_look_is_for_what_matters_and_asks_nothing_policy_does_not_want_asked() -> None:
    watch = Watch()
    seen_twice(watch, looked(443, 22, 8080))
    assert watch.wanted(POLICY)["web", Protocol.TCP].count(PortRange(80, 80)) == 0
    # 22 and 8080 are left out of `probe` while they are open.
    seen_twice(watch, looked(443, 22, 8080, asked=(PortRange(80, 443),)))
    told(watch, replace(looked(443, asked=(PortRange(80, 443),)), whole=True))
    assert set(watch.wanted(POLICY)["web", Protocol.TCP]) == {PortRange(443, 443)}


def test_an_older_look_that_ends_later_does_not_say_what_is_not_so_any_more() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    began_before = looked(*USUAL)
    stopped = looked(80, asked=(PortRange(80, 80), PortRange(443, 443)), started_at=NOW + MINUTE)
    assert ("port-closed", "", 443) in told(watch, stopped, stopped, NOW + 2 * MINUTE)
    assert told(watch, began_before, stopped, NOW + 3 * MINUTE) == []


def test_a_clock_that_is_set_back_puts_nothing_off() -> None:
    watch = Watch(too_long=HOUR)
    seen_twice(watch, looked(**DOWN), NOW + 1000 * HOUR)
    assert seen_twice(watch, looked(**DOWN), NOW) == []
    assert seen_twice(watch, looked(**DOWN), NOW + HOUR) == [("port-drifted", "could-not-tell-too-long", 0)]


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


def test_what_fails_again_and_again_is_few_drifts_and_not_one_each_time() -> None:
    """A service that is away for a minute in every fifteen, all day."""
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    said = []
    for minute in range(24 * 60):
        ports = (80,) if minute % 15 == 0 else USUAL
        said += seen_twice(watch, looked(*ports), NOW + minute * MINUTE)
    assert 1 < sum(one[0] == "port-drifted" for one in said) <= 24


def test_what_was_read_and_not_looked_at_ends_when_it_is_not_read_any_more() -> None:
    watch = Watch()
    seen_twice(watch, looked(*USUAL))
    usual = looked(*USUAL)
    read = [
        Drift(kind, DRIFT_LEVELS[kind], "web", "192.0.2.1", 8443, Protocol.TCP, "", None, PortState.UNKNOWN,
              SeenWhy.NOT_PROBED, "", NOW)
        for kind in (DriftKind.INVENTORIES_DISAGREE, DriftKind.POLICY_WIDENED)
    ]  # fmt: skip
    assert len(seen_twice(watch, replace(usual, drifts=tuple(read)))) == 2
    assert PortRange(8443, 8443) not in watch.wanted(POLICY)["web", Protocol.TCP]
    # Something else is doubtful at the same time.
    ended = seen_twice(watch, looked(*USUAL, 8080))
    assert [one for one in ended if one[2] == 8443] == [
        ("port-drift-ended", "inventories-disagree", 8443),
        ("port-drift-ended", "policy-widened", 8443),
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
    raw = orjson.dumps(drifted)
    assert raw.startswith(b'{"message":"web 192.0.2.1 22/tcp from local: open-not-allowed: close 22/tcp')
    assert drifted["vedette"]["ports"]["level"] == "high"
    assert "owner" not in drifted["vedette"]["ports"]


@settings(max_examples=40)
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
    for _ in range(33):
        for action, kind, port in seen_twice(watch, looked(*USUAL), NOW):
            assert action in ("port-drift-ended", "port-opened", "port-closed")
            standing.discard((kind, port))
    assert standing == set()

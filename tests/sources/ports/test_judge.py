from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from vedette.inventory.yaml import parse_policy
from vedette.model.levels import Level
from vedette.model.ports import (
    DriftKind,
    FirewallVerdict,
    InsideView,
    Listener,
    Observation,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
)
from vedette.sources.ports.judge import exit_code, judge
from vedette.text.times import parse_rfc3339

NOW = parse_rfc3339("2026-11-24T10:00:00Z")
POLICY = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24]
networks: {office: [198.51.100.0/24]}
vantage: {world1: {}, world2: {}, desk: {network: office}}
hosts:
  web:
    addresses: [192.0.2.1]
    ports:
      443/tcp: {from: world, must_answer: true}
      80/tcp: world
      9100/tcp: office
      8443/tcp: {from: world, until: 2026-11-01}
""",
    "p.yml",
)


def survey(*open_ports: int, vantage: str = "world1", **more: object) -> Survey:
    seen = tuple(
        Observation("web", "192.0.2.1", port, Protocol.TCP, PortState.OPEN, vantage, NOW, 1, SeenWhy.ACCEPTED)
        for port in open_ports
    )
    made = Survey(
        "web", "192.0.2.1", Protocol.TCP, vantage, NOW, NOW, (PortRange(1, 65_535),), PortState.CLOSED,
        SeenWhy.REFUSED, seen,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def kinds(*surveys: Survey, inside: tuple[InsideView, ...] = ()) -> list[tuple[DriftKind, int, Level]]:
    return [(one.kind, one.port, one.level) for one in judge(POLICY, surveys, inside)]


def test_what_is_as_policy_says_is_no_drift():
    found = judge(POLICY, [survey(80, 443)])
    assert found == []
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("seen", "wanted", "code"),
    [
        ((443, 80, 22), (DriftKind.OPEN_NOT_ALLOWED, 22, Level.HIGH), 1),
        ((443, 80, 9100), (DriftKind.OPEN_NOT_ALLOWED, 9100, Level.HIGH), 1),
        ((443, 80, 8443), (DriftKind.OPENING_EXPIRED, 8443, Level.HIGH), 1),
        ((80,), (DriftKind.MUST_ANSWER, 443, Level.HIGH), 1),
        ((443,), (DriftKind.ALLOWED_BUT_CLOSED, 80, Level.INFORMATIONAL), 0),
    ],
)
def test_each_disagreement_has_its_kind_and_level(
    seen: tuple[int, ...], wanted: tuple[DriftKind, int, Level], code: int
):
    assert kinds(survey(*seen)) == [wanted]
    assert exit_code(judge(POLICY, [survey(*seen)])) == code


def test_a_named_network_is_let_in_where_the_world_is_not():
    assert kinds(survey(443, 80, 9100, vantage="desk")) == []
    assert kinds(survey(443, 80, 9100, 22, vantage="desk")) == [(DriftKind.OPEN_NOT_ALLOWED, 22, Level.MEDIUM)]


@pytest.mark.parametrize("condition", [TargetCondition.DOWN, TargetCondition.UNRESOLVED, TargetCondition.REFUSED])
def test_what_could_not_be_seen_is_never_a_pass(condition: TargetCondition):
    blind = survey(condition=condition, rest=PortState.UNKNOWN, rest_why=SeenWhy.NO_ANSWER_AT_ALL)
    found = judge(POLICY, [blind])
    assert [one.kind for one in found] == [DriftKind.COULD_NOT_TELL]
    assert exit_code(found) == 2


def test_a_host_that_vanished_half_way_is_not_a_pass():
    found = judge(POLICY, [survey(80, 443, rest=PortState.UNKNOWN, rest_why=SeenWhy.NO_ANSWER_AT_ALL)])
    assert [(one.kind, one.port) for one in found] == [(DriftKind.COULD_NOT_TELL, 0)]


def test_drift_that_is_known_outweighs_what_is_not():
    blind = survey(condition=TargetCondition.DOWN, rest=PortState.UNKNOWN)
    assert exit_code(judge(POLICY, [blind, survey(443, 80, 22)])) == 1


def test_a_target_that_answers_everything_is_named_so():
    found = judge(POLICY, [survey(condition=TargetCondition.ANSWERS_EVERYTHING)])
    assert [one.kind for one in found] == [DriftKind.ANSWERS_EVERYTHING]
    assert exit_code(found) == 2


def test_vantages_that_stand_alike_must_see_alike():
    found = kinds(survey(443, 80), survey(443, vantage="world2"))
    assert (DriftKind.ONE_VANTAGE_ONLY, 80, Level.MEDIUM) in found
    assert kinds(survey(443, 80), survey(443, 80, 9100, vantage="desk")) == []


def test_a_port_that_is_open_like_all_the_rest_is_compared_between_vantages_too():
    every = survey(rest=PortState.OPEN, asked=(PortRange(443, 443),))
    assert every.ports_in(PortState.OPEN) == {443}
    shut = survey(vantage="world2", asked=(PortRange(443, 443),))
    assert (DriftKind.ONE_VANTAGE_ONLY, 443, Level.MEDIUM) in kinds(every, shut)


def test_the_inside_tells_a_firewall_from_a_dead_service():
    listener = Listener("web", "0.0.0.0", 443, Protocol.TCP, process="nginx", firewall=FirewallVerdict.DROPPED)
    view = InsideView("web", NOW, (listener, replace(listener, port=80)))
    found = judge(POLICY, [survey(80)], [view])
    assert [(one.kind, one.port) for one in found] == [(DriftKind.LISTENING_BUT_FILTERED, 443)]
    assert "nginx" in found[0].advice
    assert kinds(survey(443, 80), inside=(InsideView("web", NOW, (listener,)),)) == [
        (DriftKind.OPEN_WITHOUT_LISTENER, 80, Level.MEDIUM)
    ]
    loopback = replace(listener, address="127.0.0.1")
    assert (DriftKind.MUST_ANSWER, 443, Level.HIGH) in kinds(survey(80), inside=(InsideView("web", NOW, (loopback,)),))


def advice(*open_ports: int, inside: InsideView, **more: object) -> dict[int, tuple[DriftKind, Level, str]]:
    return {
        one.port: (one.kind, one.level, one.advice) for one in judge(POLICY, [survey(*open_ports, **more)], [inside])
    }


def test_a_service_that_must_answer_and_is_filtered_pages_and_one_that_may_does_not():
    listener = Listener("web", "0.0.0.0", 443, Protocol.TCP, firewall=FirewallVerdict.REJECTED, firewall_rule="a rule")
    found = advice(inside=InsideView("web", NOW, (listener, replace(listener, port=80))))
    assert {port: found[port][:2] for port in (80, 443)} == {
        80: (DriftKind.LISTENING_BUT_FILTERED, Level.LOW),
        443: (DriftKind.LISTENING_BUT_FILTERED, Level.HIGH),
    }
    assert found[443][2].endswith("the host's own firewall keeps it shut: a rule")


@pytest.mark.parametrize(
    ("firewall", "wanted"),
    [
        (FirewallVerdict.ACCEPTED, "lets it in; something on the way refuses"),
        (FirewallVerdict.LIMITED_TO_SOURCES, "lets only some sources in; this vantage is none of them"),
        (FirewallVerdict.UNKNOWN, "a firewall, or a full queue; what the host's own firewall does is not known"),
    ],
)
def test_where_a_listener_is_kept_from_those_who_may_reach_it(firewall: FirewallVerdict, wanted: str):
    listener = Listener("web", "0.0.0.0", 443, Protocol.TCP, process="nginx", firewall=firewall)
    assert wanted in advice(80, inside=InsideView("web", NOW, (listener,)))[443][2]


def test_a_service_that_does_not_answer_is_told_by_what_is_there_instead():
    inside = InsideView("web", NOW, (), addresses=frozenset(("192.0.2.1",)))
    assert advice(80, inside=inside)[443][2].endswith("nothing listens on the host: start the service")
    other = Listener("web", "127.0.0.1", 443, Protocol.TCP, process="nginx")
    found = advice(80, inside=replace(inside, listeners=(other,)))[443]
    assert found[0] is DriftKind.MUST_ANSWER
    assert found[2].endswith("nginx listens, but it is bound to 127.0.0.1 alone")
    assert advice(80, inside=replace(inside, complete=False))[443][2].endswith(
        "start the service, or look at the firewall"
    )


def test_an_old_view_says_neither_that_nothing_listens_nor_that_something_does():
    old = InsideView("web", NOW - 3_600_000_000)
    assert advice(80, 443, inside=old) == {}
    listener = Listener("web", "0.0.0.0", 443, Protocol.TCP, process="nginx", firewall=FirewallVerdict.DROPPED)
    found = advice(80, inside=replace(old, listeners=(listener,)))[443]
    assert found[0] is DriftKind.MUST_ANSWER
    assert "nginx" not in found[2]
    assert {port: one[0] for port, one in advice(80, 443, inside=replace(old, at=NOW)).items()} == {
        80: DriftKind.OPEN_WITHOUT_LISTENER,
        443: DriftKind.OPEN_WITHOUT_LISTENER,
    }


def test_an_open_port_against_policy_names_who_listens_or_that_nobody_does():
    listener = Listener("web", "0.0.0.0", 22, Protocol.TCP, process="sshd", pid=7, unit="ssh.service")
    known = (replace(listener, port=80), replace(listener, port=443), listener)
    kind, _, text = advice(22, 80, 443, inside=InsideView("web", NOW, known))[22]
    assert kind is DriftKind.OPEN_NOT_ALLOWED
    assert "sshd (pid 7, ssh.service)" in text
    _, _, text = advice(22, 80, 443, inside=InsideView("web", NOW, known[:2]))[22]
    assert "nothing on the host itself listens, something in front of it answers" in text
    published = replace(listener, published=True, namespace="c1")
    assert "loopback" not in advice(22, inside=InsideView("web", NOW, (published,)))[22][2]


def test_what_the_inside_knows_of_what_cannot_be_told_from_outside_is_said():
    inside = InsideView("web", NOW, (Listener("web", "0.0.0.0", 443, Protocol.TCP, process="nginx"),))
    silent = Observation(
        "web", "192.0.2.1", 443, Protocol.TCP, PortState.UNKNOWN, "world1", NOW, 1, SeenWhy.NO_RESPONSE
    )
    found = advice(80, inside=inside, observations=(silent,))
    assert "from inside: nginx listens" in found[443][2]
    down = advice(inside=inside, condition=TargetCondition.DOWN, rest=PortState.UNKNOWN)
    assert down[0][0] is DriftKind.COULD_NOT_TELL
    assert down[0][2] == "its own agent says that it is up, 1 listeners: look at the way there"


def test_a_firewall_that_tells_vantages_apart_is_named():
    limited = Listener(
        "web", "0.0.0.0", 80, Protocol.TCP, firewall=FirewallVerdict.LIMITED_TO_SOURCES, firewall_rule="r"
    )
    surveys = [survey(443, 80), survey(443, vantage="world2")]
    known = (limited, replace(limited, port=443, firewall=FirewallVerdict.ACCEPTED))
    found = [one for one in judge(POLICY, surveys, [InsideView("web", NOW, known)]) if one.port == 80]
    only = next(one for one in found if one.kind is DriftKind.ONE_VANTAGE_ONLY)
    assert only.advice.endswith("tells them apart; the host's own firewall lets only some sources in: r")
    assert only.listener == limited
    assert all(one.listener is None for one in judge(POLICY, surveys))


UDP = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24]
hosts:
  web:
    addresses: [192.0.2.1]
    ports:
      53/udp: {from: world, must_answer: true}
      5000-5063/udp: {from: world, level: high}
      6000-6064/udp: {from: world, level: high}
""",
    "p.yml",
)


def silent_udp(*, inside: tuple[InsideView, ...] = ()) -> list[tuple[DriftKind, int, Level]]:
    made = survey(protocol=Protocol.UDP, rest=PortState.UNKNOWN, rest_why=SeenWhy.NO_RESPONSE)
    return [(one.kind, one.port, one.level) for one in judge(UDP, (made,), inside)]


def test_silent_udp_is_told_as_one_and_the_service_that_must_answer_by_itself() -> None:
    assert silent_udp() == [
        (DriftKind.COULD_NOT_TELL, 0, Level.LOW),
        (DriftKind.COULD_NOT_TELL, 53, Level.LOW),
    ]


def test_from_inside_it_is_known_that_nothing_listens_to_silent_udp() -> None:
    nothing = InsideView("web", NOW, (), True, frozenset({"192.0.2.1"}))
    assert (DriftKind.MUST_ANSWER, 53, Level.HIGH) in silent_udp(inside=(nothing,))


def test_a_hole_nobody_uses_is_informational_whatever_level_its_drifts_have_and_a_wide_one_is_not_told_by_port() -> (
    None
):
    closed = survey(protocol=Protocol.UDP)
    found = [(one.kind, one.port, one.level) for one in judge(UDP, (closed,))]
    assert [one for one in found if one[1] >= 5000] == [
        (DriftKind.ALLOWED_BUT_CLOSED, port, Level.INFORMATIONAL) for port in range(5000, 5064)
    ]


def test_a_host_that_listens_on_every_port_is_read_once_and_not_for_each() -> None:
    read = []

    class Counted(tuple[Listener, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Listener]:
            read.append(len(self))
            return super().__iter__()

    ports = range(20_000, 20_400)
    listeners = Counted(Listener("web", "0.0.0.0", port, Protocol.TCP, process="nc") for port in ports)
    view = InsideView("web", NOW, listeners, addresses=frozenset(("192.0.2.1",)))
    found = [one for one in judge(POLICY, [survey(443, 80, *ports)], [view]) if one.port in ports]
    assert len(found) == len(ports)
    assert all(one.listener is not None and one.listener.process == "nc" for one in found)
    assert len(read) < 5

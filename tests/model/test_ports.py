from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.ports import (
    DRIFT_LEVELS,
    WORLD,
    DriftKind,
    NamedNetwork,
    Opening,
    PortPolicy,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    Vantage,
    effective,
)

TCP = Protocol.TCP


def ranges() -> st.SearchStrategy[PortRange]:
    return st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda pair: PortRange(min(pair), max(pair)))


@pytest.mark.parametrize(("first", "last"), [(0, 5), (5, 4), (1, 65_536)])
def test_a_range_outside_the_ports_is_refused(first: int, last: int):
    with pytest.raises(ValueError, match="ports run from"):
        PortRange(first, last)


@settings(max_examples=60)
@given(ranges(), ranges())
def test_without_leaves_exactly_what_the_other_range_does_not_hold(one: PortRange, other: PortRange):
    left = {port for part in one.without(other) for port in range(part.first, part.last + 1)}
    assert left == {port for port in range(one.first, one.last + 1) if port not in other}


def test_a_hosts_own_word_on_a_port_replaces_that_of_its_roles():
    role = Opening(PortRange(20, 30), TCP, (WORLD,))
    other = Opening(PortRange(22, 22), Protocol.UDP, (WORLD,))
    own = Opening(PortRange(22, 22), TCP, ("office",))
    found = effective([own], [role, other])
    assert [(str(one.ports), one.protocol, one.sources) for one in found] == [
        ("22", TCP, ("office",)),
        ("20-21", TCP, (WORLD,)),
        ("23-30", TCP, (WORLD,)),
        ("22", Protocol.UDP, (WORLD,)),
    ]


def test_an_opening_admits_a_vantage_whose_network_lies_within_its_sources():
    networks = {
        "corp": NamedNetwork("corp", (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))),
        "desk": NamedNetwork("desk", (ip_network("198.51.100.8/29"),)),
        "both": NamedNetwork("both", (ip_network("198.51.100.8/29"), ip_network("203.0.113.0/24"))),
    }
    policy = PortPolicy((), networks=networks)
    opening = Opening(PortRange(22, 22), TCP, ("corp",))
    admitted = {name: policy.admits(opening, Vantage("v", name)) for name in (*networks, WORLD)}
    assert admitted == {"corp": True, "desk": True, "both": False, WORLD: False}


def test_a_survey_answers_for_every_port_asked_and_no_other():
    survey = Survey("web", "192.0.2.1", TCP, "here", 1, 2, (PortRange(1, 100),), PortState.CLOSED, SeenWhy.REFUSED)
    seen = survey.observed(7)
    assert seen is not None
    assert (seen.state, seen.port) == (PortState.CLOSED, 7)
    assert survey.observed(101) is None


def test_every_kind_of_drift_has_a_level():
    assert set(DRIFT_LEVELS) == set(DriftKind)

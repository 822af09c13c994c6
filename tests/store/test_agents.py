"""Agents and join tokens in the state: what is kept, counted down and never undone.
Counterpart: vedette.store.agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.model.errors import StateError
from vedette.model.fleet import AgentState, EnrolReason, Joining, JoinToken, Sighting
from vedette.store.agents import Agents
from vedette.store.state import State

DIGEST = "ab" * 32


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    state = State(tmp_path / "state.db")
    found = Agents(state)
    found.add_token(JoinToken(DIGEST[:32], DIGEST, "web", 2, 2, 0, 1000))
    yield found
    state.close()


def join(agents: Agents, host_id: str, *, now: int = 1, digest: str = DIGEST, key: str = "k") -> EnrolReason:
    return agents.join(Joining(host_id, f"name-{host_id}", digest, key), enrolment=f"e-{host_id}-{now}", now=now)[0]


def test_a_token_counts_down_and_a_repeat_uses_nothing_up(agents: Agents):
    assert join(agents, "a1") is EnrolReason.ENROLLED
    assert join(agents, "a1", now=2) is EnrolReason.REPEATED
    assert join(agents, "a1", key="other") is EnrolReason.HOST_ID_TAKEN
    assert join(agents, "b1") is EnrolReason.ENROLLED
    assert join(agents, "c1") is EnrolReason.TOKEN_USED_UP
    assert agents.tokens()[0].uses_left == 0
    # Also when it is used up, and has ended, the host that used it gets its answer.
    assert join(agents, "b1", now=5000) is EnrolReason.REPEATED
    assert join(agents, "c1", now=1000) is EnrolReason.TOKEN_ENDED
    assert join(agents, "c1", digest=DIGEST[:32] + "cd" * 16) is EnrolReason.UNKNOWN_TOKEN
    assert agents.forget_tokens(1001) == 1
    assert join(agents, "c1") is EnrolReason.UNKNOWN_TOKEN


def test_certificates_are_noted_for_the_enrolment_that_holds_alone(agents: Agents):
    join(agents, "a1")
    noted = {"serial": "1", "key_hash": "k", "expires_at": 9}
    assert agents.certified("a1", enrolment="e-a1-1", **noted)
    assert not agents.certified("a1", enrolment="another", **noted)
    assert not agents.certified("nobody", enrolment="e-a1-1", **noted)
    agents.change("a1", AgentState.RETIRED, by="anna", note="", now=2)
    assert not agents.certified("a1", enrolment="e-a1-1", **noted)
    assert join(agents, "a1", now=3) is EnrolReason.ENROLLED
    assert agents.agent("a1").enrolment == "e-a1-3"


def test_the_newest_sighting_stays_and_strangers_leave_nothing(agents: Agents):
    join(agents, "a1")
    agents.saw({"a1": Sighting(20, "2.0", 7), "stranger": Sighting(20)})
    agents.saw({"a1": Sighting(10, "1.0", 6)})
    (found,) = agents.agents()
    assert found.seen == Sighting(20, "2.0", 7)


def test_hosts_are_found_by_name_id_or_a_beginning_that_is_no_guess(agents: Agents):
    join(agents, "aaaa1")
    join(agents, "aaaa2")
    assert agents.find("name-aaaa1").host_id == "aaaa1"
    assert agents.find("aaaa2").host_id == "aaaa2"
    for unclear in ("aaaa", "aaa", "nobody", ""):
        with pytest.raises(StateError):
            agents.find(unclear)
    with pytest.raises(StateError):
        agents.change("nobody", AgentState.RETIRED, by="anna", note="", now=1)

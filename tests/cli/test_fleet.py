"""Tokens and hosts of the fleet from the command line.
Counterpart: vedette.cli.fleet, vedette.cli.enrol and vedette.app.fleet_operating."""

from __future__ import annotations

from pathlib import Path

from tests.cli.parts import HARMFUL, HOSTILE, Place, vedette

from vedette.fleet.enrolment import digest_of
from vedette.model.clock import SystemClock
from vedette.model.fleet import AgentState, Joining
from vedette.store.agents import Agents

FIRST, SECOND_HOST = "5f1c7a52-90ce-4a5c-8f66-2f3cf0f1a001", "6f1c7a52-90ce-4a5c-8f66-2f3cf0f1a002"


def joined(place: Place, *hosts: tuple[str, str]) -> None:
    ran = place.run("fleet", "token", "--uses", len(hosts), "--group", "web", "--output", "json")
    (made,) = ran.records
    state = place.state()
    for host_id, name in hosts:
        joining = Joining(host_id, name, digest_of(made["token"].partition(".")[2]), "k")
        assert Agents(state).join(joining, enrolment="e", now=SystemClock().now())[1] is not None
    state.close()


def test_a_token_is_shown_once_listed_without_its_secret_and_taken_back(place: Place):
    ran = place.run("fleet", "token", "--group", "web", "--uses", "3", "--for", "2h")
    assert ran.code == 0, ran.err
    fingerprint, _, secret = ran.out.strip().partition(".")
    assert (len(fingerprint), len(secret)) == (64, 43)
    assert "3 hosts join group web until" in ran.err
    assert (place.data / "authority" / "ca.pem").stat().st_mode & 0o777 == 0o600
    again = place.run("fleet", "token", "--output", "json").records[0]["token"]
    assert again.partition(".")[0] == fingerprint
    listed = place.run("fleet", "tokens", "--output", "json")
    assert [(row["group"], row["uses_left"]) for row in listed.records] == [("default", 1), ("web", 3)]
    assert secret not in listed.out + place.run("fleet", "tokens").out
    gone = place.run("fleet", "forget", listed.records[1]["id"][:12])
    assert gone.out.endswith("3 of 3 left\n")
    assert len(place.run("fleet", "tokens", "--output", "json").records) == 1
    assert place.run("fleet", "forget", "zzz").code == 2


def test_hosts_are_listed_retired_and_revoked(place: Place):
    joined(place, (FIRST, "web01"), (SECOND_HOST, "web02"))
    rows = place.run("fleet", "list", "--output", "json").records
    assert [(row["host.name"], row["state"], row["last_seen"]) for row in rows] == [
        ("web01", "active", None),
        ("web02", "active", None),
    ]
    assert "never" in place.run("fleet", "list").out
    assert place.run("fleet", "retire", "web01", "--note", "scrapped").out == f"retired: web01 ({FIRST})\n"
    assert place.run("fleet", "revoke", SECOND_HOST[:8]).code == 0
    assert place.run("fleet", "list", "--output", "json").records == []
    found = place.run("fleet", "list", "--state", "all", "--output", "json").records
    assert [(row["state"], row["note"]) for row in found] == [("retired", "scrapped"), ("revoked", None)]
    twice = place.run("fleet", "retire", "web02")
    assert twice.code == 2
    assert "web02 is revoked already" in twice.err
    assert place.run("fleet", "revoke", "nobody").code == 2
    assert place.run("fleet", "list", "--state", "lost").code == 2


def test_a_hostile_host_name_does_no_harm(place: Place):
    joined(place, (FIRST, HOSTILE))
    text = place.run("fleet", "list").out
    assert not set(HARMFUL) & set(text)
    assert not set(HARMFUL) & set(place.run("fleet", "retire", FIRST).out)
    state = place.state()
    agent = Agents(state).agent(FIRST)
    state.close()
    assert agent is not None
    assert agent.state is AgentState.RETIRED


def test_enrolling_with_what_is_no_token_or_no_hub_says_so(place: Place, tmp_path: Path):
    ran = place.run("enrol", "https://127.0.0.1:1", "nonsense")
    assert ran.code == 2
    assert "no join token" in ran.err
    token = f"{'a' * 64}.{'b' * 43}"
    assert "not the address of a hub" in place.run("enrol", "http://127.0.0.1:1", token).err
    refused = vedette("enrol", "https://127.0.0.1:1", "-", "--config", place.config, stdin=f"{token}\n".encode())
    assert refused.code == 2
    assert "cannot be reached" in refused.err

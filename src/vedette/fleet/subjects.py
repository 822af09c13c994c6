"""The names everything between agents and hub goes by, and what a host may do with which of them.
Counterpart: `transport` speaks by these, `broker` turns them into the broker's own permissions."""

from __future__ import annotations

from typing import Any

from vedette.model.fleet import Agent, AgentState, is_host_id
from vedette.model.shipping import Lane

EVENTS = "VEDETTE_EVENTS"
CONSUMER = "vedette-lake"
BUNDLES, DECISIONS = "bundles", "decisions"
BUCKETS = (BUNDLES, DECISIONS)
ALL = "all"
"""The key of a bucket that every host reads."""
_HUB = "HUB"
_DIRECT = "$JS.API.DIRECT.GET."


def events(host_id: str, lane: Lane) -> str:
    """Where a host ships its batches."""
    return f"v1.ev.{host_id}.{lane.value}"


def reports(host_id: str) -> str:
    """Where a host says how it stands."""
    return f"v1.rp.{host_id}"


def asks(host_id: str) -> str:
    """Where a host asks the hub something."""
    return f"v1.ask.{host_id}"


def renewals(host_id: str) -> str:
    """Where a host asks for its next certificate."""
    return f"v1.rn.{host_id}"


def confirms(host_id: str) -> str:
    """Where the hub says what is stored."""
    return f"v1.ok.{host_id}"


def inbox(host_id: str) -> str:
    """What the subjects of answers to a host begin with."""
    return f"_INBOX_{host_id}"


def value(bucket: str, key: str) -> str:
    """Where a key of a bucket is written, and told to who listens."""
    return f"$KV.{bucket}.{key}"


def direct_get(bucket: str, key: str) -> str:
    """Where the newest value of a key is asked for."""
    return f"{_DIRECT}KV_{bucket}.{value(bucket, key)}"


def host_of(subject: str) -> str:
    """The host a subject of an agent is of, "" where it is none of those."""
    parts = subject.split(".")
    known = len(parts) >= 3 and parts[0] == "v1" and is_host_id(parts[2])
    return parts[2] if known else ""


def lane_of(subject: str) -> Lane:
    """The lane of a subject that batches are shipped by; ValueError where it has none."""
    return Lane(subject.rpartition(".")[2])


def _spoken(host_id: str) -> list[str]:
    keys = [direct_get(bucket, key) for bucket in BUCKETS for key in (host_id, ALL)]
    lanes = [events(host_id, lane) for lane in Lane]
    return [*lanes, reports(host_id), asks(host_id), renewals(host_id), *keys]


def _heard(host_id: str) -> list[str]:
    return [confirms(host_id), *(value(bucket, key) for bucket in BUCKETS for key in (host_id, ALL))]


def accounts(agents: list[Agent], hub_user: str, user_of: Any) -> dict[str, Any]:
    """The broker's accounts: the hub's, which alone has streams, and one for every active agent.

    An account of its own, because permissions do not judge the subject an answer is asked to: within one account an
    agent could have the broker itself write to another's subjects, or purge the stream. user_of: Agent -> its user.
    """
    exported = [{"service": name} for name in ("v1.ev.*.*", "v1.rp.*", "v1.ask.*", "v1.rn.*")]
    exported += [{"service": direct_get(bucket, "*")} for bucket in BUCKETS]
    exported += [{"stream": "v1.ok.*"}, *({"stream": value(bucket, "*")} for bucket in BUCKETS)]
    found: dict[str, Any] = {_HUB: {"jetstream": "enabled", "users": [{"user": hub_user}], "exports": exported}}
    for agent in agents:
        if agent.state is not AgentState.ACTIVE or not is_host_id(agent.host_id):
            continue
        spoken, heard = _spoken(agent.host_id), _heard(agent.host_id)
        found[f"AGENT-{agent.host_id}"] = {
            "users": [
                {
                    "user": user_of(agent),
                    "permissions": {"publish": spoken, "subscribe": [f"{inbox(agent.host_id)}.>", *heard]},
                }
            ],
            "imports": [
                *({"service": {"account": _HUB, "subject": name}} for name in spoken),
                *({"stream": {"account": _HUB, "subject": name}} for name in heard),
            ],
        }
    return found

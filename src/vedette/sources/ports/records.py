"""Drifts and ports that changed, as the records other people and rules see: one JSON object each, message first.
Counterpart: `watch` says when; `parsers.families` knows such records, `rules/packs/ports.yml` judges them."""

from __future__ import annotations

from typing import Any

from vedette.model.ports import Drift, Listener, Observation, PortState
from vedette.text.addresses import canonical
from vedette.text.times import rfc3339

DATASET = "vedette.ports"
DRIFTED, ENDED, OPENED, SHUT = "port-drifted", "port-drift-ended", "port-opened", "port-closed"

Record = dict[str, Any]
Key = tuple[str, str, str, int, str, str]
"""As `Drift.key`: kind, host, address, port, protocol, vantage."""


def drift_record(drift: Drift, now: int, since: int = 0) -> Record:
    """That policy and what is seen disagree. since: microseconds UTC when it was told first, if this is not that."""
    place = f"{drift.host} {where(drift)}".strip()
    lasting = {"vedette.ports.since": rfc3339(since)} if since else {}
    return _record(f"{place}: {drift.kind.value}: {drift.advice}", DRIFTED, now, {**drift_fields(drift), **lasting})


def ended_record(key: Key, level: str, since: int, now: int) -> Record:
    """That the drift of this `key` is over. level: the name of what it had; since: microseconds UTC."""
    kind, host, address, port, transport, vantage = key
    words = f"{host} {address}{f' {port}/{transport}' if port else ''}: {kind} is over"
    fields = {
        **_target(host, address, port, transport, vantage),
        "vedette.ports.kind": kind,
        "vedette.ports.level": level,
        "vedette.ports.since": rfc3339(since),
    }
    return _record(words, ENDED, now, fields)


def change_record(seen: Observation, before: PortState, now: int) -> Record:
    """That a port opened, or that one that was open is not any more."""
    action = OPENED if seen.state is PortState.OPEN else SHUT
    words = (
        f"{seen.host} {seen.address} {seen.port}/{seen.protocol.value} from {seen.vantage}: "
        f"{seen.state.value}, was {before.value}"
    )
    fields = {
        **_target(seen.host, seen.address, seen.port, seen.protocol.value, seen.vantage),
        "vedette.ports.state": seen.state.value,
        "vedette.ports.before": before.value,
        "vedette.ports.why": seen.why.value,
    }
    return _record(words, action, now, fields)


def where(drift: Drift) -> str:
    """Address, port and vantage of a drift, for people."""
    port = f" {drift.port}/{drift.protocol.value}" if drift.port else ""
    return f"{drift.address}{port}" + (f" from {drift.vantage}" if drift.vantage else "")


def drift_fields(drift: Drift) -> Record:
    """What is known of a drift, by field name; null where there is nothing."""
    opening, listener = drift.opening, drift.listener
    fields: Record = {
        **_target(drift.host, drift.address, drift.port, drift.protocol.value, drift.vantage),
        "vedette.ports.kind": drift.kind.value,
        "vedette.ports.level": drift.level.label,
        "vedette.ports.expected": drift.expected.value if drift.expected else None,
        "vedette.ports.seen": drift.seen.value,
        "vedette.ports.why": drift.why.value,
        "vedette.ports.advice": drift.advice,
        "vedette.ports.owner": opening.owner if opening else None,
        "vedette.ports.reason": opening.reason if opening else None,
        "vedette.ports.origin": str(opening.origin) if opening else None,
    }
    return fields if listener is None else fields | listener_fields(listener)


def listener_fields(listener: Listener) -> Record:
    """Who listens, and what the host's own firewall does with others; null where that is not known."""
    return {
        "process.name": listener.process or None,
        "process.pid": listener.pid or None,
        "user.name": listener.user or None,
        "service.name": listener.unit or None,
        "package.name": listener.package or None,
        "process.start": rfc3339(listener.since) if listener.since else None,
        "vedette.ports.namespace": listener.namespace or None,
        "vedette.ports.firewall": listener.firewall.value,
        "vedette.ports.firewall_rule": listener.firewall_rule or None,
    }


def _target(host: str, address: str, port: int, transport: str, vantage: str) -> Record:
    return {
        "host.name": host,
        "destination.address": address,
        "destination.ip": canonical(address),
        "destination.port": port,
        "network.transport": transport,
        "vedette.ports.vantage": vantage,
    }


def _record(message: str, action: str, now: int, fields: Record) -> Record:
    event = {"kind": "state", "category": ["network"], "action": action, "dataset": DATASET}
    record: Record = {"message": message, "@timestamp": rfc3339(now), "event": event}
    for name, value in fields.items():
        if value is None:
            continue
        *path, last = name.split(".")
        inner = record
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return record

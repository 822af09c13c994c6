"""An agent's findings as records of a stream: stored, proven and searched like any log line, and alerts on the hub.
Counterpart: `app.agent` puts them on the shelf before they are committed; `app.hub` takes them from the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b

import msgspec
import numpy as np
import orjson

from vedette.model.batch import Batch, Origin, RecordFormat, Trust, lines_of
from vedette.model.clock import LATEST
from vedette.model.findings import EVIDENCE_LIMIT, Finding
from vedette.model.protocols import Counter
from vedette.model.rules import Rule, Scope
from vedette.text.times import rfc3339

STREAM = "findings"
_BODY = "vedette.finding"
MOST_BYTES = 256 << 10
"""Of a finding of somebody else: many more than a hundred records of evidence and a sample need."""


class Refused(StrEnum):
    """Why a record of this stream became no finding here."""

    UNREADABLE = "unreadable"
    OF_ANOTHER_HOST = "of-another-host"
    """An agent speaks of its own host and of no other."""
    OF_THE_HUB = "of-the-hub"
    """Rules of scope fleet: the hub alone judges them, and their alerts are of many hosts."""
    NUMBER = "number"
    TOO_LARGE = "too-large"


class FindingsStream:
    """Makes the batches of one host's findings. Said again after a crash, a finding has the same id."""

    def __init__(self, host_id: str, began: int) -> None:
        """began: when this process did, microseconds; positions count from there."""
        self._origin = Origin(host_id, STREAM, str(began))
        self._number = 0
        self._position = 0

    def batch(self, findings: Sequence[Finding], now: int) -> Batch:
        """These findings as one batch, a JSON object each, in the names that they are searched by."""
        block, starts, ends = lines_of([_record(finding) for finding in findings])
        first, self._position = self._position, self._position + len(findings)
        number, self._number = self._number, self._number + 1
        return Batch(
            origin=self._origin,
            number=number,
            block=block,
            starts=starts,
            ends=ends,
            positions=np.arange(first, first + len(findings), dtype=np.int64),
            read_at=now,
            format=RecordFormat.JSON,
            trust=Trust.ATTESTED,
        )


def _record(finding: Finding) -> bytes:
    fields = {
        "message": f"{finding.rule_name or finding.rule_id}: {finding.sample}",
        "@timestamp": rfc3339(finding.time),
        "event.kind": "alert",
        "event.action": "finding-made",
        "rule.id": finding.rule_id,
        "rule.name": finding.rule_name,
        "log.level": finding.level.name.lower(),
        "host.id": finding.host_id,
        "host.name": finding.host_name,
        "source.ip": finding.source_ip,
        "user.name": finding.user_name,
        "vedette.finding.id": finding.id,
        "vedette.finding.count": finding.count,
        _BODY: msgspec.json.encode(finding).decode(),
    }
    return orjson.dumps({name: value for name, value in fields.items() if value != ""})


def findings_of(batch: Batch, counter: Counter, rules: Mapping[str, Rule]) -> list[Finding]:
    """The findings in a batch of this stream; what cannot be one is counted, by reason, and left out.

    rules: those of here, for what an agent may not speak of.
    """
    found = []
    for row in range(len(batch)):
        try:
            finding = msgspec.json.decode(orjson.loads(batch.raw(row))[_BODY], type=Finding)
            msgspec.json.encode(finding)  # not with half a surrogate pair in it
        except (ValueError, KeyError, TypeError):  # msgspec's errors are ValueErrors
            counter.add("findings_refused", Refused.UNREADABLE)
            continue
        reason = _refusal(finding, batch.origin.host_id, rules)
        if reason is not None:
            counter.add("findings_refused", reason)
            continue
        found.append(msgspec.structs.replace(finding, id=told_id(finding.host_id, finding.id)))
    return found


def told_id(host_id: str, finding_id: str) -> str:
    """What a finding of an agent is called at the hub: its id says which records made it, not on which host they lay.

    So two hosts with the same line of the same moment are two findings here, and each keeps its own id there.
    """
    return blake2b(f"{host_id} {finding_id}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _refusal(finding: Finding, host_id: str, rules: Mapping[str, Rule]) -> Refused | None:
    if finding.host_id != host_id or finding.key.get("host.id", host_id) != host_id:
        return Refused.OF_ANOTHER_HOST
    for rule_id in (finding.rule_id, finding.clears):
        rule = rules.get(rule_id)
        if rule is not None and rule.scope is Scope.FLEET:
            return Refused.OF_THE_HUB
    times = [finding.time, finding.created, *(one.time for one in finding.records)]
    numbers = [finding.count, *(one.line for one in finding.records)]
    numbers += [abs(value) for value in finding.key.values() if isinstance(value, int)]
    if not all(0 <= time <= LATEST for time in times) or not all(0 <= number < 1 << 63 for number in numbers):
        return Refused.NUMBER
    if len(finding.records) > EVIDENCE_LIMIT or len(msgspec.json.encode(finding)) > MOST_BYTES:
        return Refused.TOO_LARGE
    return None

"""A rule fired: immutable, with its evidence and whom it may blame.
Counterpart: `detections` make findings, `alerts` and `respond` act on them, `cli` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from vedette.model.batch import Trust
from vedette.model.events import Scalar
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason

EVIDENCE_LIMIT = 100


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """One record a finding rests on: `record_id` as `Origin.record_id` gives it; file and line for replay."""

    record_id: str
    time: int
    file: str = ""
    line: int = 0


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A rule fired for `key` at `time` (of the record that made it fire).

    count: events in the window, repeats added. records: the first EVIDENCE_LIMIT of them, in window order.
    source_ip, user_name, host_name: of the firing record, "" where absent. blame: whether `source_ip` (or
    the key's address) may be blocked for it. trust: the lowest among the records the threshold needed.
    inexact: state of this key had been evicted before. sample: the firing record, escaped and shortened.
    clears: the rule whose condition alert with the same key this one resolves.

    A struct and no dataclass: there may be as many findings as records, and a frozen dataclass costs several times
    as much to make. `msgspec.structs.replace` changes one.
    """

    id: str
    rule_id: str
    rule_name: str
    level: Level
    time: int
    key: dict[str, Scalar]
    host_id: str
    host_name: str
    source_ip: str
    user_name: str
    count: int
    records: tuple[Evidence, ...]
    blame: BlameReason = BlameReason.NO_ADDRESS
    trust: Trust = Trust.NETWORK
    sample: str = ""
    clears: str = ""
    inexact: bool = False
    created: int = 0
    """`event.created` of the firing record."""
    bundle: int = 0
    """The number of the rules and policy it was found by; 0 = the host's own."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """More matches of a correlation that has already fired: they raise the alert's count, no finding is made."""

    rule_id: str
    key: dict[str, Scalar]
    count: int
    time: int
    host_id: str = ""


def finding_id(rule_id: str, key: dict[str, Scalar], time: int, raw: bytes, ordinal: int) -> str:
    """The id of design section 2: BLAKE2b-128 over rule, key, `@timestamp`, raw record's hash and ordinal.

    ordinal: 0 for the first record with these bytes in its source, 1 for the second, and so on.
    """
    return finding_id_by_hash(rule_id, key, time, raw_hash(raw), ordinal)


def raw_hash(raw: bytes) -> str:
    """The hash of a raw record that ids of findings are made of."""
    return blake2b(raw, digest_size=16).hexdigest()


_encoded = msgspec.json.Encoder().encode


def finding_id_by_hash(rule_id: str, key: dict[str, Scalar], time: int, raw: str, ordinal: int) -> str:
    """`finding_id` where only the hash of the record is at hand (`raw_hash`)."""
    named = sorted(key.items()) if len(key) > 1 else list(key.items())
    return blake2b(_encoded([rule_id, named, time, raw, ordinal]), digest_size=16).hexdigest()


def key_text(key: dict[str, Scalar]) -> str:
    """A key as one canonical string: JSON of its sorted pairs."""
    return msgspec.json.encode(sorted(key.items())).decode()

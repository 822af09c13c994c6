"""What a look at the ledger can find, each named; whether it is well, wrong, or cannot be told.
Counterpart: `verify`, `audit` and `witness` give them; the face makes exit codes of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What was found of a leaf, a record or the log."""

    INTACT = "intact"
    ERASED = "erased"
    """Gone lawfully: a tombstone of the log says who, why and when."""
    GAP = "gap"
    """Never came, and the log says so since then."""

    RECORD_CHANGED = "record-changed"
    RECORD_REMOVED = "record-removed"
    RECORD_ADDED = "record-added"
    BATCH_REMOVED = "batch-removed"
    """The log has it, its records are gone, and no tombstone speaks of it."""
    BATCH_UNKNOWN = "batch-unknown"
    """Records of which the log knows nothing."""
    LEAF_CHANGED = "leaf-changed"
    LEAF_REMOVED = "leaf-removed"
    TAIL_CUT = "tail-cut"
    """There were more leaves once: somebody holds a signed checkpoint of them."""
    HISTORY_REPLACED = "history-replaced"
    """What was signed earlier is not the beginning of what is shown now."""
    TWO_HISTORIES = "two-histories"
    """Two signed checkpoints that cannot both be of one log."""
    NEVER_LOGGED = "never-logged"
    """A number of a stream is missing between others, and the log does not say why."""
    SIGNATURE_WRONG = "signature-wrong"
    TOO_FEW_COSIGNATURES = "too-few-cosignatures"
    PROOF_WRONG = "proof-wrong"

    PROOF_MISSING = "proof-missing"
    """Nothing here shows whether it goes on from the trusted checkpoint."""
    UNREADABLE = "unreadable"


WELL = frozenset({Verdict.INTACT, Verdict.ERASED, Verdict.GAP})
UNTOLD = frozenset({Verdict.PROOF_MISSING, Verdict.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing found. leaf, record: -1 where it is of no single one; stream: "" likewise."""

    verdict: Verdict
    text: str
    leaf: int = -1
    record: int = -1
    host_id: str = ""
    stream: str = ""
    number: int = 0

"""A witness holds the last checkpoint it saw, cosigns only what goes on from it, and finds two histories.
Counterpart: every agent is one; the hub keeps the cosignatures (`Ledger.cosigned`), `verify` counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vedette.store.ledger.notes import Checkpoint, Signer, VerifierKey
from vedette.store.ledger.tree import consistency_holds
from vedette.store.ledger.verdicts import Verdict


class RefusalToCosignError(Exception):
    """The log showed something that cannot follow what the witness saw before; `verdict` says what it means."""

    def __init__(self, verdict: Verdict, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def follows(old: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes], log: VerifierKey) -> Verdict:
    """INTACT where `new`, signed by the log, goes on from `old`; else what is wrong."""
    if new.origin != log.name or not new.note.signed_by(log):
        return Verdict.SIGNATURE_WRONG
    if old is None:
        return Verdict.INTACT
    if old.origin != new.origin:
        return Verdict.SIGNATURE_WRONG
    if new.size < old.size:
        return Verdict.TAIL_CUT
    if new.size == old.size:
        return Verdict.INTACT if new.root == old.root else Verdict.TWO_HISTORIES
    if consistency_holds(old.size, new.size, old.root, new.root, proof):
        return Verdict.INTACT
    return Verdict.HISTORY_REPLACED


def cosign(
    old: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes], key: Signer, *, log: VerifierKey, at: int
) -> str:
    """The cosignature/v1 line for `new`; RefusalToCosignError where it does not go on from `old`.

    old: the last one this witness saw, None at first (trust on first use). key: the witness's own. at: Unix time in
    seconds. The caller keeps `new` on the disk before the line leaves the host (C2SP tlog-witness).
    """
    verdict = follows(old, new, proof, log)
    if verdict is not Verdict.INTACT:
        before = "nothing" if old is None else f"{old.size} leaves"
        raise RefusalToCosignError(verdict, f"{verdict.value}: {new.origin} shows {new.size} leaves after {before}")
    return key.cosignature(new.note.text, at)


@dataclass(frozen=True, slots=True)
class Fork:
    """Two signed checkpoints that cannot both be of one log; `first` and `second` name who was shown which."""

    first: str
    second: str
    shown_first: Checkpoint
    shown_second: Checkpoint
    verdict: Verdict = Verdict.TWO_HISTORIES


def find_fork(
    seen: Mapping[str, Checkpoint], prove: Callable[[int, int], Sequence[bytes]], log: VerifierKey
) -> Fork | None:
    """Whether agents were shown two histories. seen: agent -> its last checkpoint; None where all are of one log.

    prove: asks the log for the consistency proof (old, new); a log that cannot give one has two histories. Checkpoints
    the log did not sign prove nothing against it and are passed over.
    """
    signed = [(checkpoint.size, who, checkpoint) for who, checkpoint in seen.items() if checkpoint.note.signed_by(log)]
    signed.sort(key=lambda one: one[:2])
    for (_, first, old), (_, second, new) in pairwise(signed):
        proof = prove(old.size, new.size) if old.size < new.size else []
        if not consistency_holds(old.size, new.size, old.root, new.root, proof):
            return Fork(first, second, old, new)
    return None

"""A witness holds the last checkpoint it saw, cosigns only what goes on from it, and finds two histories.
Counterpart: every agent is one; the hub keeps the cosignatures (`Ledger.cosigned`), `verify` counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vedette.model.errors import StateError
from vedette.store.ledger.keys import signing_key
from vedette.store.ledger.notes import COSIGNATURE, Checkpoint, Signer, VerifierKey
from vedette.store.ledger.tree import consistency_holds
from vedette.store.ledger.verdicts import Verdict
from vedette.system.files import write_atomic

WITNESS_KEY = "witness.key"
WITNESS_SEEN = "witness.checkpoint"


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


class Witness:
    """One agent as a witness: remembers on the disk what it saw last of the log, so that a restart forgets nothing.

    folder: of the agent's data; name: the witness's. StateError where key or memory cannot be read or written. From
    one thread.
    """

    def __init__(self, folder: Path, name: str, log: VerifierKey) -> None:
        self._signer = signing_key(folder / WITNESS_KEY, name, algorithm=COSIGNATURE)
        self._path = folder / WITNESS_SEEN
        self._log = log
        self.key = self._signer.verifier
        self.last: Checkpoint | None = None
        try:
            self.last = Checkpoint.parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass  # the first checkpoint is believed
        except (OSError, ValueError) as error:
            raise StateError(
                f"what this witness saw last, {self._path}: {error}",
                hint="get a checkpoint from elsewhere into it: without it the log could show another history",
            ) from None

    def cosign(self, new: Checkpoint, proof: Sequence[bytes], at: int) -> str:
        """The cosignature of `new`, which is remembered before; RefusalToCosignError as `cosign`. at: seconds."""
        line = cosign(self.last, new, proof, self._signer, log=self._log, at=at)
        try:
            write_atomic(self._path, str(new).encode(), follow=False)
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror}") from error
        self.last = new
        return line


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

"""What stands in the ledger, byte for byte: a batch, a loss that was stated, a tombstone.
Counterpart: `store.ledger.ledger` appends them, `verify` reads them back."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vedette.model.shipping import BatchKey
from vedette.store.ledger.notes import Note, NoteError, Signer
from vedette.store.ledger.tree import HASH_SIZE

BATCH = "vedette-ledger-batch/1"
GAP = "vedette-ledger-gap/1"
TOMBSTONE = "vedette-ledger-tombstone/1"
ERASURE = "vedette-ledger-erasure/1"
MOST_RECORDS = 1 << 31
"""In one batch: the lake counts them in 32 bits."""


class LeafError(ValueError):
    """Bytes that are no leaf of a version we know."""


class ErasureKind(StrEnum):
    """On what ground records were erased."""

    RETENTION = "retention"
    """They had reached the age or size that is kept."""
    REQUEST = "request"
    """Somebody had the right to ask for it."""


@dataclass(frozen=True, slots=True, order=True)
class Batches:
    """The batches `first` to `last` of a stream."""

    host_id: str
    stream: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class BatchLeaf:
    """A batch was taken in. root: of its record tree; read_at: when the agent read it, microseconds."""

    host_id: str
    stream: str
    number: int
    records: int
    read_at: int
    root: bytes

    @property
    def key(self) -> BatchKey:
        """Which batch."""
        return BatchKey(self.host_id, self.stream, self.number)

    def encode(self) -> bytes:
        """The bytes that are hashed."""
        return _json(
            leaf=BATCH,
            host=self.host_id,
            stream=self.stream,
            number=self.number,
            records=self.records,
            read_at=self.read_at,
            root=b64encode(self.root).decode(),
        )


@dataclass(frozen=True, slots=True)
class GapLeaf:
    """It was said that these batches will never come. records: -1 where nobody counted; at: microseconds."""

    batches: Batches
    records: int
    reason: str
    at: int

    def encode(self) -> bytes:
        """The bytes that are hashed."""
        what = self.batches
        return _json(
            leaf=GAP,
            host=what.host_id,
            stream=what.stream,
            first=what.first,
            last=what.last,
            records=self.records,
            reason=self.reason,
            at=self.at,
        )


@dataclass(frozen=True, slots=True)
class Tombstone:
    """These batches were erased lawfully: by whom, why, when (microseconds)."""

    kind: ErasureKind
    who: str
    why: str
    at: int
    what: tuple[Batches, ...]

    def encode(self, signer: Signer) -> bytes:
        """The bytes that are hashed: a signed note, so that a tombstone can be shown alone."""
        what = [[one.host_id, one.stream, one.first, one.last] for one in self.what]
        body = _json(kind=self.kind.value, who=self.who, why=self.why, at=self.at, what=what)
        return signer.sign(f"{TOMBSTONE}\n{body.decode()}\n").encode()


@dataclass(frozen=True, slots=True)
class Part:
    """A batch of which single records were erased.

    records: all that are gone by now, as runs (first, last) of their numbers in the batch. count: how many of them
    went this time. root: of the tree over what stays.
    """

    key: BatchKey
    records: tuple[tuple[int, int], ...]
    count: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Erasure:
    """Single records were erased lawfully because somebody asked: by whom, why, when (microseconds)."""

    who: str
    why: str
    at: int
    what: tuple[Part, ...]

    def encode(self, signer: Signer) -> bytes:
        """The bytes that are hashed: a signed note, as a tombstone is."""
        what = [
            [*_key(one.key), [list(run) for run in one.records], one.count, b64encode(one.root).decode()]
            for one in self.what
        ]
        body = _json(kind=ErasureKind.REQUEST.value, who=self.who, why=self.why, at=self.at, what=what)
        return signer.sign(f"{ERASURE}\n{body.decode()}\n").encode()


Leaf = BatchLeaf | GapLeaf | Tombstone | Erasure


def _key(key: BatchKey) -> tuple[str, str, int]:
    return key.host_id, key.stream, key.number


def _json(**values: Any) -> bytes:
    # ASCII: a note must hold no control characters, and what is hashed must not depend on a reader's alphabet.
    return json.dumps(values, separators=(",", ":"), ensure_ascii=True).encode()


def parse_leaf(data: bytes) -> Leaf:
    """LeafError where the bytes are no leaf; a tombstone's signature is looked at by `tombstone_note`."""
    try:
        if data.startswith(TOMBSTONE.encode()):
            body = tombstone_note(data).text.split("\n")[1]
            return _tombstone(json.loads(body))
        if data.startswith(ERASURE.encode()):
            body = tombstone_note(data).text.split("\n")[1]
            return _erasure(json.loads(body))
        values = json.loads(data)
        if not isinstance(values, dict):
            raise LeafError("a leaf is an object")
        if values.get("leaf") == BATCH:
            root = b64decode(_text(values, "root"), validate=True)
            if len(root) != HASH_SIZE:
                raise LeafError("a root has 32 bytes")
            number, records, read_at = (_count(values, name) for name in ("number", "records", "read_at"))
            return BatchLeaf(_text(values, "host"), _text(values, "stream"), number, records, read_at, root)
        if values.get("leaf") == GAP:
            span = _batches([values.get(name) for name in ("host", "stream", "first", "last")])
            return GapLeaf(span, _count(values, "records"), _text(values, "reason"), _count(values, "at"))
    except LeafError:
        raise
    except (ValueError, IndexError, RecursionError) as error:
        raise LeafError(f"no leaf: {error}") from None
    raise LeafError("a leaf of a kind or version that is not known here")


def tombstone_note(data: bytes) -> Note:
    """The signed note a tombstone is; LeafError where it is none."""
    try:
        return Note.parse(data.decode())
    except (NoteError, UnicodeDecodeError) as error:
        raise LeafError(f"no tombstone: {error}") from None


def _tombstone(values: Any) -> Tombstone:
    if not isinstance(values, dict) or not isinstance(values.get("what"), list):
        raise LeafError("a tombstone names what it stands for")
    what = tuple(_batches(one) for one in values["what"])
    kind = ErasureKind(_text(values, "kind"))
    return Tombstone(kind, _text(values, "who"), _text(values, "why"), _count(values, "at"), what)


def _erasure(values: Any) -> Erasure:
    if not isinstance(values, dict) or not isinstance(values.get("what"), list):
        raise LeafError("an erasure names what it stands for")
    what = tuple(_part(one) for one in values["what"])
    return Erasure(_text(values, "who"), _text(values, "why"), _count(values, "at"), what)


def _part(values: object) -> Part:
    if isinstance(values, list) and len(values) == 6:
        host, stream, number, runs, count, root = values
        if (
            isinstance(host, str)
            and isinstance(stream, str)
            and type(number) is int
            and isinstance(runs, list)
            and type(count) is int
            and isinstance(root, str)
        ):
            hashed = b64decode(root, validate=True)
            if len(hashed) != HASH_SIZE:
                raise LeafError("a root has 32 bytes")
            return Part(BatchKey(host, stream, number), _runs(runs), count, hashed)
    raise LeafError("an erasure's batch is named by host, stream, number, records, their count, and a root")


def _runs(values: list[object]) -> tuple[tuple[int, int], ...]:
    """Runs that rise; what is read back from them must not be larger than a batch can be."""
    found: list[tuple[int, int]] = []
    for one in values:
        if not (isinstance(one, list) and len(one) == 2 and type(one[0]) is int and type(one[1]) is int):
            raise LeafError("records are named by runs of their numbers")
        first, last = one
        if not (found[-1][1] if found else -1) < first <= last < MOST_RECORDS:
            raise LeafError("runs of records rise")
        found.append((first, last))
    return tuple(found)


def _batches(values: object) -> Batches:
    if isinstance(values, list) and len(values) == 4:
        host, stream, first, last = values
        if isinstance(host, str) and isinstance(stream, str) and type(first) is int and type(last) is int:
            return Batches(host, stream, first, last)
    raise LeafError("batches are named by host, stream, first and last")


def _text(values: Mapping[str, Any], name: str) -> str:
    if not isinstance(found := values.get(name), str):
        raise LeafError(f"`{name}` is no text")
    return found


def _count(values: Mapping[str, Any], name: str) -> int:
    if type(found := values.get(name)) is not int:
        raise LeafError(f"`{name}` is no whole number")
    return found


def spans_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as runs (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs

"""Verifies an exported ledger with a trusted key or an earlier checkpoint, without lake, state or network.
Counterpart: `export` wrote it, and anybody may have had it in hand since; nothing of it is believed unproven."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedette.store.ledger.erasures import Erasures, Rest
from vedette.store.ledger.leaves import BatchLeaf, Erasure, LeafError, Tombstone, parse_leaf, spans_of
from vedette.store.ledger.notes import Checkpoint, VerifierKey, checkpoints_in
from vedette.store.ledger.redacted import Kept, compare_rest, numbers_of
from vedette.store.ledger.salted import Tampering, compare, record_hash
from vedette.store.ledger.tree import HASH_SIZE, consistency_holds, inclusion_holds, leaf_hash, root_of, roots_at
from vedette.store.ledger.verdicts import UNTOLD, WELL, Statement, Verdict

EXPORT = "vedette-ledger-export/1"
PROOF = "vedette-ledger-proof/1"

_RECORD = {
    Tampering.CHANGED: (Verdict.RECORD_CHANGED, "is not as it was logged"),
    Tampering.REMOVED: (Verdict.RECORD_REMOVED, "was removed"),
    Tampering.ADDED: (Verdict.RECORD_ADDED, "was added"),
}


class ExportError(ValueError):
    """A folder or file that is no export, or whose parts cannot be read."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """What the verifier knows from elsewhere: the key, earlier checkpoints, witnesses of whom `need` must sign."""

    key: VerifierKey | None = None
    checkpoints: Sequence[Checkpoint] = ()
    witnesses: Sequence[VerifierKey] = ()
    need: int = 0
    complete: bool = False
    """Every leaf and every batch's records must be here, whatever the export says of itself."""


@dataclass(slots=True)
class Result:
    """What was found; `counts` of what is well, `statements` of everything else and of each tombstone."""

    origin: str = ""
    size: int = 0
    leaves: int = 0
    records: int = 0
    cosigned: int = 0
    without_records: int = 0
    statements: list[Statement] = field(default_factory=list)

    @property
    def verdicts(self) -> set[Verdict]:
        """Every kind of thing found; INTACT where nothing is wrong."""
        found = {one.verdict for one in self.statements}
        return found if found - WELL else found | {Verdict.INTACT}

    @property
    def wrong(self) -> bool:
        """Whether something was tampered with."""
        return bool(self.verdicts - WELL - UNTOLD)

    @property
    def untold(self) -> bool:
        """Whether something could not be told."""
        return bool(self.verdicts & UNTOLD)

    def say(self, verdict: Verdict, text: str, **where: Any) -> None:
        """Note a thing found."""
        self.statements.append(Statement(verdict, text, **where))


@dataclass(slots=True)
class _Export:
    """The parts of an export, from a folder or one object."""

    key: VerifierKey
    checkpoint: Checkpoint
    whole: bool
    records: str
    folder: Path | None
    parts: dict[str, Any]
    earlier: Sequence[Checkpoint]
    hashes: bytes

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        if self.folder is None:
            found = self.parts.get(name, [])
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise ExportError(f"`{name}` is no list of objects")
            yield from found
            return
        if not (self.folder / f"{name}.jsonl").exists():
            return
        with (self.folder / f"{name}.jsonl").open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    raise ExportError(f"{name}.jsonl:{number}: no JSON") from None
                if not isinstance(values, dict):
                    raise ExportError(f"{name}.jsonl:{number}: no object")
                yield values


def _open(where: Path) -> _Export:
    try:
        if where.is_dir():
            about = json.loads((where / "ledger.json").read_bytes())
            written = (where / "checkpoint").read_text()
            earlier = checkpoints_in((where / "earlier").read_text()) if (where / "earlier").exists() else ()
            hashes = (where / "hashes").read_bytes() if (where / "hashes").exists() else b""
            expected, folder = EXPORT, where
        else:
            about = json.loads(where.read_bytes())
            written, earlier, hashes = about.get("checkpoint", ""), (), b""
            expected, folder = PROOF, None
        if not isinstance(about, dict) or about.get("format") != expected:
            raise ExportError(f"{where}: no {expected}")
        key, checkpoint = VerifierKey.parse(about["key"]), Checkpoint.parse(written)
        whole = about.get("leaves") == "all"
        return _Export(key, checkpoint, whole, str(about.get("records")), folder, about, earlier, hashes)
    except OSError as error:
        raise ExportError(f"{error.filename}: {error.strerror}") from None
    except ExportError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{where}: {error}") from None


def verify(where: Path, trusted: Trusted) -> Result:
    """Everything that can be told of the export at `where` (a folder, or a file of `prove`).

    Never raises for what the export holds: what cannot be read is the verdict UNREADABLE. ValueError where nothing
    is trusted: an export vouches for itself in everything.
    """
    if trusted.key is None and not trusted.checkpoints:
        raise ValueError("nothing to hold it to: a trusted key or an earlier checkpoint is needed")
    result = Result()
    try:
        export = _open(where)
        result.origin, result.size = export.checkpoint.origin, export.checkpoint.size
        if _signed(export, trusted, result):
            if trusted.complete and not export.whole:
                result.say(Verdict.LEAF_REMOVED, "only a part of the leaves is here, and all were asked for")
            leaves = _leaves(export, result)
            _history(export, trusted, leaves, result)
            _records(export, leaves, trusted, result)
    except (ExportError, OSError) as error:
        result.say(Verdict.UNREADABLE, str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Whatever else hostile JSON can be: a wrong type where another was written.
        result.say(Verdict.UNREADABLE, f"{where}: {type(error).__name__}: {error}")
    return result


def _signed(export: _Export, trusted: Trusted, result: Result) -> bool:
    key = trusted.key
    if key is None:
        # An earlier checkpoint was signed by the key: who trusts the one may believe the other.
        if not all(one.note.signed_by(export.key) for one in trusted.checkpoints):
            result.say(Verdict.SIGNATURE_WRONG, f"key {export.key.name} did not sign the trusted checkpoint")
            return False
        key = export.key
    checkpoint = export.checkpoint
    if not checkpoint.note.signed_by(key) or checkpoint.origin != key.name:
        result.say(Verdict.SIGNATURE_WRONG, f"the checkpoint of {checkpoint.size} leaves is not signed by {key.name}")
        return False
    export.key = key
    result.cosigned = len(checkpoint.witnesses(trusted.witnesses))
    if result.cosigned < trusted.need:
        text = f"{result.cosigned} of the witnesses cosigned it, {trusted.need} are needed"
        result.say(Verdict.TOO_FEW_COSIGNATURES, text)
    return True


# -------------------------------------------------------------------------------------------------- the log itself


def _leaves(export: _Export, result: Result) -> dict[int, bytes]:
    """The leaves that are proven by the checkpoint."""
    found: dict[int, bytes] = {}
    paths: dict[int, list[bytes]] = {}
    for values in export.lines("leaves"):
        index = _whole_number(values, "index")
        found[index] = b64decode(values["leaf"], validate=True)
        if not export.whole:
            paths[index] = _hashes(values)
    if export.whole:
        return _whole_log(export, found, result)
    size, root = export.checkpoint.size, export.checkpoint.root
    for index in sorted(found):
        if not inclusion_holds(leaf_hash(found[index]), index, size, paths[index], root):
            result.say(Verdict.PROOF_WRONG, f"leaf {index} is not proven: it or its proof was changed", leaf=index)
            del found[index]
    result.leaves = len(found)
    return found


def _whole_log(export: _Export, found: dict[int, bytes], result: Result) -> dict[int, bytes]:
    size, root = export.checkpoint.size, export.checkpoint.root
    hashes = [export.hashes[at : at + HASH_SIZE] for at in range(0, len(export.hashes), HASH_SIZE)]
    if len(found) == size and all(index in found for index in range(size)):
        made = [leaf_hash(found[index]) for index in range(size)]
        if root_of(made) == root:
            result.leaves = size
            return found
    # The list of hashes proves itself by the root; it then tells which leaf is wrong.
    if len(hashes) == size and root_of(hashes) == root:
        wrong = [index for index in range(size) if index in found and leaf_hash(found[index]) != hashes[index]]
        for index in wrong:
            result.say(Verdict.LEAF_CHANGED, f"leaf {index} is not what was signed", leaf=index)
            del found[index]
        known = set(wrong)
    else:
        known = set()
        if len(found) >= size:
            result.say(Verdict.LEAF_CHANGED, "the leaves do not give the signed root; which of them cannot be told")
            found.clear()
            return found
    missing = [index for index in range(size) if index not in found and index not in known]
    last = size - 1
    for first, end in spans_of(missing):
        verdict = Verdict.TAIL_CUT if end == last else Verdict.LEAF_REMOVED
        result.say(verdict, f"leaves {first} to {end} of {size} are gone", leaf=first)
    for index in [index for index in found if index >= size]:
        del found[index]
    result.leaves = len(found)
    return found


def _history(export: _Export, trusted: Trusted, leaves: dict[int, bytes], result: Result) -> None:
    """Hold the log to every checkpoint that is known from elsewhere, or that came along."""
    now = export.checkpoint
    earlier = [(one, True) for one in trusted.checkpoints] + [(one, False) for one in export.earlier]
    proofs = {
        (_whole_number(values, "old"), _whole_number(values, "new")): _hashes(values)
        for values in export.lines("consistency")
    }
    roots: dict[int, bytes] | None = None
    if _complete(export, leaves):
        hashes = (leaf_hash(leaves[index]) for index in range(len(leaves)))
        roots = roots_at(hashes, {one.size for one, _ in earlier})
    last_good = 0
    for one, known in sorted(earlier, key=lambda pair: (pair[0].size, not pair[1])):
        if not one.note.signed_by(export.key) or one.origin != now.origin:
            whose = "a trusted checkpoint" if known else "a checkpoint that came along"
            result.say(Verdict.SIGNATURE_WRONG, f"{whose} ({one.size} leaves) is not signed by {export.key.name}")
        elif one.size > now.size:
            text = f"{one.size} leaves were signed, {now.size} are shown: {one.size - now.size} are cut off"
            result.say(Verdict.TAIL_CUT, text, leaf=now.size)
        elif one.size == now.size:
            if one.root != now.root:
                result.say(Verdict.TWO_HISTORIES, f"two roots were signed for {one.size} leaves")
        elif roots is not None or (one.size, now.size) in proofs:
            if roots is not None:
                holds = roots[one.size] == one.root
            else:
                holds = consistency_holds(one.size, now.size, one.root, now.root, proofs[one.size, now.size])
            if holds:
                last_good = one.size
            else:
                text = f"what was signed of the first {one.size} leaves is not what is shown; they held to {last_good}"
                result.say(Verdict.HISTORY_REPLACED, text, leaf=last_good)
        elif known and one.size:
            text = f"nothing here shows whether it goes on from the checkpoint of {one.size} leaves"
            result.say(Verdict.PROOF_MISSING, text)


def _complete(export: _Export, leaves: dict[int, bytes]) -> bool:
    return export.whole and len(leaves) == export.checkpoint.size


# -------------------------------------------------------------------------------------------------- what was logged


def _records(export: _Export, leaves: dict[int, bytes], trusted: Trusted, result: Result) -> None:
    batches, erased = _read_leaves(export, leaves, result)
    here: Counter[int] = Counter()
    for values in export.lines("batches"):
        index = _whole_number(values, "leaf")
        here[index] += 1
        if index not in batches:
            if index not in leaves:
                result.say(Verdict.BATCH_UNKNOWN, f"records of leaf {index}, which is not proven", leaf=index)
            continue
        _batch(batches[index], index, erased.rests.get(index), values, result)
    for values in export.lines("records"):
        index = _whole_number(values, "leaf")
        here[index] += 1
        if index in batches:
            _record(batches[index], index, values, result)
        else:
            result.say(Verdict.BATCH_UNKNOWN, f"a record of leaf {index}, which is not proven", leaf=index)
    for index, leaf in batches.items():
        if here[index] or index in erased.gone:
            continue
        if trusted.complete or export.records == "all":
            text = f"the {leaf.records} records of batch {leaf.number} of {leaf.stream} are gone without a tombstone"
            result.say(Verdict.BATCH_REMOVED, text, **_where(index, leaf))
        else:
            result.without_records += 1


def _where(index: int, leaf: BatchLeaf) -> dict[str, Any]:
    return {"leaf": index, "host_id": leaf.host_id, "stream": leaf.stream, "number": leaf.number}


def _read_leaves(export: _Export, leaves: dict[int, bytes], result: Result) -> tuple[dict[int, BatchLeaf], Erasures]:
    """Batches by leaf, and what was erased of them; says tombstones, gaps, and numbers left out."""
    batches: dict[int, BatchLeaf] = {}
    streams: dict[tuple[str, str], dict[int, int]] = {}
    stated: dict[tuple[str, str], list[tuple[int, int]]] = {}
    erased = Erasures()
    for index in sorted(leaves):
        try:
            leaf = parse_leaf(leaves[index])
            if isinstance(leaf, BatchLeaf):
                batches[index] = leaf
                streams.setdefault((leaf.host_id, leaf.stream), {})[leaf.number] = index
                erased.batch(index, leaf)
            elif isinstance(leaf, Tombstone):
                erased.tombstone(index, leaves[index], leaf, export.key, result.say)
            elif isinstance(leaf, Erasure):
                erased.erasure(index, leaves[index], leaf, export.key)
            else:
                what = leaf.batches
                stated.setdefault((what.host_id, what.stream), []).append((what.first, what.last))
                text = f"batches {what.first} to {what.last} of {what.stream} never came: {leaf.reason}"
                where = {"host_id": what.host_id, "stream": what.stream, "number": what.first}
                result.say(Verdict.GAP, text, leaf=index, **where)
        except LeafError as error:
            result.say(Verdict.UNREADABLE, f"leaf {index}: {error}", leaf=index)
    erased.say(result.say)
    if _complete(export, leaves):
        for (host_id, stream), known in streams.items():
            _left_out(host_id, stream, known, stated.get((host_id, stream), []), result)
    return batches, erased


def _left_out(host_id: str, stream: str, known: dict[int, int], stated: list[tuple[int, int]], result: Result) -> None:
    expected = 1
    spans = sorted([(number, number) for number in known] + stated)
    for first, last in spans:
        if first > expected:
            text = f"batches {expected} to {first - 1} of {stream} are in no leaf"
            result.say(Verdict.NEVER_LOGGED, text, host_id=host_id, stream=stream, number=expected)
        expected = max(expected, last + 1)


def _batch(leaf: BatchLeaf, index: int, rest: Rest | None, values: dict[str, Any], result: Result) -> None:
    raws = [b64decode(one, validate=True) for one in values["records"]]
    facts, joined = (b64decode(values[name], validate=True) for name in ("facts", "hashes"))
    hashes = [joined[at : at + HASH_SIZE] for at in range(0, len(joined), HASH_SIZE)]
    left = leaf.records
    if rest is None and "seed" not in values:
        text = f"records of batch {leaf.number} of {leaf.stream} were erased, and the log has no signed word of it"
        result.say(Verdict.BATCH_UNKNOWN, text, **_where(index, leaf))
        return
    if rest is None:
        found = compare(leaf.root, leaf.records, b64decode(values["seed"], validate=True), raws, facts, hashes)
    elif "kept" not in values:
        text = f"records that were erased of batch {leaf.number} of {leaf.stream} are here"
        result.say(Verdict.BATCH_UNKNOWN, text, **_where(index, leaf))
        return
    else:
        kept = Kept(*(b64decode(values["kept"][name], validate=True) for name in ("salts", "hashes", "seed")))
        left -= len(numbers_of(rest.erased))
        found = compare_rest(leaf.root, leaf.records, rest.erased, rest.root, kept, raws, facts, hashes)
    if found is None:
        result.records += len(raws)
        return
    verdict, words = _RECORD[found.kind]
    which = "a record"
    if found.record == leaf.records and found.kind is Tampering.CHANGED:
        which = "what is known of where and when it was read"
    elif found.record >= 0:
        which = f"record {found.record}"
    logged = f"{leaf.records} were logged" + ("" if rest is None else f", {left} of them were not erased")
    text = f"{which} of batch {leaf.number} of {leaf.stream} {words} ({len(raws)} are here, {logged})"
    result.say(verdict, text, record=found.record, **_where(index, leaf))


def _record(leaf: BatchLeaf, index: int, values: dict[str, Any], result: Result) -> None:
    record = _whole_number(values, "record")
    raw, salt = b64decode(values["raw"], validate=True), b64decode(values["salt"], validate=True)
    path = _hashes(values)
    if record < leaf.records and inclusion_holds(record_hash(salt, raw), record, leaf.records + 1, path, leaf.root):
        result.records += 1
        return
    text = f"record {record} of batch {leaf.number} of {leaf.stream} is not what was logged"
    result.say(Verdict.RECORD_CHANGED, text, record=record, **_where(index, leaf))


def _hashes(values: dict[str, Any]) -> list[bytes]:
    return [b64decode(one, validate=True) for one in values["path"]]


def _whole_number(values: dict[str, Any], name: str) -> int:
    if type(found := values[name]) is not int or found < 0:
        raise ExportError(f"`{name}` is no number of a leaf or record")
    return found

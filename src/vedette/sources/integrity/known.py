"""How things are known to be: the accepted baseline, and over it what was told since and waits to be accepted.
Counterpart: `source` looks, tells and settles here; `vedette integrity check|explain|accept` read and ask here."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from vedette.model.errors import StateError
from vedette.model.integrity import Change
from vedette.sources.integrity.baseline import Baseline, BaselineWriter, Check, Footer, Row, Run, Sign, in_runs
from vedette.sources.integrity.digest import Beside, Read, read_of
from vedette.sources.integrity.walk import is_within, joined, order
from vedette.system.files import write_atomic

NAME = "integrity"
"""Of the source, and of its folder in the data folder."""
BASELINE, TOLD = "baseline", "told"
_FORMAT, _VERSION = "vedette integrity told", 2
"""2: a signature may follow the first object."""


class Told(msgspec.Struct):
    """A path that is not as in the baseline. now: as it is, None = gone. settled: it needs nobody's acceptance.

    record: what was told of it, as other people see it.
    """

    path: bytes
    numbers: list[int] | None
    sha256: bytes
    beside: tuple[bytes, list[tuple[bytes, bytes]], bytes, bytes, str]
    settled: bool
    record: dict[str, Any]

    @property
    def now(self) -> Read | None:
        """How it is."""
        if self.numbers is None:
            return None
        target, xattrs, acl, capability, unread = self.beside
        numbers = tuple(self.numbers)
        beside = Beside(target, tuple((name, value) for name, value in xattrs), acl, capability, unread)
        return Read(numbers, self.sha256, beside)  # type: ignore[arg-type]


class _File(msgspec.Struct):
    format: str
    version: int
    told: list[Told]


class _Signed(msgspec.Struct):
    """What lies on the disk. data: a `_File`; signature: over its SHA-256, empty where nobody signs."""

    format: str
    version: int
    data: bytes
    signature: bytes = b""


def read_told(folder: Path, check: Check | None = None) -> list[Told]:
    """What waits to be accepted; StateError where it cannot be read, is newer, or `check` says it is not ours."""
    path = folder / TOLD
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    try:
        # Its version is read first: what else is in it may be of another shape.
        head = msgspec.msgpack.decode(data)
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise StateError(f"{path} is no file of ours", hint="remove it: what waits to be accepted is told again")
        if head["version"] > _VERSION:
            raise StateError(f"{path} is of version {head['version']}, newer than this program", hint="upgrade")
        if head["version"] < 2 and check is None:
            return msgspec.msgpack.decode(data, type=_File).told
        signed = _Signed("", 1, data) if head["version"] < 2 else msgspec.msgpack.decode(data, type=_Signed)
        if check is not None and not check(_digest(signed.data), signed.signature):
            hint = "find out who wrote it; removed, all that is not as in the baseline is told again"
            raise StateError(f"{path} is not signed by this host", hint=hint)
        return msgspec.msgpack.decode(signed.data, type=_File).told
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise StateError(f"{path} is not as it was written: {error}", hint="remove it; all is told again") from None


def _digest(data: bytes) -> bytes:
    # Of a kind of its own: the signature of a baseline is none of this.
    return hashlib.sha256(b"told\0" + data).digest()


class Known:
    """Safe from several threads. One writer: the source."""

    def __init__(self, folder: Path, sign: Sign | None = None, check: Check | None = None) -> None:
        """StateError where what is there cannot be believed. folder: of the source's own, made by whoever starts it."""
        self.folder = folder
        self.sign, self._check = sign, check
        self._lock = threading.RLock()
        self._told = {one.path: one for one in read_told(folder, check)}
        self._changed = False
        self._trees: set[bytes] = set()
        self.baseline: Baseline | None = None
        if (folder / BASELINE).exists():
            self.open()

    def open(self) -> None:
        """Take the baseline that now lies there."""
        with self._lock:
            self.close()
            self.baseline = Baseline(self.folder / BASELINE, self._check)
            self._trees = set(self.baseline.header.trees)

    def close(self) -> None:
        """Give back the file."""
        with self._lock:
            if self.baseline is not None:
                self.baseline.close()
                self.baseline = None

    def find(self, folder: bytes, name: bytes) -> Read | None:
        """How a path is known to be."""
        with self._lock:
            told = self._told.get(joined(folder, name))
            if told is not None:
                return told.now
            return self.baseline.find(folder, name) if self.baseline is not None else None

    def placed(self, path: bytes) -> tuple[bytes, bytes]:
        """The folder and name under which rows have a path."""
        if path in self._trees or path == b"/":
            return path.rstrip(b"/"), b""
        folder, _, name = path.rpartition(b"/")
        return folder, name

    def rows(self, within: bytes | None = None) -> Iterator[Row]:
        """Every path as it is known now, in the order of a walk. within: only what lies in this folder."""
        with ExitStack() as stack:
            with self._lock:
                told = dict(self._told)
                baseline = self.baseline
                if baseline is None:
                    return
                stack.enter_context(baseline.held())
            yield from self._rows(baseline, told, within)

    def runs(self) -> Iterator[Run]:
        """The same by folders: those of which nothing was told come as they lie in the baseline."""
        with ExitStack() as stack:
            with self._lock:
                told = dict(self._told)
                baseline = self.baseline
                if baseline is None:
                    return
                stack.enter_context(baseline.held())
            places = [(self.placed(path), one) for path, one in told.items()]
            touched = {folder for (folder, _), _ in places}
            over = deque(_over(places))
            for run in baseline.runs():
                begins = order(run.folder), run.names[0]
                while over and over[0][:2] < begins:
                    yield Run.of([self._row(over.popleft())])
                if run.folder not in touched:
                    yield run
                    continue
                rows: list[Row] = []
                for row in run.rows():
                    while over and over[0][:2] < row.key:
                        rows.append(self._row(over.popleft()))
                    if over and over[0][:2] == row.key:
                        rows.append(self._row(over.popleft()))
                    elif joined(row.folder, row.name) not in told:
                        rows.append(row)
                yield from in_runs(rows)
            yield from (Run.of([self._row(one)]) for one in over)

    def _rows(self, baseline: Baseline, told: Mapping[bytes, Told], within: bytes | None) -> Iterator[Row]:
        places = [(self.placed(path), one) for path, one in told.items()]
        over = _over(places)
        if within is not None:
            over = [one for one in over if is_within(one[2], within or b"/")]
        at = 0
        for row in baseline.rows() if within is None else baseline.rows_in(within):
            if at < len(over):
                key = row.key
                while at < len(over) and over[at][:2] < key:
                    yield self._row(over[at])
                    at += 1
                if at < len(over) and over[at][:2] == key:
                    yield self._row(over[at])
                    at += 1
                    continue
            if told and joined(row.folder, row.name) in told:
                continue  # gone
            yield row
        for one in over[at:]:
            yield self._row(one)

    @staticmethod
    def _row(one: tuple[bytes, bytes, bytes, Told]) -> Row:
        now = one[3].now
        assert now is not None
        return Row(one[2], one[1], now)

    def settle(self, change: Change, record: Mapping[str, Any], *, settled: bool) -> None:
        """From now on this is how it is. settled: nobody needs to accept it."""
        read = read_of(change.after) if change.after is not None else None
        beside = read.beside if read is not None else Beside()
        with self._lock:
            before = self._told.get(change.path)
            if settled and not record and before is not None:
                # What is only noted takes nothing back from what waits.
                settled, record = before.settled, before.record
            self._told[change.path] = Told(
                change.path,
                list(read.numbers) if read is not None else None,
                read.sha256 if read is not None else b"",
                (beside.target, list(beside.xattrs), beside.acl, beside.capability, beside.unread),
                settled,
                dict(record),
            )
            self._changed = True

    def accept(self, paths: Sequence[bytes] | None) -> list[bytes]:
        """These, with what is in them, need nobody any more; None = all that wait. Which they were."""
        with self._lock:
            found = [
                one
                for one in self._told.values()
                if not one.settled and (paths is None or any(is_within(one.path, path) for path in paths))
            ]
            for one in found:
                one.settled = True
            self._changed = self._changed or bool(found)
        return [one.path for one in found]

    def save(self) -> None:
        """Put down what was told; StateError where the disk refuses."""
        with self._lock:
            if not self._changed:
                return
            inner = msgspec.msgpack.encode(_File(_FORMAT, _VERSION, list(self._told.values())))
            signature = self.sign(_digest(inner)) if self.sign is not None else b""
            data = msgspec.msgpack.encode(_Signed(_FORMAT, _VERSION, inner, signature))
            self._changed = False
        try:
            write_atomic(self.folder / TOLD, data)
        except OSError as error:
            self._changed = True
            raise StateError(f"{self.folder / TOLD} cannot be written: {error.strerror}") from None

    def advance(self, ended: int, trees: Sequence[bytes], began: int = 0) -> int:
        """Write a new baseline with what is settled in it; how many. ended: nanoseconds. trees: of which it is now.

        began: nanoseconds, of the last look that found everything as it is known to be.
        """
        with self._lock:
            settled = [one for one in self._told.values() if one.settled]
            if not settled or self.baseline is None:
                return 0
            waiting = {path: one for path, one in self._told.items() if not one.settled}
            baseline = self.baseline
            rows = self.rows()
            # What waits stays in the baseline as it was accepted.
            path = self.folder / BASELINE
            try:
                header = msgspec.structs.replace(
                    baseline.header, trees=list(trees), began=max(began, baseline.header.began)
                )
                writer = BaselineWriter(path, header, self.sign)
            except OSError as error:
                raise StateError(f"{path} cannot be written: {error.strerror}") from None
            try:
                for row in _with_accepted(rows, waiting, baseline, self.placed):
                    writer.add(row.folder, row.name, row.read)
                writer.finish(Footer(writer.rows, ended, baseline.footer.gaps))
            except OSError as error:
                raise StateError(f"{path} cannot be written: {error.strerror}") from None
            finally:
                writer.abandon()
            self._told = waiting
            self._changed = True
            self.open()
        self.save()
        return len(settled)


def _over(places: Sequence[tuple[tuple[bytes, bytes], Told]]) -> list[tuple[bytes, bytes, bytes, Told]]:
    """What was told and is there, in the order of rows: that order, name, folder."""
    return sorted(
        ((order(folder), name, folder, one) for (folder, name), one in places if one.numbers is not None),
        key=lambda one: one[:2],
    )


def _with_accepted(
    rows: Iterator[Row],
    waiting: Mapping[bytes, Told],
    baseline: Baseline,
    placed: Callable[[bytes], tuple[bytes, bytes]],
) -> Iterator[Row]:
    """Rows as they are known, but those that wait as the baseline had them."""
    back: list[Row] = []
    for path in waiting:
        folder, name = placed(path)
        read = baseline.find(folder, name)
        if read is not None:
            back.append(Row(folder, name, read))
    back.sort(key=lambda row: row.key)
    at = 0
    for row in rows:
        while at < len(back) and back[at].key < row.key:
            yield back[at]
            at += 1
        if joined(row.folder, row.name) not in waiting:
            yield row
    yield from back[at:]

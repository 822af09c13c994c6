"""A walk held against a baseline, both in one order, so that neither has to be held whole.
Counterpart: `walk` and `baseline` are merged here; `app.integrity` and the source tell what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

from vedette.model.clock import Clock
from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType
from vedette.sources.integrity.baseline import Row, Run
from vedette.sources.integrity.digest import Read, Reader, entry, gap_of
from vedette.sources.integrity.walk import (
    CTIME,
    FOLDER,
    Gap,
    GapReason,
    Listed,
    Numbers,
    Walk,
    joined,
    numbers_of,
    order,
)

SETTLED = 2_000_000_000
"""Nanoseconds: a file that changed within so short a time of being read may have changed once more in the same tick."""
_NEVER = -(1 << 62)
"""A change time before which nothing was: everything is read."""
_Pending = tuple[bytes, Numbers, Run | None, int]
"""What is to be read: name, numbers as they were listed, and where the baseline has it."""
_REPLACED = {Attribute.CONTENT, Attribute.TYPE, Attribute.TARGET, Attribute.TIMES}
_RELATED_MOST = 200_000
"""Removed and added paths held to be matched; what is beyond is told without the other path."""


def attributes_of(before: Entry, after: Entry) -> tuple[Attribute, ...]:
    """What differs between two entries of one path.

    That of the times only the change time moved says that something was done and undone: told as `times`, alone.
    """
    found: list[Attribute] = []
    same_type = before.type is after.type
    regular = same_type and after.type is FileType.FILE
    link = FileType.SYMLINK in (before.type, after.type)
    if regular and (before.size != after.size or (before.sha256 and after.sha256 and before.sha256 != after.sha256)):
        found.append(Attribute.CONTENT)
    if not same_type:
        found.append(Attribute.TYPE)
    if before.mode != after.mode and not link:
        found.append(Attribute.MODE)
    if before.uid != after.uid:
        found.append(Attribute.OWNER)
    if before.gid != after.gid:
        found.append(Attribute.GROUP)
    if same_type and before.target != after.target:
        found.append(Attribute.TARGET)
    if same_type and before.links != after.links:
        found.append(Attribute.LINKS)
    if dict(before.xattrs) != dict(after.xattrs):
        found.append(Attribute.XATTR)
    if before.acl != after.acl:
        found.append(Attribute.ACL)
    if before.capability != after.capability:
        found.append(Attribute.CAPABILITY)
    touched = before.mtime_ns != after.mtime_ns
    if touched or (not found and before.ctime_ns != after.ctime_ns):
        found.append(Attribute.TIMES)
    return tuple(found)


@dataclass(slots=True)
class Tally:
    """How much was looked at. read: paths opened, others were proven by their numbers; unrelated: changes too many to
    be matched to renames."""

    paths: int = 0
    read: int = 0
    changes: int = 0
    unrelated: int = 0


@dataclass(slots=True)
class _Held:
    """Changes that wait for the other half of a rename; folders whose times a change in them explains."""

    changes: list[Change] = field(default_factory=list)
    folders: set[bytes] = field(default_factory=set)
    subfolders: set[bytes] = field(default_factory=set)


class Comparison:
    """One check of trees against a baseline. find: one row of it, for folders that are written meanwhile.

    trust_times: a file whose change time, inode, size and all other numbers are as they were is not read: nobody but
    root by setting the clock back can set a change time. began: nanoseconds, when the baseline was begun; what had
    changed right before is read anyway. quiet: folders whose own times do not count, for what we write into them.
    """

    def __init__(
        self,
        walk: Walk,
        runs: Iterator[Run],
        reader: Reader,
        *,
        find: Callable[[bytes, bytes], Read | None],
        clock: Clock,
        began: int,
        trust_times: bool = True,
        quiet: Sequence[bytes] = (),
    ) -> None:
        self._walk = walk
        self._runs = runs
        self._reader = reader
        self._find = find
        self._settled = began - SETTLED if trust_times else _NEVER
        self._quiet = quiet
        self._clock = clock
        self._held = _Held()
        self._unread: set[bytes] = set()
        self.tally = Tally()
        self.could_not_tell: list[Gap] = []
        """What the baseline knows and this look could not see."""
        self.explained: list[Change] = []
        """Folders that differ by nothing but what is told of what is in them."""

    def __iter__(self) -> Iterator[Change]:
        """Every change, as it is found; removed and added ones and those of folders at the end."""
        for change in self._merged():
            self._explains(change)
            if not self._waits(change):
                self.tally.changes += 1
                yield change
        self._looked_again()
        for change in self._told():
            self.tally.changes += 1
            yield change
        self.could_not_tell += self._walk.gaps

    # ------------------------------------------------------------------------------------------------ merging

    def _merged(self) -> Iterator[Change]:
        run, at = next(self._runs, None), 0
        for listed in self._walk:
            pending: list[_Pending] = []
            folder, names, numbers = listed.folder, listed.names, listed.numbers
            here, count = 0, len(names)
            self.tally.paths += count
            while here < count:
                if run is not None and run.folder != folder and order(run.folder) < order(folder):
                    yield from self._were_there(run.rows(at))
                    run, at = next(self._runs, None), 0
                    continue
                if run is None or run.folder != folder:
                    pending += [(names[one], numbers[one], None, 0) for one in range(here, count)]
                    break
                together = min(count - here, len(run.names) - at)
                if names[here : here + together] == run.names[at : at + together]:
                    # As nearly always: nothing came and nothing went.
                    pending += self._to_read(names, numbers, here, run, at, together)
                    here, at = here + together, at + together
                while here < count and at < len(run.names):
                    name, known = names[here], run.names[at]
                    if known < name:
                        yield from self._were_there([Row(folder, known, run.read(at))])
                        at += 1
                    elif known > name:
                        pending.append((name, numbers[here], None, 0))
                        here += 1
                    else:
                        pending += self._to_read(names, numbers, here, run, at, 1)
                        here, at = here + 1, at + 1
                if at >= len(run.names):
                    run, at = next(self._runs, None), 0
            if pending:
                yield from self._read(listed, pending)
        while run is not None:
            yield from self._were_there(run.rows(at))
            run, at = next(self._runs, None), 0

    def _to_read(
        self, names: Sequence[bytes], numbers: Sequence[Numbers], here: int, run: Run, at: int, together: int
    ) -> list[_Pending]:
        """Those of a stretch of one folder, listed and known by the same names, that their numbers do not prove."""
        settled, known = self._settled, run.numbers[at : at + together]
        listed = numbers[here : here + together]
        if not run.unread and run.latest < settled and listed == known:
            return []
        every = zip(names[here : here + together], listed, repeat(run), range(at, at + together), strict=False)
        if settled == _NEVER:
            return list(every)
        return [
            one
            for one, before in zip(every, known, strict=True)
            if one[1] != before or before[CTIME] >= settled or (run.unread and run.is_unread(one[3]))
        ]

    def _read(self, listed: Listed, pending: Sequence[_Pending]) -> Iterator[Change]:
        wanted = [(name or listed.called, numbers) for name, numbers, _, _ in pending]
        found = self._reader.read(listed.fd, wanted)
        self.tally.read += len(wanted)
        for (name, _, run, at), read in zip(pending, found, strict=True):
            if run is not None and read is not None and run.holds(at, read):
                continue
            path = joined(listed.folder, name)
            before = run.read(at) if run is not None else None
            if read is None:
                if before is not None:
                    yield from self._were_there([Row(listed.folder, name, before)])
                continue
            if before is not None and before.sha256 and (gap := gap_of(path, read)) is not None:
                self.could_not_tell.append(gap)
            change = changed(path, before, read, self._clock.now())
            if change is not None:
                yield change

    def _were_there(self, rows: Iterable[Row]) -> Iterator[Change]:
        """Rows that the walk did not come by: gone, unless they lie where the walk could not look."""
        for row in rows:
            path = joined(row.folder, row.name)
            if not self._hidden(path):
                yield Change(ChangeKind.REMOVED, path, before=entry(path, row.read), at=self._clock.now())

    def _hidden(self, path: bytes) -> bool:
        if len(self._unread) != len(self._walk.gaps):
            self._unread = {gap.path for gap in self._walk.gaps}
        if not self._unread:
            return False
        while path:
            path = path.rpartition(b"/")[0]
            if (path or b"/") in self._unread:
                return True
        return False

    # ------------------------------------------------------------------------------------- what waits for the end

    def _explains(self, change: Change) -> None:
        """What comes, goes or is replaced writes its folder, whose times and links are then no news of their own.

        A new file may be given the inode of the one it replaces, so whatever may be a new file explains its folder.
        """
        before, after = change.before, change.after
        if before is not None and after is not None and not _REPLACED & set(change.attributes):
            return
        parent = change.path.rpartition(b"/")[0]
        self._held.folders.add(parent)
        if any(one is not None and one.type is FileType.DIRECTORY for one in (before, after)):
            self._held.subfolders.add(parent)

    def _waits(self, change: Change) -> bool:
        """Whether it is told at the end: half a rename perhaps, or a folder that a change in it explains."""
        after = change.after
        if change.kind is ChangeKind.CHANGED and (after is None or after.type is not FileType.DIRECTORY):
            return False
        if len(self._held.changes) >= _RELATED_MOST:
            self.tally.unrelated += 1
            return False
        self._held.changes.append(change)
        return True

    def _looked_again(self) -> None:
        """What was renamed while others were listed may be missing from both places: folders written since are asked.

        Once; what goes on being written while it is looked at is told as it is found by the next look.
        """
        held = {change.path: change for change in self._held.changes}
        for folder, before in self._walk.visited:
            try:
                fd = os.open(folder or b"/", FOLDER)
            except OSError:
                continue
            try:
                if os.fstat(fd).st_mtime_ns != before:
                    self._look_at(folder, fd, held)
            except OSError:
                self.could_not_tell.append(Gap(folder or b"/", GapReason.CHANGING))
            finally:
                os.close(fd)
        self._held.changes = list(held.values())

    def _look_at(self, folder: bytes, fd: int, held: dict[bytes, Change]) -> None:
        here = {os.fsencode(name) for name in os.listdir(fd)}
        for path in [one for one in held if one.rpartition(b"/")[0] == folder]:
            if held[path].kind is ChangeKind.ADDED and path.rpartition(b"/")[2] not in here:
                del held[path]
        for name in here:
            path = joined(folder, name)
            known = held.get(path)
            if self._walk.is_left_out(path) or (known is not None and known.kind is not ChangeKind.REMOVED):
                continue
            row = self._find(folder, name)
            if row is not None and known is None:
                continue  # it was there when it was listed
            try:
                numbers = numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False))
            except OSError:
                continue
            read = self._reader.read(fd, [(name, numbers)])[0]
            if read is None:
                continue
            held.pop(path, None)
            change = changed(path, row, read, self._clock.now())
            if change is not None:
                held[path] = change
                self._explains(change)

    def _told(self) -> Iterator[Change]:
        """What was held, without what another change explains, each half of a rename with the other."""
        held = self._held
        other = _renames(held.changes)
        for change in held.changes:
            after = change.after
            if change.kind is ChangeKind.CHANGED and after is not None and after.type is FileType.DIRECTORY:
                path = change.path if change.path != b"/" else b""
                explained: set[Attribute] = set()
                if path in held.folders or path in self._quiet:
                    explained.add(Attribute.TIMES)
                if path in held.subfolders:
                    explained.add(Attribute.LINKS)
                attributes = tuple(one for one in change.attributes if one not in explained)
                if attributes:
                    yield replace(change, attributes=attributes)
                else:
                    self.explained.append(change)
            else:
                yield replace(change, related=other.get(change.path)) if change.path in other else change


def changed(path: bytes, before: Read | None, after: Read | None, at: int) -> Change | None:
    """How a path differs; None where it does not. at: microseconds UTC."""
    was = entry(path, before) if before is not None else None
    now = entry(path, after) if after is not None else None
    if was is None:
        return Change(ChangeKind.ADDED, path, after=now, at=at) if now is not None else None
    if now is None:
        return Change(ChangeKind.REMOVED, path, before=was, at=at)
    attributes = attributes_of(was, now)
    return Change(ChangeKind.CHANGED, path, attributes, was, now, at=at) if attributes else None


def _renames(changes: Sequence[Change]) -> dict[bytes, bytes]:
    """Which removed path is which added one: the same inode, and nothing that says it was given to another file."""
    gone: dict[tuple[int, int], Entry] = {}
    for change in changes:
        if change.kind is ChangeKind.REMOVED and change.before is not None:
            gone.setdefault((change.before.device, change.before.inode), change.before)
    found: dict[bytes, bytes] = {}
    for change in changes:
        if change.kind is not ChangeKind.ADDED or change.after is None:
            continue
        before = gone.get((change.after.device, change.after.inode))
        if before is not None and before.path not in found and _same(before, change.after):
            found[before.path], found[change.path] = change.path, before.path
    return found


def _same(before: Entry, after: Entry) -> bool:
    """An inode that was freed is soon another file's: what it holds must speak for it too."""
    if before.type is not after.type:
        return False
    if before.type is FileType.SYMLINK:
        return before.target == after.target
    if before.type is FileType.FILE and before.sha256 and before.sha256 == after.sha256 and before.size:
        return True
    return before.mtime_ns == after.mtime_ns

"""Looks at paths and at whole trees, and says what is not as it was known to be; each change once.
Counterpart: `source` says when and tells; `known` is what it is held against."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vedette.model.clock import Clock
from vedette.model.integrity import Attribute, Change, ChangeKind, FileType, Who
from vedette.sources.integrity.baseline import Header, in_runs
from vedette.sources.integrity.compare import Comparison, changed
from vedette.sources.integrity.digest import Read, Reader, read_of
from vedette.sources.integrity.known import BASELINE, Known
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.taking import write_baseline
from vedette.sources.integrity.walk import FOLDER, Walk, chosen_trees, is_within, mount_points, numbers_of, reason_of

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Of a folder: it is gone, or another thing or a link is in its place."""
_FOLDER_NEWS = {Attribute.TIMES, Attribute.LINKS}


@dataclass(slots=True)
class Seen:
    """What is not as it was known to be, and what could not be looked at."""

    changes: list[Change] = field(default_factory=list)
    gaps: list[tuple[bytes, str]] = field(default_factory=list)


class Look:
    """May be asked from two threads: one looks at paths, one at all."""

    def __init__(
        self,
        settings: IntegritySettings,
        known: Known,
        clock: Clock,
        *,
        stopped: Callable[[], bool] = lambda: False,
        root: Path = Path("/"),
    ) -> None:
        self._settings = settings
        self._known = known
        self._clock = clock
        self._stopped = stopped
        self._root = root
        self._reader = Reader(1, sparse=False, stopped=stopped)
        self.leave_out = [os.fsencode(one) for one in settings.leave_out]
        self._trees = self.trees()
        self._walk = Walk(self._trees, self.leave_out)
        self._verified = 0
        """Nanoseconds, when the last whole look began: what had not changed by then is as it is known to be."""
        self.own = os.getpid()

    def trees(self) -> list[bytes]:
        """Those that are there now. A link is watched as a link: what is where it leads, only if that is a tree."""
        return chosen_trees(os.fsencode(one) for one in self._settings.paths(self._root))

    def is_watched(self, path: bytes) -> bool:
        """Whether it lies in a tree and is not left out, by itself or by what it lies in."""
        if not any(is_within(path, tree or b"/") for tree in self._trees):
            return False
        while path not in self._trees and path:
            if self._walk.is_left_out(path):
                return False
            path = path.rpartition(b"/")[0]
        return True

    def first(self) -> tuple[int, list[tuple[bytes, str]]]:
        """Take down the first baseline: how many paths, and what could not be looked at. StateError where it cannot."""
        walk = Walk(self._trees, self.leave_out, self._stopped, follow=False)
        header = Header(self._trees, self.leave_out, self._clock.now() * 1000, mounts=mount_points(self._trees))
        taken = write_baseline(self._known.folder / BASELINE, header, walk, self._clock, self._known.sign, sparse=False)
        self._known.open()
        return taken.rows, [(gap.path, gap.reason.value) for gap in taken.gaps]

    def at(self, paths: Mapping[bytes, tuple[Who | None, int, bool]]) -> Seen:
        """Look at these. who, when and whether it is a folder that may be full: of each."""
        seen = Seen()
        folders: dict[bytes, None] = {}
        for path, (who, at, entered) in sorted(paths.items()):
            if self._stopped():
                return seen
            folders[path.rpartition(b"/")[0]] = None
            before = self._known.find(*self._known.placed(path))
            try:
                after = self._read(path)
            except OSError as error:
                # Not to be looked at is not gone.
                seen.gaps.append((path, reason_of(error).value))
                continue
            change = changed(path, before, after, at)
            if change is not None and not self._is_folder_news(change):
                seen.changes.append(replace(change, who=who))
            elif change is not None:
                self._known.settle(change, {}, settled=True)
            was_folder = change is not None and change.before is not None and change.before.type is FileType.DIRECTORY
            is_folder = after is not None and after.numbers[0] & 0o170000 == 0o040000
            if entered or (was_folder and not is_folder):
                seen.changes += self._below(path, who, at)
        found = {change.path for change in seen.changes}
        for folder in folders:
            if folder not in found and folder not in paths:
                self._note_folder(folder)
        return seen

    def all(self, full: bool) -> Seen:
        """Look at everything; full: read every file, whatever its change time says."""
        self._trees = self.trees()
        self._walk = Walk(self._trees, self.leave_out)
        baseline = self._known.baseline
        assert baseline is not None
        walk = Walk(self._trees, self.leave_out, self._stopped, follow=False)
        began = self._clock.now() * 1000
        set_back = began < baseline.footer.ended
        reader = Reader(sparse=False, stopped=self._stopped)
        comparison = Comparison(
            walk,
            self._known.runs(),
            reader,
            find=self._known.find,
            clock=self._clock,
            began=max(baseline.header.began, self._verified),
            trust_times=not full and not set_back,
        )
        seen = Seen()
        try:
            changes = list(comparison)
        finally:
            reader.close()
        if self._stopped():
            return Seen()
        self._verified = began
        for change in changes:
            # What was told meanwhile is no news any more, and what was seen before that is not how it is now.
            now = self._known.find(*self._known.placed(change.path))
            after = read_of(change.after) if change.after is not None else None
            if now != (read_of(change.before) if change.before is not None else None):
                with suppress(OSError):
                    after = self._read(change.path)
            fresh = changed(change.path, now, after, change.at)
            if fresh is not None:
                attributes = tuple(one for one in fresh.attributes if one in change.attributes) or fresh.attributes
                seen.changes.append(replace(fresh, related=change.related, attributes=attributes))
        for change in comparison.explained:
            self._known.settle(change, {}, settled=True)
        known_gaps = {path for path, _ in baseline.footer.gaps}
        seen.gaps = [(gap.path, gap.reason.value) for gap in comparison.could_not_tell if gap.path not in known_gaps]
        return seen

    def advance(self) -> int:
        """What nobody needs to accept becomes part of the baseline: how many paths."""
        return self._known.advance(self._clock.now() * 1000, self._trees, self._verified)

    def _below(self, path: bytes, who: Who | None, at: int) -> list[Change]:
        """What is in a folder that came, went or was moved, against what was known of it."""
        walk = Walk([path], self.leave_out, self._stopped, follow=False)
        comparison = Comparison(
            walk, in_runs(self._known.rows(path)), self._reader, find=self._known.find, clock=self._clock, began=0
        )
        found = []
        for change in comparison:
            if change.path != path:
                found.append(replace(change, who=who, at=at))
        for change in comparison.explained:
            if change.path != path:
                self._known.settle(change, {}, settled=True)
        return found

    def _note_folder(self, folder: bytes) -> None:
        """That something in it changed changed its times, and that is told already."""
        before = self._known.find(*self._known.placed(folder))
        try:
            after = self._read(folder)
        except OSError:
            return  # the next look at all of it says so
        change = changed(folder, before, after, self._clock.now())
        if change is not None and self._is_folder_news(change):
            self._known.settle(change, {}, settled=True)

    @staticmethod
    def _is_folder_news(change: Change) -> bool:
        after = change.after
        return (
            change.kind is ChangeKind.CHANGED
            and after is not None
            and after.type is FileType.DIRECTORY
            and set(change.attributes) <= _FOLDER_NEWS
        )

    def _read(self, path: bytes) -> Read | None:
        """A path as it is; None where it is not there, OSError where that cannot be told."""
        folder, _, name = path.rpartition(b"/")
        try:
            fd = os.open(folder or b"/", FOLDER)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise
        try:
            if not name:
                return self._reader.read(fd, [(b"", numbers_of(os.fstat(fd)))])[0]
            numbers = numbers_of(os.stat(name, dir_fd=fd, follow_symlinks=False))
            return self._reader.read(fd, [(name, numbers)])[0]
        except FileNotFoundError:
            return None
        finally:
            os.close(fd)

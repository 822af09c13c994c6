"""Watches trees as they change: by fanotify where that is allowed, else by inotify, folder by folder.
Counterpart: `source` looks at what is noticed here; what neither sees, its scans find."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from asyncinotify import Event, Inotify, Mask, Watch

from vedette.sources.integrity.fanotify import Fanotify, Noticed

_WANTED = (
    Mask.MODIFY
    | Mask.ATTRIB
    | Mask.CLOSE_WRITE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CREATE
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
)
_FOLDER = _WANTED | Mask.ONLYDIR | Mask.DONT_FOLLOW | Mask.EXCL_UNLINK
_ALONE = _WANTED | Mask.DONT_FOLLOW


class Watching(Protocol):
    """What notices changes. `fd` becomes readable; `read` never waits and may be called from any one thread."""

    name: str
    fd: int

    def read(self) -> tuple[list[Noticed], bool]:
        """What happened since; and whether something was lost."""
        ...

    def close(self) -> None:
        """Give back the descriptors."""
        ...


class InotifyWatch:
    """A watch on every folder of trees; who did it is not told, and what happens in a folder before it is watched is
    found by looking at all of it. unwatched: folders the kernel's limit left out."""

    name = "inotify"

    def __init__(self, trees: Sequence[bytes], is_left_out: Callable[[bytes], bool]) -> None:
        self._inotify = Inotify(cache_size=64)
        os.set_blocking(self._inotify.fd, False)
        self.fd = self._inotify.fd
        self._is_left_out = is_left_out
        self._paths: dict[int, bytes] = {}
        self.unwatched = 0
        for tree in trees:
            self._add(tree or b"/")

    def read(self) -> tuple[list[Noticed], bool]:
        """As `Watching`."""
        found: list[Noticed] = []
        lost = False
        while True:
            try:
                event = self._inotify.sync_get()
            except BlockingIOError:
                return found, lost
            if event is None:
                return found, lost
            if Mask.Q_OVERFLOW in event.mask:
                lost = True
            else:
                self._noticed(event, found)

    def close(self) -> None:
        """Give back the descriptor."""
        self._inotify.close()

    def _noticed(self, event: Event, found: list[Noticed]) -> None:
        watch = event.watch
        if watch is None:
            return
        if Mask.IGNORED in event.mask:
            self._paths.pop(watch.wd, None)
            return
        folder = self._paths.get(watch.wd)
        if folder is None:
            return
        path = folder if event.name is None else folder.rstrip(b"/") + b"/" + os.fsencode(event.name)
        entered = Mask.ISDIR in event.mask and bool(event.mask & (Mask.CREATE | Mask.MOVED_TO))
        if entered:
            self._add(path)
        if Mask.ISDIR in event.mask and Mask.MOVED_FROM in event.mask:
            self._forget(path)
        found.append(Noticed(path, entered=entered))

    def _add(self, path: bytes) -> None:
        """Watch a folder and all below it, or a file."""
        named = Path(os.fsdecode(path))
        if named.is_symlink() or not named.is_dir():
            self._watch(path, _ALONE)
            return
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            if not self._watch(folder, _FOLDER):
                continue
            try:
                with os.scandir(folder) as entries:
                    waiting += [
                        one.path
                        for one in entries
                        if one.is_dir(follow_symlinks=False) and not self._is_left_out(one.path)
                    ]
            except OSError:
                continue  # gone, or not for us to see: scans say so

    def _watch(self, path: bytes, mask: Mask) -> bool:
        try:
            watch: Watch = self._inotify.add_watch(path, mask)
        except OSError:
            self.unwatched += 1
            return False
        self._paths[watch.wd] = path
        return True

    def _forget(self, path: bytes) -> None:
        """A folder moved away keeps its watches: what happens there is no longer told under the old name."""
        for watch in list(self._inotify.watches):
            one = self._paths.get(watch.wd)
            if one is not None and (one == path or one.startswith(path + b"/")):
                del self._paths[watch.wd]
                self._inotify.rm_watch(watch)


def open_watch(trees: Sequence[bytes], is_left_out: Callable[[bytes], bool]) -> Watching:
    """The best there is here; OSError where the kernel gives neither."""
    try:
        return Fanotify(trees)
    except OSError:
        return InotifyWatch(trees, is_left_out)

"""Log files, by path or glob, through every kind of rotation: woken by inotify, one batch as soon as there is one.
Counterpart: follow.py reads one log; `parsers` read the lines; docs/sources.md says what survives what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

import structlog
from asyncinotify import Event, Inotify, Mask, Watch

from vedette.model.clock import Clock
from vedette.model.protocols import Counter, Emit
from vedette.sources.follow import Follower
from vedette.sources.settings import FileSettings, seconds
from vedette.sources.siblings import DECOMPRESSORS, open_plain, rotation_of
from vedette.text.escape import terminal

log = structlog.get_logger("vedette.sources.file")

_FOLDER = Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.MOVE_SELF | Mask.DELETE_SELF | Mask.ONLYDIR
_FILE = Mask.MODIFY | Mask.ATTRIB | Mask.MOVE_SELF | Mask.DELETE_SELF
_MAGIC = frozenset("*?[")


def _is_glob(path: str) -> bool:
    return not _MAGIC.isdisjoint(path)


class FileSource:
    """Follows the files of `settings.paths`; each is an Origin source of its own, `file:<path>`.

    cursors: source name -> stored cursor. Raises StateError for a cursor a newer version wrote; everything
    that may pass (missing, unreadable, damaged) is counted, said once and tried again.
    """

    def __init__(
        self,
        settings: FileSettings,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursors: Mapping[str, str] | None = None,
    ) -> None:
        self.name = f"file:{settings.paths[0]}"
        self._settings = settings
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._cursors = dict(cursors or {})
        self._poll = seconds(settings.poll)
        self.begun = asyncio.Event()
        self._wake = asyncio.Event()
        self._followers: dict[str, Follower] = {}
        self._dirty: dict[Follower, None] = {}
        self._rescan = True
        self._folders: dict[int, str] = {}
        self._files: dict[tuple[int, int], tuple[Watch, Follower]] = {}
        self._owners: dict[int, Follower] = {}
        self._let_go: dict[tuple[int, int], bytes] = {}

    async def run(self, emit: Emit) -> None:
        """Read and emit until cancelled."""
        loop = asyncio.get_running_loop()
        with Inotify(cache_size=64) as self._inotify:
            # asyncinotify 4.4 means to, but its InitFlags.NONBLOCK holds the value of O_CLOEXEC.
            os.set_blocking(self._inotify.fd, False)
            loop.add_reader(self._inotify.fd, self._events)
            try:
                await self._follow(emit, loop)
            finally:
                loop.remove_reader(self._inotify.fd)
                for follower in self._followers.values():
                    follower.close()

    async def _follow(self, emit: Emit, loop: asyncio.AbstractEventLoop) -> None:
        first = True
        polled = loop.time()
        while True:
            self._wake.clear()
            if loop.time() - polled >= self._poll:
                self._rescan = True
                self._dirty = dict.fromkeys(self._followers.values())
                polled = loop.time()
            if self._rescan:
                self._rescan = False
                self._scan(loop.time(), first=first)
                if first:
                    await self._stand(emit)
                first = False
            for follower in list(self._dirty):
                # Taken off first: what happens while it reads marks it anew.
                self._dirty.pop(follower, None)
                if await follower.step(emit, loop.time()):
                    self._dirty[follower] = None
            if self._dirty:
                await asyncio.sleep(0)
                continue
            deadlines = (follower.deadline() for follower in self._followers.values())
            due = min((at for at in deadlines if at is not None), default=polled + self._poll)
            timer = loop.call_at(min(due, polled + self._poll), self._due)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _stand(self, emit: Emit) -> None:
        """Say where reading begins: ended before there was anything to read, it must not begin elsewhere next time."""
        self.begun.set()
        for follower in self._followers.values():
            if self._settings.begin == "end" and follower.name not in self._cursors:
                await follower.stand(emit)

    def _due(self) -> None:
        now = asyncio.get_running_loop().time()
        for follower in self._followers.values():
            deadline = follower.deadline()
            if deadline is not None and deadline <= now:
                self._dirty[follower] = None
        self._wake.set()

    # ------------------------------------------------------------------------------------------ inotify

    def _events(self) -> None:
        """Take all events at once, so that a busy engine does not leave the descriptor readable (and the loop hot)."""
        self._wake.set()
        while True:
            try:
                event = self._inotify.sync_get()
            except BlockingIOError:
                return
            if event is not None:
                self._event(event)

    def _event(self, event: Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            self._counter.add("source_wakeups_lost")
            self._rescan = True
            self._dirty = dict.fromkeys(self._followers.values())
            return
        watch = event.watch
        if watch is None:
            return
        if watch.wd in self._owners:
            self._dirty[self._owners[watch.wd]] = None
            if Mask.IGNORED in event.mask:
                del self._owners[watch.wd]
        elif watch.wd in self._folders:
            folder = self._folders[watch.wd]
            if event.mask & (Mask.IGNORED | Mask.MOVE_SELF | Mask.DELETE_SELF):
                del self._folders[watch.wd]
                if Mask.MOVE_SELF in event.mask:
                    self._inotify.rm_watch(watch)
                self._rescan = True
            elif event.name is not None:
                path = Path(folder) / event.name
                follower = self._followers.get(str(path))
                if follower is not None:
                    self._dirty[follower] = None
                self._rescan |= Mask.ISDIR in event.mask or any(path.match(glob) for glob in self._globs())

    def _watch_file(self, follower: Follower, descriptor: int, key: tuple[int, int]) -> None:
        # By descriptor, not by name: the name may lead elsewhere by now.
        try:
            watch = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _FILE)
        except OSError as error:
            self._unwatched(f"file {follower.path}", error)
            return
        self._files[key] = watch, follower
        self._owners[watch.wd] = follower

    def _unwatch_file(self, key: tuple[int, int], head: bytes) -> None:
        self._let_go[key] = head
        watch, _ = self._files.pop(key, (None, None))
        if watch is not None and self._owners.pop(watch.wd, None) is not None:
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                self._counter.add("source_watch_gone")

    def _watch_folders(self) -> None:
        watched = set(self._folders.values())
        for folder in self._folders_of_interest():
            if folder in watched:
                continue
            try:
                watch = self._inotify.add_watch(folder, _FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                continue  # tried again at the next poll
            except OSError as error:
                self._unwatched(f"folder {folder}", error)
                continue
            self._folders[watch.wd] = folder
            watched.add(folder)

    def _unwatched(self, what: str, error: OSError) -> None:
        """Without a watch the poll still finds everything, later."""
        self._counter.add("source_unwatched")
        log.warning("inotify-refused", what=terminal(what), error=str(error), hint="raise fs.inotify.max_user_watches")

    # ------------------------------------------------------------------------------------------ which files

    def _globs(self) -> Iterator[str]:
        return (path for path in self._settings.paths if _is_glob(path))

    def _folders_of_interest(self) -> Iterator[str]:
        for path in self._settings.paths:
            folder = PurePath(path).parent
            above = folder
            while _is_glob(str(above)):
                above = above.parent
            yield str(above)
            if above != folder:
                yield from (str(found) for found in Path("/").glob(str(folder)[1:]) if found.is_dir())
        for follower in self._followers.values():
            yield str(Path(follower.path).parent)
            yield str(Path(follower.path).resolve().parent)  # where a link leads

    def _scan(self, now: float, *, first: bool) -> None:
        """Follow what matches now and is not followed yet."""
        wanted: dict[str, bool] = {}
        for path in self._settings.paths:
            if not _is_glob(path):
                wanted[path] = True
        for glob in self._globs():
            for found in sorted(Path("/").glob(glob[1:])):
                wanted.setdefault(str(found), False)
        for path, named in wanted.items():
            if path not in self._followers and (named or self._is_new_log(path, wanted)):
                self._begin(path, now, first=first)
        for path, follower in list(self._followers.items()):
            if follower.idle and path not in wanted:
                self._cursors[follower.name] = follower.cursor()
                del self._followers[path]
                self._dirty.pop(follower, None)
        self._watch_folders()

    def _is_new_log(self, path: str, wanted: Mapping[str, bool]) -> bool:
        """Not a rotated file of another log, nor one we read under another name."""
        if path.endswith(tuple(DECOMPRESSORS)) or rotation_of(path, wanted.keys() | self._followers.keys()):
            return False
        try:
            descriptor, status = open_plain(path)
        except OSError:
            return True  # its follower says what is wrong and tries again
        try:
            key = status.st_dev, status.st_ino
            head = self._let_go.get(key, b"")
            # An inode is used again soon after its file is gone: only the same beginning makes it the same file.
            read_before = bool(head) and os.pread(descriptor, len(head), 0) == head
        finally:
            os.close(descriptor)
        if not read_before:
            self._let_go.pop(key, None)
        return key not in self._files and not read_before

    def _begin(self, path: str, now: float, *, first: bool) -> None:
        follower = Follower(
            path,
            self._settings,
            host_id=self._host_id,
            clock=self._clock,
            counter=self._counter,
            opened=lambda descriptor, key: self._watch_file(follower, descriptor, key),
            closed=self._unwatch_file,
        )
        self._followers[path] = follower
        follower.begin(self._cursors.get(follower.name, ""), now, at_end=first and self._settings.begin == "end")
        self._dirty[follower] = None

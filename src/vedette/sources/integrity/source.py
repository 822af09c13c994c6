"""The source `integrity`: tells each change once, within a second where the kernel says so, else by the next scan.
Counterpart: `watch` notices, `look` looks, `known` remembers; `rules/packs/integrity.yml` gives levels."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import threading
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from vedette.model.clock import Clock
from vedette.model.integrity import Change, Voucher, Who
from vedette.model.protocols import Counter, Emit
from vedette.sources.integrity.differences import Differences
from vedette.sources.integrity.fanotify import Noticed
from vedette.sources.integrity.known import BASELINE, NAME, Known
from vedette.sources.integrity.look import Look, Seen
from vedette.sources.integrity.records import change_record, record
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.integrity.walk import Walk
from vedette.sources.integrity.watch import Watching, open_watch
from vedette.sources.integrity.who import Asker
from vedette.sources.told import Teller
from vedette.text.escape import decode
from vedette.text.times import parse_duration

BEGAN, LOST, UNSEEN = "integrity-baseline-made", "integrity-events-lost", "file-not-looked-at"
ALTERED, ADVANCED = "integrity-baseline-altered", "integrity-baseline-advanced"
HELD = "integrity-baseline-held"
"""Told at each start: the hub knows which one it should be, though all that lies on this host be written anew."""
BURST, ACCEPTED, NOT_WATCHED = "integrity-burst", "integrity-accepted", "integrity-not-watched"
_TOGETHER = 200
_MOST_DIRTY = 200_000
_MOST_GAPS = 50
_MOST_PUT_OFF = 10
"""So many times what is written again and again under a passing name is put off."""
_COMMITTED = 5.0
"""Seconds after which what was told is surely committed, and may be put down as told."""
_SAVE_EVERY = 1.0

log = structlog.get_logger()


class IntegritySource:
    """Looks at what is noticed, and at everything on schedule.

    known: of the folder that is the source's own. voucher: asked before a change is told. watching: opened by whoever
    still had the privilege, whose it stays; None = one is opened, and closed, here.
    """

    def __init__(
        self,
        settings: IntegritySettings,
        known: Known,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        voucher: Voucher | None = None,
        differences: Differences | None = None,
        watching: Watching | None = None,
        requests: Callable[[], Sequence[dict[str, Any]]] = lambda: (),
        cursor: str = "",
        begin: Callable[[], None] = lambda: None,
        root: Path = Path("/"),
    ) -> None:
        """requests: what people accepted since it was asked last: `paths` (None = all), `who`, `reason`. cursor: the
        digest of the baseline when something was told last; one with another digest was written by somebody else.
        """
        self.name = NAME
        self.begun = asyncio.Event()
        self._settings = settings
        self._known = known
        self._clock = clock
        self._counter = counter
        self._voucher = voucher
        self._differences = differences
        self._watching = watching
        self._requests = requests
        self._cursor = cursor
        self._teller = Teller(host_id, NAME, clock.now())
        self._position = 0
        self._stop = threading.Event()
        self._look = Look(settings, known, clock, stopped=self._stop.is_set, root=root)
        self._asker = Asker()
        self._dirty: dict[bytes, tuple[Who | None, int, bool]] = {}
        self._looked: dict[bytes, float] = {}
        self._passing: dict[bytes, tuple[float, tuple[Who | None, int, bool]]] = {}
        self._passes = re.compile("|".join(map(fnmatch.translate, settings.passing)) or "(?!)")
        self._wake = asyncio.Event()
        self._scan_now = asyncio.Event()
        self._lost = False
        self._told_at = 0.0
        # One listens, one looks at what is noticed, one scans: a scan takes its time.
        self._threads = ThreadPoolExecutor(3, NAME, initializer=begin)

    async def run(self, emit: Emit) -> None:
        """Tell until cancelled. StateError where what is known cannot be kept."""
        loop = asyncio.get_running_loop()
        trees = self._look.trees()
        watching = self._watching
        if watching is None:
            left_out = Walk(trees, self._look.leave_out).is_left_out
            watching = await loop.run_in_executor(self._threads, open_watch, trees, left_out)
        self.begun.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(watching, loop))
                if self._differences is not None:
                    await loop.run_in_executor(self._threads, self._differences.learn, trees)
                await self._begin(emit, watching)
                tasks.create_task(self._look_at_noticed(emit))
                tasks.create_task(self._scan(emit))
                tasks.create_task(self._keep(emit))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._stop.set()
            self._threads.shutdown(wait=True)
            if self._watching is None:
                watching.close()
            self._known.close()

    # ---------------------------------------------------------------------------------------------- noticing

    async def _listen(self, watching: Watching, loop: asyncio.AbstractEventLoop) -> None:
        ready = asyncio.Event()
        loop.add_reader(watching.fd, ready.set)
        try:
            while True:
                await ready.wait()
                loop.remove_reader(watching.fd)
                ready.clear()
                noticed, lost = await loop.run_in_executor(self._threads, self._heard, watching)
                self._mark(noticed, lost=lost)
                loop.add_reader(watching.fd, ready.set)
        finally:
            loop.remove_reader(watching.fd)

    def _heard(self, watching: Watching) -> tuple[list[tuple[Noticed, Who | None]], bool]:
        """What happened inside the trees, and who did it, asked at once: most processes end soon."""
        noticed, lost = watching.read()
        own = self._look.own
        found = []
        for one in noticed:
            if self._look.is_watched(one.path) and one.pid != own:
                found.append((one, self._asker.who(one.pid)))
        return found, lost

    def _mark(self, noticed: Sequence[tuple[Noticed, Who | None]], *, lost: bool) -> None:
        now = self._clock.now()
        for one, who in noticed:
            known = self._dirty.get(one.path)
            if known is not None:
                # Whoever was first is named, unless nothing was known of them.
                self._dirty[one.path] = known[0] or who, known[1], known[2] or one.entered
            elif len(self._dirty) < _MOST_DIRTY:
                self._dirty[one.path] = who, now, one.entered
            else:
                lost = True
        if lost:
            self._counter.add("integrity_events_lost")
            self._lost = True
            self._scan_now.set()
        if noticed:
            self._wake.set()

    async def _look_at_noticed(self, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        settle, again = (parse_duration(one) / 1e6 for one in (self._settings.settle, self._settings.again))
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(settle)
            now = loop.time()
            self._looked = {path: at for path, at in self._looked.items() if now - at < again}
            # What is written all the time is looked at now and then.
            taken = {path: what for path, what in self._dirty.items() if path not in self._looked}
            for path in taken:
                del self._dirty[path]
                self._looked[path] = now
            taken = {path: what for path, what in taken.items() if not self._put_off(path, what)}
            due = self._passed(now)
            taken |= due
            if self._dirty:
                loop.call_later(again, self._wake.set)
            if taken:
                seen = await loop.run_in_executor(self._threads, self._look.at, taken)
                await self._tell(emit, seen, due)
                await self._say_gaps(emit, seen.gaps)

    def _put_off(self, path: bytes, what: tuple[Who | None, int, bool]) -> bool:
        """Whether it has a name that something writes to before it renames it: then it is looked at later, once."""
        if self._passes.match(os.fsdecode(path)) is None or len(self._passing) >= _MOST_DIRTY:
            return False
        if path not in self._passing:
            loop = asyncio.get_running_loop()
            after = parse_duration(self._settings.passing_after) / 1e6
            self._passing[path] = loop.time() + after, what
            # The loop's clock may be a little behind the time it was asked to call at.
            loop.call_later(after + 0.01, self._wake.set)
        return True

    def _passed(self, now: float) -> dict[bytes, tuple[Who | None, int, bool]]:
        """What was put off long enough. What is written once more meanwhile is put off again, but not for ever."""
        after = parse_duration(self._settings.passing_after)
        due: dict[bytes, tuple[Who | None, int, bool]] = {}
        for path, (at, what) in list(self._passing.items()):
            if at > now:
                continue
            del self._passing[path]
            with suppress(OSError):
                age = self._clock.now() - os.lstat(path).st_ctime_ns // 1000
                if age < after and self._clock.now() - what[1] < _MOST_PUT_OFF * after:
                    self._put_off(path, what)
                    continue
            due[path] = what
        return due

    # ---------------------------------------------------------------------------------------------- scanning

    async def _begin(self, emit: Emit, watching: Watching) -> None:
        loop = asyncio.get_running_loop()
        unwatched = getattr(watching, "unwatched", 0) or len(getattr(watching, "unmarked", ()))
        if unwatched:
            words = f"integrity: {unwatched} folders or trees are not watched: scans alone see what changes there"
            watched = {"vedette.integrity.count": unwatched, "vedette.integrity.watched_by": watching.name}
            await self._say(emit, [record(words, NOT_WATCHED, self._clock.now(), watched)])
        baseline = self._known.baseline
        if baseline is not None:
            if self._cursor and baseline.digest != self._cursor:
                self._counter.add("integrity_baseline_altered")
                words = "integrity: the baseline is not the one that was written here: what it says proves nothing"
                other = {"file.path": str(baseline.path), "vedette.integrity.digest": baseline.digest}
                await self._say(emit, [record(words, ALTERED, self._clock.now(), other)])
            held: dict[str, Any] = {"vedette.integrity.digest": baseline.digest}
            words = f"integrity: {baseline.footer.rows} paths are known; watched by {watching.name}"
            await self._say(emit, [record(words, HELD, self._clock.now(), held)])
            self._scan_now.set()
            return
        if self._cursor:
            # Whoever takes it away has all that is there now taken for good.
            self._counter.add("integrity_baseline_altered")
            words = "integrity: the baseline that was written here is gone: what changed until now is not known"
            gone = {"file.path": str(self._known.folder / BASELINE)}
            await self._say(emit, [record(words, ALTERED, self._clock.now(), gone)])
        rows, gaps = await loop.run_in_executor(self._threads, self._look.first)
        words = f"integrity: {rows} paths taken down; watched by {watching.name}"
        about = {
            "vedette.integrity.count": rows,
            "vedette.integrity.watched_by": watching.name,
            "vedette.integrity.digest": self._digest(),
        }
        await self._say(emit, [record(words, BEGAN, self._clock.now(), about)])
        await self._say_gaps(emit, gaps)

    async def _scan(self, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        every, full_every = (parse_duration(one) / 1e6 for one in (self._settings.every, self._settings.full_every))
        full_at = loop.time() + full_every
        while True:
            try:
                async with asyncio.timeout(every):
                    await self._scan_now.wait()
            except TimeoutError:
                pass
            self._scan_now.clear()
            lost, self._lost = self._lost, False
            if lost:
                words = "integrity: more happened than could be taken down; all is looked at, but not who did it"
                await self._say(
                    emit, [record(words, LOST, self._clock.now(), {"vedette.integrity.reason": "queue-full"})]
                )
            full = loop.time() >= full_at
            if full:
                full_at = loop.time() + full_every
            seen = await loop.run_in_executor(self._threads, self._look.all, full)
            await self._tell(emit, seen)
            await self._say_gaps(emit, seen.gaps)
            self._counter.add("integrity_scans", "full" if full else "quick")
            await self._advance(emit)

    async def _advance(self, emit: Emit) -> None:
        """What needs nobody becomes part of the baseline; its new digest is told, and kept where the host cannot."""
        before = self._digest()
        count = await asyncio.get_running_loop().run_in_executor(self._threads, self._look.advance)
        if count:
            words = f"integrity: {count} paths are part of the baseline now"
            about = {
                "vedette.integrity.count": count,
                "vedette.integrity.digest": self._digest(),
                "vedette.integrity.before.digest": before,
            }
            await self._say(emit, [record(words, ADVANCED, self._clock.now(), about)])

    def _digest(self) -> str:
        return self._known.baseline.digest if self._known.baseline is not None else ""

    async def _keep(self, emit: Emit) -> None:
        """Put down what was told once it is committed: it may be told again, never lost. Hear what was accepted."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            for request in await loop.run_in_executor(self._threads, self._requests):
                await self._accept(emit, request)
            if loop.time() - self._told_at >= _COMMITTED:
                await loop.run_in_executor(self._threads, self._known.save)

    async def _accept(self, emit: Emit, request: dict[str, Any]) -> None:
        paths = request["paths"]
        accepted = self._known.accept(None if paths is None else [bytes(one) for one in paths])
        records = []
        for path in accepted:
            words = f"accepted: {decode(path)} by {request['who']}: {request['reason']}"
            about = {
                "file.path": decode(path),
                "vedette.integrity.accepted_by": request["who"],
                "event.reason": request["reason"],
            }
            records.append(record(words, ACCEPTED, self._clock.now(), about))
        await self._say(emit, records)
        await self._advance(emit)

    # ---------------------------------------------------------------------------------------------- telling

    async def _tell(self, emit: Emit, seen: Seen, due: Container[bytes] = ()) -> None:
        changes: Sequence[Change] = [
            one for one in seen.changes if one.path in due or not self._put_off(one.path, (one.who, one.at, False))
        ]
        if not changes:
            return
        loop = asyncio.get_running_loop()
        if self._voucher is not None:
            vouchings = await loop.run_in_executor(self._threads, self._voucher.vouch, changes)
        else:
            vouchings = [None] * len(changes)
        records: list[dict[str, Any]] = []
        texts = await loop.run_in_executor(self._threads, self._texts, changes)
        for change, vouching, text in zip(changes, vouchings, texts, strict=True):
            made = change_record(change, vouching)
            if text:
                made["vedette"]["integrity"]["diff"] = text
            self._known.settle(change, made, settled=vouching is not None and vouching.lowers)
            self._counter.add("integrity_changes", change.kind)
            records.append(made)
        most = self._settings.burst
        if len(records) > most:
            words = f"integrity: {len(records)} changes at once, of which {most} are told; `vedette integrity check`"
            about = {"vedette.integrity.count": len(records)}
            self._counter.add("integrity_untold", n=len(records) - most)
            records = [*records[:most], record(words, BURST, self._clock.now(), about)]
        await self._say(emit, records)

    def _texts(self, changes: Sequence[Change]) -> list[str]:
        """What changed in configuration files, in words; empty where that is nobody's business or not known."""
        if self._differences is None:
            return [""] * len(changes)
        found = [self._differences.of(change) for change in changes]
        for one in found:
            if one is not None and one.why is not None:
                self._counter.add("integrity_differences_missing", one.why)
        return [one.text if one is not None else "" for one in found]

    async def _say_gaps(self, emit: Emit, gaps: Sequence[tuple[bytes, str]]) -> None:
        records = []
        for path, reason in gaps[:_MOST_GAPS]:
            named = {"file.path": decode(path), "vedette.integrity.reason": reason}
            records.append(record(f"not looked at: {decode(path)}: {reason}", UNSEEN, self._clock.now(), named))
        if len(gaps) > _MOST_GAPS:
            words = f"not looked at: {len(gaps) - _MOST_GAPS} more paths"
            about: dict[str, Any] = {"vedette.integrity.count": len(gaps) - _MOST_GAPS}
            records.append(record(words, UNSEEN, self._clock.now(), about))
        await self._say(emit, records)

    async def _say(self, emit: Emit, records: Sequence[dict[str, Any]]) -> None:
        for first in range(0, len(records), _TOGETHER):
            some = records[first : first + _TOGETHER]
            batch = self._teller.batch(some, self._position, self._digest(), self._clock.now())
            self._position += len(some)
            self._told_at = asyncio.get_running_loop().time()
            await emit(batch)

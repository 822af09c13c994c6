"""The source `rootkit`: looks on schedule and tells what is new, what is gone, and what cannot be checked.
Counterpart: `look` does the looking; `parsers.kinds` knows the records, `rules/packs/rootkit.yml` judges them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.model.protocols import Counter, Emit
from vedette.sources.rootkit.files import Known
from vedette.sources.rootkit.look import look_around
from vedette.sources.rootkit.traces import (
    Blind,
    Check,
    Key,
    Look,
    Record,
    TraceKind,
    blind_record,
    facts_record,
    found_record,
    gone_record,
    sighted_record,
)
from vedette.sources.settings import RootkitSettings, seconds
from vedette.sources.told import Teller
from vedette.text.escape import terminal

NAME = "rootkit"
_FORMAT, _VERSION = "vedette-rootkit", 1
_OF_FILES = frozenset(
    {
        TraceKind.SET_ID_FILE, TraceKind.WORLD_WRITABLE, TraceKind.IMMUTABLE_FILE, TraceKind.KNOWN_PATH,
        TraceKind.KNOWN_STRINGS,
    }
)  # fmt: skip
"""Seen only where the file trees were walked."""
_CHECKS_OF_FILES = frozenset({Check.FILES, Check.ATTRIBUTES, Check.SIGNATURES})
_EVENTS = frozenset({TraceKind.SET_ID_FILE, TraceKind.AUTHORISED_KEY, TraceKind.AUTHENTICATION_CHANGED})
"""Found by holding a look against the one before: that the next one does not see it means nothing."""


class _Standing(msgspec.Struct):
    kind: str
    subject: str
    level: str
    since: int


class _Kept(msgspec.Struct):
    """Everything the cursor holds."""

    name: str
    version: int
    position: int
    standing: list[_Standing]
    blind: list[tuple[str, str]]
    known: Known


class Telling:
    """What is known from look to look; pure."""

    def __init__(self, cursor: str = "") -> None:
        self.known = Known()
        self.position = 0
        self._standing: dict[Key, _Standing] = {}
        self._blind: set[tuple[str, str]] = set()
        if cursor:
            self._restore(cursor)

    def _restore(self, cursor: str) -> None:
        try:
            kept = msgspec.json.decode(cursor, type=_Kept)
        except msgspec.MsgspecError as error:
            raise StateError(f"the cursor of the source rootkit cannot be read: {error}") from None
        if (kept.name, kept.version) != (_FORMAT, _VERSION):
            raise StateError(
                f"the cursor of the source rootkit is {kept.name} version {kept.version}, known is {_VERSION}",
                hint="run the newer program, or take the source's cursor away: everything is then told again",
            )
        self.known, self.position = kept.known, kept.position
        self._standing = {(one.kind, one.subject): one for one in kept.standing}
        self._blind = set(kept.blind)

    def cursor(self) -> str:
        """Everything that must outlive a restart."""
        kept = _Kept(
            _FORMAT, _VERSION, self.position, list(self._standing.values()), sorted(self._blind), self.known
        )  # fmt: skip
        return msgspec.json.encode(kept).decode()

    def tell(self, look: Look, now: int, *, files: bool) -> list[Record]:
        """The records of one look. files: whether it walked the file trees."""
        records: list[Record] = []
        seen: set[Key] = set()
        for trace in look.traces:
            before = self._standing.get(trace.key)
            seen.add(trace.key)
            if before is None or before.level != trace.level.label:
                records.append(found_record(trace, now))
                self._standing[trace.key] = _Standing(*trace.key, trace.level.label, now)
        for key, standing in list(self._standing.items()):
            kind = TraceKind(standing.kind)
            if key in seen or (kind in _OF_FILES and not files) or self._unsure(kind, look):
                continue
            del self._standing[key]
            if kind not in _EVENTS:
                records.append(gone_record(key, standing.level, standing.since, now))
        blind = {(check.value, why.value): times for (check, why), times in look.blind.items()}
        for (check, why), times in blind.items():
            if (check, why) not in self._blind:
                records.append(blind_record(check, why, times, now))
        for check, why in sorted(self._blind - blind.keys()):
            if files or Check(check) not in _CHECKS_OF_FILES:
                records.append(sighted_record(check, why, now))
                self._blind.discard((check, why))
        self._blind |= blind.keys()
        return records

    def _unsure(self, kind: TraceKind, look: Look) -> bool:
        """What a check did not see that broke, or could not look, is not over."""
        check = _CHECK_OF.get(kind)
        return any(
            one is check and why in (Blind.FAILED, Blind.UNREADABLE, Blind.TOO_MUCH, Blind.HIDEPID)
            for one, why in look.blind
        )


_CHECK_OF = {
    TraceKind.HIDDEN_PROCESS: Check.PROCESSES,
    TraceKind.HIDDEN_PORT: Check.PORTS,
    TraceKind.DELETED_EXECUTABLE: Check.EXECUTABLES,
    TraceKind.MEMORY_EXECUTABLE: Check.EXECUTABLES,
    TraceKind.PRELOADED_LIBRARY: Check.PRELOADING,
    TraceKind.HIDDEN_MODULE: Check.MODULES,
    TraceKind.UNSIGNED_MODULE: Check.MODULES,
    TraceKind.TAINTED_KERNEL: Check.MODULES,
    TraceKind.PROMISCUOUS_INTERFACE: Check.INTERFACES,
    TraceKind.SET_ID_FILE: Check.FILES,
    TraceKind.WORLD_WRITABLE: Check.FILES,
    TraceKind.IMMUTABLE_FILE: Check.FILES,
    TraceKind.AUTHORISED_KEY: Check.KEYS,
    TraceKind.AUTHENTICATION_CHANGED: Check.AUTHENTICATION,
    TraceKind.KNOWN_PATH: Check.SIGNATURES,
    TraceKind.KNOWN_STRINGS: Check.SIGNATURES,
}

LookAround = Callable[[RootkitSettings, Known, bool, threading.Event], Look]
"""Looks, walks the file trees where the third says so, and changes what is known. Blocks for seconds, and ends with
StoppedError soon after the event is set."""


def look_here(settings: RootkitSettings, known: Known, files: bool, stop: threading.Event) -> Look:
    """In this process, as far as it may."""
    return look_around(settings, known, files=files, stop=stop)


class RootkitSource:
    """Emits `trace-found`, `trace-gone`, `check-missing` and `check-resumed`. The first look learns what is there."""

    # What a look changes of `known` while it runs is kept only with the records that tell of it: the cursor is written
    # when both are there.

    def __init__(
        self,
        settings: RootkitSettings,
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursor: str = "",
        look: LookAround = look_here,
        begin: Callable[[], None] = lambda: None,
        chance: random.Random | None = None,
    ) -> None:
        self.name = NAME
        self.begun = asyncio.Event()
        self._settings = settings
        self._look = look
        self._clock = clock
        self._counter = counter
        self._telling = Telling(cursor)
        self._teller = Teller(host_id, NAME, clock.now())
        self._begin = begin
        self._chance = chance or random.SystemRandom()

    async def run(self, emit: Emit) -> None:
        """Look and emit until cancelled; a look that runs then is ended."""
        self.begun.set()
        loop = asyncio.get_running_loop()
        stop, known = threading.Event(), self._telling.known
        files_due = 0
        with ThreadPoolExecutor(1, NAME, initializer=self._begin) as thread:
            try:
                while True:
                    now = self._clock.now()
                    files = now >= files_due
                    look = await loop.run_in_executor(thread, self._look, self._settings, known, files, stop)
                    if files:
                        files_due = now + int(seconds(self._settings.files_every) * 1e6)
                    await self._tell(look, files, emit)
                    await asyncio.sleep(seconds(self._settings.every) * self._chance.uniform(0.9, 1.1))
            finally:
                stop.set()

    def _facts(self) -> list[tuple[str, Mapping[str, str]]]:
        known = self._telling.known
        # The number of a file is its own on each host; its rights are the same on all.
        set_id = {terminal(path): what.rpartition("/")[0] for path, what in known.set_id.items()}
        return [
            ("set-uid-files", set_id),
            ("authorised-keys", dict.fromkeys(known.keys, "there")),
            ("authentication-files", {path: digest[:32] for path, digest in known.authentication.items()}),
            ("units", known.units),
            ("packages", known.packages),
            ("listeners", known.listeners),
        ]

    async def _tell(self, look: Look, files: bool, emit: Emit) -> None:
        for (check, why), times in look.blind.items():
            self._counter.add("rootkit_unchecked", f"{check.value}:{why.value}", times)
        for trace in look.traces:
            self._counter.add("rootkit_traces", trace.kind)
        now = self._clock.now()
        records = self._telling.tell(look, now, files=files)
        if files:
            records += [facts_record(kind, facts, now) for kind, facts in self._facts()]
        first, self._telling.position = self._telling.position, self._telling.position + len(records)
        # Without a record too: what was learned must outlive a restart.
        await emit(self._teller.batch(records, first, self._telling.cursor(), now))

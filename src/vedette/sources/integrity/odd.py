"""The source `odd`: on a hub, hosts that should be alike held against each other on schedule, told as records.
Counterpart: `alike` compares, `app.odd_watch` hands in what the lake holds; `rules/packs/odd.yml` gives levels."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.model.protocols import Counter, Emit
from vedette.sources.integrity.alike import Odd, Told
from vedette.sources.integrity.records import DATASET
from vedette.sources.told import Teller
from vedette.text.times import rfc3339

NAME = "odd"
DIFFER, DIFFER_OVER, UNKNOWN = "hosts-differ", "hosts-differ-over", "integrity-baseline-unknown"
EVERY = 900.0
"""Seconds between two looks: facts come every six hours from each host, at its own time."""
MANY = 20
"""Things of one kind that the same hosts have otherwise, from which on they are told as one."""
_TOGETHER = 200
_SHOWN = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A baseline of a host that is not the one it told before. digest: the unknown one, hexadecimal; anew: a baseline
    was made though there was one."""

    host_id: str
    digest: str
    anew: bool


@dataclass(slots=True)
class Gathered:
    """What is known at one look. groups: host ids by the name of the group. names: of hosts, by id. through: how far
    the lake was read for `rewritten`."""

    told: Told
    groups: Mapping[str, Sequence[str]]
    names: Mapping[str, str]
    rewritten: Sequence[Rewritten] = ()
    through: int = 0


class _Cursor(msgspec.Struct):
    """stands: by group, kind and key what was told, so that it is told once, and its end. through: as `Gathered`."""

    stands: dict[str, str] = {}
    through: int = 0


@dataclass(slots=True)
class _Thing:
    """One record: what some hosts of a group have otherwise."""

    group: str
    kind: str
    key: str
    odd: list[Odd] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "\0".join((self.group, self.kind, self.key))


class OddSource:
    """Emits a record a thing that begins, changes or is over; what stands is in its cursor.

    gather: called in a thread with how far the lake was read; StateError or OSError = it cannot be read now, and is
    tried at the next look. least, most: as `alike.odd_ones`.
    """

    def __init__(
        self,
        gather: Callable[[int], Gathered],
        *,
        host_id: str,
        clock: Clock,
        counter: Counter,
        cursor: str = "",
        every: float = EVERY,
        least: int = 5,
        most: float = 0.1,
    ) -> None:
        """every: seconds."""
        self.name = NAME
        self.begun = asyncio.Event()
        self._gather = gather
        self._clock, self._counter = clock, counter
        self._every, self._least, self._most = every, least, most
        self._teller = Teller(host_id, NAME, clock.now())
        self._position = 0
        try:
            self._kept = msgspec.json.decode(cursor, type=_Cursor) if cursor else _Cursor()
        except msgspec.DecodeError:
            # Then all that stands is told again, to the same alerts.
            counter.add("odd_cursors_unread")
            self._kept = _Cursor()

    async def run(self, emit: Emit) -> None:
        """Look and emit until cancelled."""
        self.begun.set()
        while True:
            try:
                records = await asyncio.to_thread(self._look)
            except (StateError, OSError) as error:
                self._counter.add("odd_looks_failed")
                log.warning("like hosts cannot be compared, and it is tried again", reason=str(error))
            else:
                self._counter.add("odd_looks")
                cursor = msgspec.json.encode(self._kept).decode()
                while len(records) > _TOGETHER:
                    # Without a cursor: until all of it is committed, all of it is told again.
                    await self._tell(emit, records[:_TOGETHER], "")
                    records = records[_TOGETHER:]
                await self._tell(emit, records, cursor)
            await asyncio.sleep(self._every)

    async def _tell(self, emit: Emit, records: Sequence[dict[str, Any]], cursor: str) -> None:
        if records or cursor:
            await emit(self._teller.batch(records, self._position, cursor, self._clock.now()))
            self._position += len(records)

    def _look(self) -> list[dict[str, Any]]:
        gathered = self._gather(self._kept.through)
        records = [self._rewritten(one, gathered.names) for one in gathered.rewritten]
        compared: set[tuple[str, str]] = set()
        stands: dict[str, str] = {}
        for group, hosts in gathered.groups.items():
            for kind in gathered.told.kinds():
                if len(gathered.told.hosts(kind) & set(hosts)) < self._least:
                    continue
                compared.add((group, kind))
                odd = gathered.told.odd(kind, hosts, least=self._least, most=self._most)
                for thing in _things(group, kind, odd):
                    made = self._begins(thing, gathered.names)
                    stands[thing.name] = made["message"]
                    if self._kept.stands.get(thing.name) != made["message"]:
                        records.append(made)
                        self._counter.add("odd_things", kind.partition(" of ")[0])
        for name, message in self._kept.stands.items():
            if name in stands:
                continue
            group, kind, key = name.split("\0", 2)
            if group in gathered.groups and (group, kind) not in compared and kind in gathered.told.kinds():
                # Too few told of it lately to say that it is over.
                stands[name] = message
            elif group in gathered.groups and not gathered.told.kinds():
                stands[name] = message
            else:
                about = {"group": group, "kind": kind, "key": key}
                records.append(self._record(f"over: {message}", DIFFER_OVER, about))
        self._kept = _Cursor(stands, max(self._kept.through, gathered.through))
        return records

    def _begins(self, thing: _Thing, names: Mapping[str, str]) -> dict[str, Any]:
        ids = sorted({host for one in thing.odd for host in one.hosts})
        hosts = [names.get(host, host) for host in ids]
        first = thing.odd[0]
        who = ", ".join(hosts[:_SHOWN]) + (f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else "")
        if thing.key == "*":
            keys = ", ".join(one.key for one in thing.odd[:_SHOWN])
            what = f"{len(thing.odd)} {thing.kind}: {keys} and others"
        else:
            values = " or ".join(one.value or "not there" for one in thing.odd)
            what = f"{thing.kind} {thing.key}: {values}, on the others {first.usual or 'not there'}"
        of_group = f" of group {thing.group}" if thing.group else ""
        about = {
            "group": thing.group,
            "kind": thing.kind,
            "key": thing.key,
            "value": [one.value or "not there" for one in thing.odd][:_SHOWN],
            "usual": first.usual or "not there",
            "hosts": hosts,
            "host_ids": ids,
            "count": len(ids),
            "of": first.of,
        }
        return self._record(f"{len(ids)} of {first.of}{of_group} differ: {what}: {who}", DIFFER, about)

    def _rewritten(self, one: Rewritten, names: Mapping[str, str]) -> dict[str, Any]:
        self._counter.add("odd_baselines")
        name = names.get(one.host_id, one.host_id)
        what = "was made anew" if one.anew else "is not the one it told before"
        about = {"kind": "baseline", "key": one.host_id}
        made = self._record(f"{name}: its integrity baseline {what}: {one.digest}", UNKNOWN, about)
        made["host"] = {"id": one.host_id, "name": name}
        made["vedette"]["integrity"] |= {"digest": one.digest, "reason": "made-anew" if one.anew else "rewritten"}
        return made

    def _record(self, message: str, action: str, about: Mapping[str, Any]) -> dict[str, Any]:
        event = {"kind": "state", "category": ["host"], "action": action, "dataset": DATASET}
        # The group of those that are in none has no name of its own.
        odd = {name: value for name, value in {**about, "group": about.get("group") or "-"}.items() if value != ""}
        return {
            "message": message,
            "@timestamp": rfc3339(self._clock.now()),
            "event": event,
            "vedette": {"integrity": {"odd": odd}},
        }


def _things(group: str, kind: str, odd: Iterable[Odd]) -> list[_Thing]:
    """By key; where the same hosts have many things of a kind otherwise, all of those as one."""
    by_hosts: dict[tuple[str, ...], list[Odd]] = defaultdict(list)
    for one in odd:
        by_hosts[one.hosts].append(one)
    found: dict[str, _Thing] = {}
    for some in by_hosts.values():
        for one in some:
            key = "*" if len(some) > MANY else one.key
            found.setdefault(key, _Thing(group, kind, key)).odd.append(one)
    return list(found.values())

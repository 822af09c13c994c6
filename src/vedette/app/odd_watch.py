"""What a hub's source `odd` compares: facts and digests of baselines that agents told, as the lake holds them.
Counterpart: `sources.integrity.odd` judges and tells; the hub hands in its lake and who belongs to the fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from vedette.app.search_plan import literals_of
from vedette.model.batch import RecordFormat, Trust
from vedette.model.clock import DAY, Clock
from vedette.model.fleet import Agent, AgentState
from vedette.model.protocols import Counter
from vedette.model.rules import Op, Test
from vedette.sources.integrity.alike import Told
from vedette.sources.integrity.known import NAME as INTEGRITY
from vedette.sources.integrity.odd import Gathered, OddSource, Rewritten
from vedette.sources.integrity.records import flat
from vedette.sources.integrity.source import ADVANCED, BEGAN, HELD
from vedette.sources.rootkit.source import NAME as ROOTKIT
from vedette.store.lake.reader import END, Scan

if TYPE_CHECKING:
    from vedette.app.search import Scanned

TOLD_WITHIN = 2 * DAY
"""How old facts may be: a host tells them every six hours, and one that was away is not what it was."""
_BASELINES = (BEGAN, ADVANCED, HELD)


def odd_source(
    lake: Scanned,
    agents: Callable[[], Sequence[Agent]],
    *,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursor: str,
) -> OddSource:
    """The source over a hub's lake. agents: who belongs to the fleet; asked in a thread."""

    def gather(through: int) -> Gathered:
        return gathered(lake, agents(), through, clock.now())

    return OddSource(gather, host_id=host_id, clock=clock, counter=counter, cursor=cursor)


def gathered(lake: Scanned, agents: Sequence[Agent], through: int, now: int) -> Gathered:
    """What was told lately, and which baselines of those behind `through` no host's own words lead to."""
    groups: dict[str, list[str]] = defaultdict(list)
    names = {}
    for agent in agents:
        if agent.state is AgentState.ACTIVE:
            groups[agent.group].append(agent.host_id)
            names[agent.host_id] = agent.name
    told = Told()
    newest = through
    touched: set[str] = set()
    for place, record in _records(lake, Scan(now - TOLD_WITHIN, END, streams=frozenset({INTEGRITY, ROOTKIT}))):
        if record["host.id"] not in names:
            continue
        told.add(record)
        newest = max(newest, place[0])
        if place[0] > through and record.get("event.action") in _BASELINES:
            touched.add(record["host.id"])
    rewritten = [one for host_id in sorted(touched) for one in _rewritten(lake, host_id, through)]
    return Gathered(told, groups, names, rewritten, newest)


def _rewritten(lake: Scanned, host_id: str, through: int) -> Iterator[Rewritten]:
    """Baselines of a host, told behind `through`, that none it told before became.

    Each is told with the one it was made from. Where the lake holds nothing older, nothing is known, and nothing said.
    """
    told = literals_of(Test("event.action", Op.EQUALS, _BASELINES))
    scan = Scan(hosts=frozenset({host_id}), streams=frozenset({INTEGRITY}), literals=told)
    known: set[str] = set()
    for (sequence, _), record in sorted(_records(lake, scan), key=lambda one: one[0]):
        action, digest = record.get("event.action"), str(record.get("vedette.integrity.digest", ""))
        if action not in _BASELINES or not digest:
            continue
        before = digest if action == HELD else str(record.get("vedette.integrity.before.digest", ""))
        if known and sequence > through and digest not in known:
            if action == BEGAN:
                yield Rewritten(host_id, digest, anew=True)
            elif before and before not in known:
                yield Rewritten(host_id, before, anew=False)
        known.add(digest)


def _records(lake: Scanned, scan: Scan) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Place and flat fields of what sources of agents told; what only passed through a host is not believed."""
    for part in lake.scan(scan):
        if part.batch.format is not RecordFormat.JSON:
            continue
        for row in range(len(part.batch)):
            if part.batch.trust_of(row) < Trust.ATTESTED:
                continue
            try:
                record = orjson.loads(part.batch.raw(row))
            except orjson.JSONDecodeError:
                continue  # the parsers count it
            if isinstance(record, dict):
                place = part.sequence, int(part.rows[row])
                yield place, {**dict(flat(record)), "host.name": "", "host.id": part.key.host_id}

"""What loggers say they lost, and which of them ended: per stream, for the reports of an agent.
Counterpart: `detections.Engine` hands in every batch's matches; `fleet.completeness` judges what reports say of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from vedette.detections.matches import Matches
from vedette.model.batch import Batch, Trust
from vedette.model.errors import StateError
from vedette.model.events import Column, Value
from vedette.model.findings import key_text
from vedette.model.levels import Level
from vedette.model.rules import LogSource, Op, Rule, Test
from vedette.model.shipping import SourceState

LOST, STOPPED, STARTED = "logging-suppressed", "logging-stopped", "logging-started"
_ID = "vedette-upstream-"
RULES = tuple(
    Rule(
        id=f"{_ID}{service}",
        name="A logger speaks of itself",
        level=Level.INFORMATIONAL,
        when=Test("event.action", Op.EQUALS, (LOST, STOPPED, STARTED)),
        logsource=LogSource(product="linux", service=service),
        # Not for alerts, it makes none: what is wanted of its records.
        key=("event.action", "vedette.service", "vedette.logging.lost"),
        silent=True,
    )
    for service in ("systemd-journald", "rsyslogd", "auditd", "kernel")
)
"""Given to the matcher beside the others; silent, and no rule counts them."""
_TOTAL = b"audit_lost="
"""The kernel says here how many it lost since it began."""
_MOST, _MOST_STREAMS, _MOST_LOST = 100, 1_000, 1 << 31
"""Whoever can write a log must not fill our memory, nor make a number of a report too large."""
_KEY = "source"


OWNER, VERSION = "vedette-upstream", 1
"""Under this name, which no rule has, its rows stand among the state of correlations; one row a stream."""


class _Stored(msgspec.Struct):
    name: str
    version: int
    stopped: dict[str, tuple[int, int]]
    total: dict[str, int]


@dataclass(slots=True)
class _Stream:
    """lost: by logger; stopped: logger -> (when, how sure); total: as the kernel counts, by host. The last two are
    kept over a restart: a logger that ended does not run because we began anew."""

    lost: dict[str, int] = field(default_factory=dict)
    stopped: dict[str, tuple[int, int]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)


class Upstream:
    """Counts from its beginning on. `see` and `changes` in the engine's thread, the others in any.

    rules: as the matcher has them, `RULES` among them. What is lost and that a logger ended is believed of anybody;
    that it runs again only of those who are at least as sure as who said that it ended.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = {index for index, rule in enumerate(rules) if rule.id.startswith(_ID)}
        self._streams: dict[str, _Stream] = {}
        self._changed: set[str] = set()
        self._lock = threading.Lock()

    def see(self, batch: Batch, matches: Matches) -> None:
        """The records of one batch, in order."""
        rows = sorted({int(row) for index in self._rules & matches.hits.keys() for row in matches.hits[index]})
        if not rows:
            return
        columns = [matches.fields.get(name) for name in ("event.action", "vedette.service", "vedette.logging.lost")]
        hosts = matches.fields.get("host.name")
        with self._lock:
            if batch.origin.source not in self._streams and len(self._streams) >= _MOST_STREAMS:
                return
            stream = self._streams.setdefault(batch.origin.source, _Stream())
            self._changed.add(batch.origin.source)
            for row in rows:
                action, service, lost = (_value(column, row) for column in columns)
                trust = int(matches.trust[row])
                logger = str(service)
                if trust == Trust.NETWORK:
                    # Many hosts may speak in one stream, and each has such a logger.
                    logger = f"{_value(hosts, row) or '?'} {logger}"
                if action == LOST:
                    count = min(lost, _MOST_LOST) if isinstance(lost, int) and lost > 0 else 1
                    if _TOTAL in batch.raw(int(matches.rows[row])):
                        count = self._since_last(stream, logger, count)
                    _add(stream.lost, logger, count * max(int(matches.repeat[row]), 1))
                elif action == STOPPED and (logger in stream.stopped or len(stream.stopped) < _MOST):
                    when = min(int(matches.time[row]), batch.read_at)
                    stream.stopped[logger] = (when, trust)
                elif action == STARTED and stream.stopped.get(logger, (0, 0))[1] <= trust:
                    stream.stopped.pop(logger, None)

    @staticmethod
    def _since_last(stream: _Stream, logger: str, total: int) -> int:
        """How many are new; after a boot the kernel counts anew."""
        before = stream.total.get(logger, 0)
        if logger in stream.total or len(stream.total) < _MOST:
            stream.total[logger] = total
        return total - before if total >= before else total

    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """Rows to be committed with the cursors since the last call, None = gone."""
        changed: dict[tuple[str, str], bytes | None] = {}
        with self._lock:
            for source in self._changed:
                stream = self._streams[source]
                stored = _Stored(OWNER, VERSION, stream.stopped, stream.total)
                is_empty = not (stream.stopped or stream.total)
                changed[OWNER, key_text({_KEY: source})] = None if is_empty else msgspec.json.encode(stored)
            self._changed.clear()
        return changed

    def restore(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Take up the rows that `changes` gave; StateError for damaged ones."""
        try:
            for owner, key, data in rows:
                if owner != OWNER:
                    continue
                stored = msgspec.json.decode(data, type=_Stored)
                if stored.name != OWNER or stored.version > VERSION:
                    raise ValueError(f"{stored.name} version {stored.version} is newer than {VERSION}")
                source = str(dict(msgspec.json.decode(key))[_KEY])
                self._streams[source] = _Stream(stopped=stored.stopped, total=stored.total)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"what loggers said of themselves is damaged: {error}") from None

    def lost(self, source: str) -> Mapping[str, int]:
        """Records lost so far in this session, by logger, as `SourceState.upstream`."""
        with self._lock:
            stream = self._streams.get(source)
            return dict(stream.lost) if stream is not None else {}

    def stopped(self, source: str) -> Mapping[str, int]:
        """Loggers that do not run, and since when, as `SourceState.loggers_stopped`."""
        with self._lock:
            stream = self._streams.get(source)
            return {logger: when for logger, (when, _) in stream.stopped.items()} if stream is not None else {}

    def told(self, states: Mapping[str, SourceState]) -> dict[str, SourceState]:
        """The states of a report, with what loggers said in these streams."""
        return {
            name: replace(state, upstream=self.lost(name), loggers_stopped=self.stopped(name))
            for name, state in states.items()
        }


def _value(column: Column | None, row: int) -> Value:
    return None if column is None else column.value(row)


def _add(counts: dict[str, int], name: str, n: int) -> None:
    if n > 0 and (name in counts or len(counts) < _MOST):
        counts[name] = counts.get(name, 0) + n

"""Tells from reports, what is stored and the clock what is missing; each fault begins once and ends once. Pure.
Counterpart: `sources.liveness` asks on schedule and makes records of it; docs/completeness.md has the table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec

from vedette.fleet.completeness_state import Held, Host, Limits, Remembered, Standing, Stream, restored
from vedette.model.liveness import KEYED, Fault, LivenessEvent, LivenessReason
from vedette.model.reasons import DropReason
from vedette.model.shipping import Dropped, Report, SourceState

_MOST_STREAMS, _MOST_FORMER, _MOST_MARKS, _MOST_NAMES, _MOST_IDS = 1_000, 8, 16, 100, 1_000
"""An agent that lies must not fill our memory."""

Key = tuple[Fault, str, str, str]
"""Fault, host id, stream, and a reason (of `KEYED`) or a group."""
Ranges = Iterable[tuple[int, int]]
"""First and last, both included, sorted."""
Wanted = dict[Key, tuple[int, str, int]]
"""What is so now: since, reason, count."""


class Completeness:
    """The judge. `report`, `stored` and `storage` say what is known, `look` what follows from it.

    What is so is worked out anew at every look and compared with what was said: so neither a repeated nor a lost report
    can say anything twice. A host that is not heard keeps what it has until it is. One thread at a time.
    """

    def __init__(self, now: int, limits: Limits | None = None, cursor: str = "") -> None:
        """now: from when on silence counts, since nobody listened before. StateError for a newer cursor."""
        self._began = now
        self._limits = limits or Limits()
        self._all: Remembered = restored(cursor)
        self._waiting_since = 0
        self._storing = False
        """Where nobody says what is stored, nothing is late."""

    def cursor(self) -> str:
        """All that is to be remembered."""
        return msgspec.json.encode(self._all).decode()

    # ------------------------------------------------------------------------------------------- what is known

    def member(self, host_id: str, name: str, now: int, *, retired: bool = False) -> None:
        """That this host belongs to the fleet, or does no longer; one that never reports is absent too."""
        host = self._host(host_id, now)
        host.name = name or host.name
        host.retired = retired

    def _host(self, host_id: str, now: int) -> Host:
        host = self._all.hosts.get(host_id)
        if host is None:
            host = self._all.hosts[host_id] = Host(heard=now)
        return host

    def report(self, report: Report, now: int) -> bool:
        """Take what an agent says of itself; False where it is a repeat or older than what is known."""
        host = self._host(report.host_id, now)
        known = host.session
        if report.session == known:
            if report.sequence <= host.sequence:
                return False
        elif known:
            quiet = now - host.heard >= self._limits.absent
            former = host.former.get(report.session)
            if former is not None and not quiet:
                # Made after the session that followed it began: both are alive.
                if report.sequence > former and report.at > host.started_at:
                    self._hold((Fault.AGENT_DOUBLED, report.host_id, "", ""), now, 1)
                host.former[report.session] = max(former, report.sequence)
                return False
            if report.started_at < host.started_at and not quiet and report.at <= host.at:
                self._former(host, report.session, report.sequence)
                return False
            if report.started_at < host.started_at:
                self._hold((Fault.STREAM_REWOUND, report.host_id, "", LivenessReason.SESSION.value), now, 1)
            self._former(host, known, host.sequence)
        self._take(host, report, now, anew=report.session != known)
        return True

    @staticmethod
    def _former(host: Host, session: str, sequence: int) -> None:
        host.former[session] = sequence
        while len(host.former) > _MOST_FORMER:
            del host.former[next(iter(host.former))]

    def _take(self, host: Host, report: Report, now: int, *, anew: bool) -> None:
        away = anew or now - host.heard > self._limits.absent
        # By the name it joined under: one that changed would leave what it began standing.
        host.name = host.name or report.host_name
        host.session, host.sequence = report.session, report.sequence
        host.at, host.started_at, host.heard, host.skew = report.at, report.started_at, now, report.at - now
        host.stopping, host.spooled, host.spool_room = report.stopping, report.spooled, report.spool_room
        for name, state in report.sources.items():
            if name not in host.streams and len(host.streams) >= _MOST_STREAMS:
                continue
            stream = host.streams.setdefault(name, Stream())
            self._take_stream(report.host_id, name, stream, state, now, anew=anew, away=away)
        if now - report.started_at >= self._limits.absent:
            # Sources may begin a little after the agent.
            for name in host.streams.keys() - report.sources.keys():
                stream = host.streams[name]
                if stream.number or stream.generation:
                    stream.gone_since = stream.gone_since or now

    def _take_stream(
        self, host_id: str, name: str, stream: Stream, state: SourceState, now: int, *, anew: bool, away: bool
    ) -> None:
        if state.number > stream.number:
            stream.spoke(now, not away)
            if self._storing:
                stream.marks.append((state.number, now))
            if len(stream.marks) > _MOST_MARKS:
                stream.marks = stream.marks[::2]
        if state.number < stream.high:
            certain = state.number < stream.number
            stream.low_since = stream.low_since or (now - self._limits.missing if certain else now)
        else:
            stream.low_since = 0
        # What was stored when the report before came had been put there before this one was made.
        stream.high = max(stream.high, state.number, stream.stored_high)
        if state.generation == stream.generation:
            if 0 <= state.size < stream.size:
                self._hold((Fault.SOURCE_SHRUNK, host_id, name, ""), now, stream.size - state.size)
            elif not anew and 0 <= state.position < stream.position:
                self._hold((Fault.STREAM_REWOUND, host_id, name, LivenessReason.POSITION.value), now, 1)
        for fault, before, counts in (
            (Fault.RECORDS_DROPPED, stream.dropped, state.dropped),
            (Fault.UPSTREAM_DROPPED, stream.upstream, state.upstream),
        ):
            for reason, total in counts.items():
                had = 0 if anew else before.get(reason, 0)
                if total > had:
                    shrunk = reason == DropReason.TRUNCATED_UNSEEN.value
                    self._hold(
                        (Fault.SOURCE_SHRUNK if shrunk else fault, host_id, name, "" if shrunk else reason),
                        now,
                        total - had,
                    )
        stream.number, stream.position, stream.size = state.number, state.position, state.size
        stream.generation, stream.alive, stream.reason = state.generation, state.alive, state.reason
        stream.dropped, stream.upstream = dict(state.dropped), dict(state.upstream)
        stream.loggers = dict(state.loggers_stopped)
        stream.gone_since = 0
        stream.dead_since = 0 if state.alive else stream.dead_since or now
        behind = state.size >= 0 and state.size - state.position > self._limits.lag
        stream.lag_since = (stream.lag_since or now) if behind else 0

    def _hold(self, key: Key, now: int, count: int) -> None:
        text = json.dumps(key)
        held = self._all.held.setdefault(text, Held(now, now, 0))
        held.last, held.count = now, held.count + count

    def stored(self, kept: Mapping[tuple[str, str], Ranges], dropped: Iterable[Dropped], now: int) -> None:
        """What numbers the lake has, and which it knows will never come."""
        self._storing = True
        known: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for gap in dropped:
            known.setdefault((gap.host_id, gap.stream), []).append((gap.first, gap.last))
            stream = self._host(gap.host_id, now).streams.setdefault(gap.stream, Stream())
            if gap.at > stream.dropped_at:
                stream.dropped_at = gap.at
                self._hold((Fault.RECORDS_DROPPED, gap.host_id, gap.stream, gap.reason), now, max(gap.records, 1))
        for where in kept.keys() | known.keys():
            host = self._host(where[0], now)
            stream = host.streams.setdefault(where[1], Stream())
            ranges = list(kept.get(where, ()))
            stream.stored_high = ranges[-1][1] if ranges else 0
            # An agent with nothing left to send says that all it read is here.
            through = max(stream.stored_high, stream.number) if not host.spooled else stream.stored_high
            here = sorted([*ranges, *known.get(where, ()), *stream.given_up])
            first, stream.missing = _missing(here, through)
            if first != stream.first_missing:
                stream.first_missing, stream.missing_since = first, now if first else 0
            stream.marks = [mark for mark in stream.marks if mark[0] > max(stream.stored_high, *(r[1] for r in here))]

    def storage(self, waiting_since: int) -> None:
        """Since when the oldest batch waits to be stored here; 0 = none does."""
        self._waiting_since = waiting_since

    # ------------------------------------------------------------------------------------------------- judgement

    def look(self, now: int) -> list[LivenessEvent]:
        """What began and what is over; in the order of their keys."""
        self._all.held = {key: one for key, one in self._all.held.items() if now - one.last < self._limits.hold}
        wanted: Wanted = {}
        silent: set[str] = set()
        for host_id, host in self._all.hosts.items():
            if host.retired:
                continue
            if host.heard < self._began or now - host.heard > self._limits.absent or host.stopping:
                silent.add(host_id)
            else:
                self._judge(host_id, host, now, wanted)
        self._judge_silent(silent, now, wanted)
        for text, held in self._all.held.items():
            fault, host_id, stream, reason = json.loads(text)
            if not self._retired(host_id):
                wanted[Fault(fault), host_id, stream, reason] = (held.first, reason, held.count)
        if self._waiting_since and now - self._waiting_since > self._limits.hub:
            wanted[Fault.HUB_BEHIND, "", "", ""] = (self._waiting_since, "", (now - self._waiting_since) // 1_000_000)
        for text, standing in self._all.standing.items():
            # Of a host that is not heard nothing new is known.
            fault, host_id, stream, reason = key = _key(text)
            if host_id in silent and fault not in (Fault.AGENT_ABSENT, Fault.AGENT_STOPPED):
                wanted.setdefault(key, (standing.since, standing.reason, standing.count))
        return self._compared(wanted, now)

    def _retired(self, host_id: str) -> bool:
        host = self._all.hosts.get(host_id)
        return host is not None and host.retired

    def _judge(self, host_id: str, host: Host, now: int, wanted: Wanted) -> None:
        limits = self._limits
        stands = self._all.standing

        def less(fault: Fault, limit: int) -> int:
            """What stands ends at half of what began it, so that it does not flap."""
            return limit // 2 if json.dumps((fault, host_id, "", "")) in stands else limit

        if abs(host.skew) > less(Fault.CLOCK_OFF, limits.clock):
            wanted[Fault.CLOCK_OFF, host_id, "", ""] = (now, "", host.skew // 1_000_000)
        if host.spooled > less(Fault.SPOOL_FILLING, host.spool_room // 2 or limits.spool):
            wanted[Fault.SPOOL_FILLING, host_id, "", ""] = (now, "", host.spooled)
        for name in list(host.streams):
            stream = host.streams[name]
            if stream.gone_since and now - stream.gone_since > limits.forget:
                del host.streams[name]
                continue
            self._judge_stream(host_id, name, stream, now, wanted)

    def _judge_stream(self, host_id: str, name: str, stream: Stream, now: int, wanted: Wanted) -> None:
        limits = self._limits

        def lasts(fault: Fault, since: int, limit: int, reason: str = "", count: int = 0) -> None:
            key = fault, host_id, name, reason if fault in KEYED else ""
            if since and (now - max(since, self._began) >= limit or json.dumps(key) in self._all.standing):
                wanted[key] = (since, reason, count)

        lasts(Fault.SOURCE_ABSENT, stream.gone_since, limits.gather)
        lasts(Fault.SOURCE_STOPPED, stream.dead_since, 0, stream.reason or LivenessReason.CANNOT_READ.value)
        lasts(
            Fault.STREAM_BEHIND,
            stream.lag_since,
            limits.behind,
            LivenessReason.READING.value,
            stream.size - stream.position,
        )
        if stream.low_since and now - stream.low_since >= limits.missing:
            wanted[Fault.STREAM_REWOUND, host_id, name, ""] = (
                stream.low_since,
                LivenessReason.NUMBERS.value,
                stream.high - stream.number,
            )
        if stream.marks and now - max(stream.marks[0][1], self._began) >= limits.behind:
            oldest = stream.marks[0][1]
            wanted[Fault.STREAM_BEHIND, host_id, name, LivenessReason.SHIPPING.value] = (
                oldest,
                LivenessReason.SHIPPING.value,
                (now - oldest) // 1_000_000,
            )
        lasts(Fault.BATCHES_MISSING, stream.missing_since, limits.missing, "", stream.missing)
        if stream.missing_since and now - stream.missing_since > limits.forget:
            stream.given_up.append((1, stream.stored_high))
            stream.given_up_at = now
            stream.first_missing = stream.missing = stream.missing_since = 0
            wanted.pop((Fault.BATCHES_MISSING, host_id, name, ""), None)
        for logger, when in stream.loggers.items():
            lasts(Fault.LOGGER_STOPPED, when, limits.logger, logger)
        patience = stream.silent_after(limits)
        if patience and stream.alive and not stream.gone_since:
            lasts(Fault.STREAM_SILENT, stream.advanced_at, patience)
            key = (Fault.STREAM_SILENT, host_id, name, "")
            if now - stream.advanced_at < patience:
                wanted.pop(key, None)

    def _judge_silent(self, silent: set[str], now: int, wanted: Wanted) -> None:
        limits, hosts, groups = self._limits, self._all.hosts, self._all.groups
        for group in list(groups):
            groups[group] = [one for one in groups[group] if one in silent]
            if len(groups[group]) < limits.group:
                # Those that are left are told one by one.
                for one in groups.pop(group):
                    wanted[Fault.AGENT_ABSENT, one, "", ""] = (hosts[one].heard, LivenessReason.APART.value, 0)
        grouped = {one for group in groups.values() for one in group}
        since = {one: max(hosts[one].heard, self._began) for one in silent - grouped}
        fresh: list[str] = []
        for one in sorted(since, key=lambda name: (since[name], name)):
            key: Key = (Fault.AGENT_ABSENT, one, "", "")
            host = hosts[one]
            if host.stopping:
                wanted[Fault.AGENT_STOPPED, one, "", ""] = (host.heard, LivenessReason.STOPPED.value, 0)
            if json.dumps(key) in self._all.standing or key in wanted:
                reason = LivenessReason.STOPPED if host.stopping else LivenessReason.NO_REPORT
                wanted.setdefault(key, (host.heard, reason.value, 0))
            elif now - since[one] > (limits.stopped if host.stopping else limits.absent):
                fresh.append(one)
        while fresh and now - since[fresh[0]] > limits.gather + (
            limits.stopped if hosts[fresh[0]].stopping else limits.absent
        ):
            together = [one for one in fresh if since[one] - since[fresh[0]] <= limits.gather]
            fresh = fresh[len(together) :]
            if len(together) >= limits.group:
                groups[str(since[together[0]])] = together
                continue
            for one in together:
                reason = LivenessReason.STOPPED if hosts[one].stopping else LivenessReason.NO_REPORT
                wanted[Fault.AGENT_ABSENT, one, "", ""] = (hosts[one].heard, reason.value, 0)
        for group, members in groups.items():
            wanted[Fault.AGENTS_ABSENT, "", "", group] = (int(group), LivenessReason.NO_REPORT.value, len(members))

    # ------------------------------------------------------------------------------------------------ what is said

    def _compared(self, wanted: Wanted, now: int) -> list[LivenessEvent]:
        standing, events = self._all.standing, []
        for text in sorted(standing):
            key = _key(text)
            if key not in wanted:
                events.append(self._event(key, standing.pop(text), now, over=True))
        for key in sorted(wanted):
            since, reason, count = wanted[key]
            text = json.dumps(key)
            if text in standing:
                standing[text].count = count
                continue
            host = self._all.hosts.get(key[1], Host())
            names = [self._all.hosts[one].name or one for one in self._all.groups.get(key[3], ())[:_MOST_NAMES]]
            members = {one: self._all.hosts[one].session for one in self._all.groups.get(key[3], ())}
            standing[text] = Standing(since, host.name, reason, count, host.session, sorted(names), members)
            events.append(self._event(key, standing[text], now, over=False))
        return events

    def _event(self, key: Key, standing: Standing, now: int, *, over: bool) -> LivenessEvent:
        fault, host_id, stream, last = key
        host = self._all.hosts.get(host_id, Host())
        reason = standing.reason
        if over and fault not in KEYED:
            reason = self._why_over(fault, host, stream, now).value
        return LivenessEvent(
            fault=fault,
            over=over,
            host_id=host_id,
            host_name=host.name or standing.name,
            stream=stream,
            reason=reason,
            since=standing.since,
            at=now,
            count=standing.count,
            group=last if fault is Fault.AGENTS_ABSENT else "",
            hosts=tuple(standing.hosts),
            host_ids=tuple(self._left(standing, over=over))[:_MOST_IDS],
            resumed=over and fault is Fault.AGENT_ABSENT and bool(host.session) and host.session == standing.session,
        )

    @staticmethod
    def _why_over(fault: Fault, host: Host, stream: str, now: int) -> LivenessReason:
        if host.retired:
            return LivenessReason.RETIRED
        known = host.streams.get(stream)
        if fault is Fault.BATCHES_MISSING and known is not None and known.given_up_at == now:
            return LivenessReason.GIVEN_UP
        if fault is Fault.SOURCE_ABSENT and known is None:
            return LivenessReason.FORGOTTEN
        return LivenessReason.BACK

    def _left(self, standing: Standing, *, over: bool) -> list[str]:
        """Of a group, those that did not run all the time; at its end those that are away still are told alone."""
        left = []
        for one, session in sorted(standing.members.items()):
            host = self._all.hosts.get(one, Host())
            back = host.heard > standing.since + self._limits.gather
            if (back and (not session or host.session != session)) or (not back and not over):
                left.append(one)
        return left

    def standing(self, now: int) -> list[LivenessEvent]:
        """All that was said and is so still."""
        said = sorted(self._all.standing.items())
        return [self._event(_key(text), standing, now, over=False) for text, standing in said]


def _key(text: str) -> Key:
    fault, host_id, stream, reason = json.loads(text)
    return Fault(fault), host_id, stream, reason


def _missing(here: list[tuple[int, int]], through: int) -> tuple[int, int]:
    """The first number up to `through` that is in none of these sorted ranges, and how many are not; 0, 0 for none."""
    first = count = 0
    expected = 1
    for begin, end in [*here, (through + 1, through + 1)]:
        if begin > expected:
            first = first or expected
            count += min(begin, through + 1) - expected
        expected = max(expected, end + 1)
        if expected > through:
            break
    return (first, count) if count > 0 else (0, 0)

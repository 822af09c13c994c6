"""One address under observation: which ports are still to be asked, how fast, how often, and what came of it.
Counterpart: `prober` does the connecting and tells what happened; nothing here touches a socket or a clock."""

from __future__ import annotations

import random
import socket
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vedette.model.ports import (
    HIGHEST_PORT,
    Observation,
    PortRange,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
)

PING = 0x10000
"""Added to a port that is known to answer and is asked again: to measure loss, and whether the host is still there."""
_CANARIES = 8
_CANARY_PORTS = range(20_000, 60_000)
_WELL_KNOWN = (22, 443, 80, 3389, 445, 25, 53, 8080)
"""Asked early: where anything at all answers, it is most often here."""
_PING_EVERY, _PACED_PING_EVERY = 64, 16
"""Ports between two pings."""
_PINGS_MISSED = 12
"""So many pings in a row that stay without an answer: the round is cut short."""
_TURNED_AWAY = 48
"""So many refusals by others, and never a word of the target itself: there is no way to it."""
_EXAMINED = 64
"""Answers whose sender is looked up, before a target is taken to speak for itself."""
_SLOWEST = 20.0
"""Connections in a second that even a target that loses most of them gets."""
_RETRANSMITTED = 0.95
"""Seconds after which the kernel asks again by itself (RFC 6298 section 2.1): what took longer measures nothing."""


class Code(IntEnum):
    """What is known of a port; small, for one byte each."""

    NOT_ASKED = 0
    PENDING = 1
    OPEN = 2
    REFUSED = 3
    HOST_UNREACHABLE = 4
    NETWORK_UNREACHABLE = 5
    PROHIBITED = 6
    LOCAL_LIMIT = 7
    SILENT = 8


_MEANING = {
    Code.OPEN: (PortState.OPEN, SeenWhy.ACCEPTED),
    Code.REFUSED: (PortState.CLOSED, SeenWhy.REFUSED),
    Code.HOST_UNREACHABLE: (PortState.FILTERED, SeenWhy.HOST_UNREACHABLE),
    Code.NETWORK_UNREACHABLE: (PortState.FILTERED, SeenWhy.NETWORK_UNREACHABLE),
    Code.PROHIBITED: (PortState.FILTERED, SeenWhy.PROHIBITED),
    Code.SILENT: (PortState.FILTERED, SeenWhy.TIMEOUT),
    Code.LOCAL_LIMIT: (PortState.UNKNOWN, SeenWhy.LOCAL_LIMIT),
    Code.PENDING: (PortState.UNKNOWN, SeenWhy.NOT_PROBED),
    Code.NOT_ASKED: (PortState.UNKNOWN, SeenWhy.NOT_PROBED),
}


@dataclass(frozen=True, slots=True)
class Target:
    """An address to look at. expected: ports that policy says are open, asked first and more often."""

    host: str
    address: str
    ports: tuple[PortRange, ...]
    expected: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tuning:
    """How long and how often. Seconds and counts.

    first_patience: wait for an answer before any round trip was measured; afterwards srtt + 4 rttvar (RFC 6298),
    within the two bounds. rounds: at least so many attempts before silence counts; more (up to most_rounds) while
    answers that came late show loss. missed: how many answers may stay lost, in the mean, when we stop asking.
    """

    first_patience: float = 1.0
    least_patience: float = 0.15
    most_patience: float = 3.0
    rounds: int = 2
    expected_rounds: int = 4
    most_rounds: int = 10
    missed: float = 0.01
    window: int = 64
    most_silent: int = 1_000
    doubt: float = 1.0


def canaries(chance: random.Random, expected: Collection[int]) -> frozenset[int]:
    """Ports picked at random, none of which has a reason to accept: they tell a tarpit."""
    found: set[int] = set()
    while len(found) < _CANARIES:
        port = chance.choice(_CANARY_PORTS)
        if port not in expected:
            found.add(port)
    return frozenset(found)


def answers_everything(accepted: Iterable[bool]) -> bool:
    """Whether a target is one that accepts whatever it is asked, by how its canaries did."""
    return sum(accepted) * 4 >= _CANARIES * 3


class Progress:
    """What is known of one target. `todo` is taken from its end."""

    def __init__(self, target: Target, tuning: Tuning, limit: int, seed: int) -> None:
        self.target = target
        self.family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        self._tuning = tuning
        self._limit = limit
        self._random = random.Random(seed)
        self.codes = bytearray(HIGHEST_PORT + 1)
        for ports in target.ports:
            self.codes[ports.first : ports.last + 1] = bytes([Code.PENDING]) * len(ports)
        self.tries = bytearray(HIGHEST_PORT + 1)
        self.expected = {port for port in target.expected if self.codes[port]}
        self.canaries = canaries(self._random, self.expected)
        self.canary_codes: dict[int, Code] = {}
        self.todo: list[int] = sorted({*self.canaries, *sorted(self.expected)[:32]})
        self._random.shuffle(self.todo)
        self._greeting = len(self.todo)
        self.waiting: deque[tuple[float, int, Any]] = deque()
        self.flying = 0
        self.round = 0
        self._unanswered: list[int] = []
        self._width = float(tuning.window)
        self._srtt = 0.0
        self._rttvar = 0.0
        self.patience = tuning.first_patience
        self.connections = 0
        self.answers = 0
        self._answered_first = 0
        self._lost = 0
        self._heard = 0
        self._alive_port = 0
        self._pings_sent = 0
        self._pings_answered = 0
        self._round_began = 0.0
        self._round_answers = 0
        self._pings_missed = 0
        self._narrowed = 0.0
        self._doubted = False
        self._pace_found = 0.0
        self._turned_away: Counter[Code] = Counter()
        self._spoke = False
        self._examined = 0
        self.examine = True
        self.condition = TargetCondition.ANSWERS
        self.vanished = False
        self.done = False
        self.paced = 0.0
        self.next_start = 0.0

    # ------------------------------------------------------------------------------------------ what happened

    def note(self, port: int, code: Code, took: float, *, by_others: bool = False) -> None:
        """An answer, `took` seconds after it was asked for. by_others: somebody else spoke in the target's place."""
        self.answers += 1
        if self._examined < _EXAMINED and not by_others and code <= Code.REFUSED:
            self._examined += 1
            self.examine = self._examined < _EXAMINED
        if code <= Code.REFUSED:
            self._measure(took)
            self._heard += 1
            # What answered to the kernel's own retransmission is an attempt that got lost, too.
            self._lost += took >= _RETRANSMITTED
            if port & PING:
                self._ping_answered()
                return
            self._lost += self.tries[port]
            self._round_answers += 1
            if not self._alive_port or code is Code.REFUSED:
                self._alive_port = port
            if self._width < self._limit:
                self._width += 1.0
        elif port & PING:
            return
        elif by_others:
            self._turned_away[code] += 1
        elif code is not Code.LOCAL_LIMIT:
            self._spoke = True
        if port in self.canaries:
            self.canary_codes[port] = code
        if self.codes[port]:
            self.codes[port] = code
            self.tries[port] = min(self.tries[port] + 1, 255)

    def examine_from_now_on(self) -> None:
        """Somebody sends errors here: who, is looked up for every answer."""
        self.examine, self._examined = True, _EXAMINED

    def silent(self, port: int, now: float) -> None:
        """No answer in time."""
        if port & PING:
            self._ping_lost(now)
            return
        self.tries[port] = min(self.tries[port] + 1, 255)
        self._unanswered.append(port)
        # Silence is no sign of congestion, unless what does answer is silent too.
        if not self._pings_missed and self._width < min(self._limit, self._tuning.most_silent):
            self._width += 1.0

    def _measure(self, took: float) -> None:
        if took >= _RETRANSMITTED:
            return
        if not self._srtt:
            self._srtt, self._rttvar = took, took / 2
        else:
            self._rttvar += (abs(took - self._srtt) - self._rttvar) / 4
            self._srtt += (took - self._srtt) / 8
        tuning = self._tuning
        measured = (self._srtt + 4 * self._rttvar) * (1 + max(self.round - 1, 0) / 2)
        self.patience = min(max(measured, tuning.least_patience), tuning.most_patience)

    def _ping_answered(self) -> None:
        self._pings_answered += 1
        self._pings_missed = 0
        if self.paced:
            self.paced *= 1.1

    def _ping_lost(self, now: float) -> None:
        """What does answer did not: narrower, slower; and after many of them in a row no further for now."""
        self._pings_missed += 1
        self._lost += 1
        if now - self._narrowed > self.patience:
            self._narrowed = now
            self._width = max(8.0, self._width / 2)
            if self.paced:
                self.paced = max(_SLOWEST, self.paced * 0.8)
        if self._pings_missed >= _PINGS_MISSED and not self._doubted:
            self._unanswered += (port for port in self.todo if not port & PING)
            self.todo = []

    # ------------------------------------------------------------------------------------------ what next

    def window(self, now: float, rate: float, most: int) -> int:
        """How many more may be begun now; `most` at the most."""
        free = min(int(self._width) - self.flying, most, len(self.todo))
        if free <= 0:
            return 0
        rate = min(one for one in (rate, self.paced) if one) if rate or self.paced else 0.0
        if not rate:
            return free
        if now < self.next_start:
            return 0
        # At most a twentieth of a second's worth at once, so that a limit of the target is not met in bursts.
        count = max(1, min(free, int(rate * min(now - self.next_start, 0.05))))
        self.next_start = max(self.next_start, now - 0.05) + count / rate
        return count

    def next_round(self, now: float) -> bool:
        """Nothing is under way and nothing to do: whether to go on, with `todo` filled, or to stop."""
        if self.done:
            return False
        greeting = self.round == 0
        if greeting and self._answers_everything():
            return self._stop(TargetCondition.ANSWERS_EVERYTHING)
        if self._no_way():
            return self._stop(TargetCondition.DOWN)
        if self._pings_sent and not self._pings_answered:
            if self._doubted:
                self.vanished = True
                return self._stop(self.condition)
            return self._doubt(now)
        if self._doubted:
            self._doubted = False
            self.paced = self._pace_found
        elif self.round > 1 and self._round_answers:
            self._slow_down(now - self._round_began)
        left = [port for port in self._unanswered if self.codes[port] == Code.PENDING]
        if greeting:
            asked = [port for ports in self.target.ports for port in range(ports.first, ports.last + 1)]
            ask = [port for port in asked if self.codes[port] == Code.PENDING]
            # What was silent in the greeting is asked in this round, as its second attempt.
        elif any(not self.tries[port] for port in left):
            ask = left  # the round before was cut short
        elif self._enough(min((self.tries[port] for port in left), default=0), self.loss()):
            wanted = self._tuning.expected_rounds
            ask = [port for port in left if port in self.expected and self.tries[port] < wanted]
            # Silence is judged only of a host that is known to live when the last attempt was made.
            if not ask and left and self._alive_port and self.round < 2:
                ask = left
        else:
            ask = left
        self._unanswered = []
        if not ask:
            self.done = True
            return False
        self.round += 1
        self._random.shuffle(ask)
        if greeting:
            early = [port for port in _WELL_KNOWN if self.codes[port] == Code.PENDING]
            ask = [port for port in ask if port not in early] + early
        self._begin_round(self._with_pings(ask), now)
        return True

    def no_way(self) -> bool:
        """Nothing more to ask: others alone answer, and the target never did."""
        if self._no_way() and (self.todo or not self.done):
            self._stop(TargetCondition.DOWN)
            return True
        return False

    def _no_way(self) -> bool:
        return not self._heard and not self._spoke and self._turned_away.total() >= _TURNED_AWAY

    def _begin_round(self, todo: list[int], now: float) -> None:
        self.todo = todo
        self._pings_sent = sum(port & PING > 0 for port in todo)
        self._pings_answered = self._pings_missed = 0
        self._round_began, self._round_answers = now, 0

    def _with_pings(self, ask: list[int]) -> list[int]:
        """Between what is asked, what is known to answer: its silence is loss, and not a filter."""
        if not self._alive_port:
            return ask
        every = _PACED_PING_EVERY if self.paced else _PING_EVERY
        ping = self._alive_port | PING
        todo: list[int] = []
        for at in range(0, len(ask), every):
            todo += ask[at : at + every]
            todo.append(ping)
        return [ping] * (_CANARIES if self.round > 1 else 0) + todo

    def _doubt(self, now: float) -> bool:
        """It does not answer what it answered before: after a pause, slowly, a last time."""
        elapsed = now - self._round_began
        self._doubted = True
        self._pace_found = max(_SLOWEST, 0.8 * self._round_answers / elapsed) if elapsed > 0 else _SLOWEST
        self._begin_round([self._alive_port | PING] * _CANARIES, now)
        self.paced, self.next_start = 2 * _CANARIES / self._tuning.doubt, now + self._tuning.doubt
        return True

    def loss(self) -> float:
        """The share of attempts that got lost, among those to ports that do answer."""
        return self._lost / (self._lost + self._heard) if self._heard else 0.0

    def _enough(self, attempts: int, loss: float) -> bool:
        """Whether so many attempts at what is silent tell a filter from loss."""
        if not attempts or attempts >= self._tuning.most_rounds or self.round >= 4 * self._tuning.most_rounds:
            return True
        if attempts < self._tuning.rounds:
            return False
        return bool(self._heard * loss**attempts <= self._tuning.missed)

    def _slow_down(self, elapsed: float) -> None:
        """Where many answers came late: no faster than it did answer."""
        if self.loss() > 0.2 and elapsed > 0:
            self.paced = max(_SLOWEST, 0.8 * self._round_answers / elapsed)

    def _answers_everything(self) -> bool:
        return answers_everything(code is Code.OPEN for code in self.canary_codes.values())

    def _stop(self, condition: TargetCondition) -> bool:
        self.condition = condition
        self.done = True
        self.todo = []
        return False

    # ------------------------------------------------------------------------------------------ what it means

    def survey(self, vantage: str, started_at: int, ended_at: int) -> Survey:
        """What was seen, as far as it goes: of a target that was not finished the rest is unknown."""
        condition = self.condition
        if condition is TargetCondition.ANSWERS and not self._heard and not self._spoke:
            condition = TargetCondition.DOWN
        codes = self.codes
        if self.done and not self.vanished and condition is TargetCondition.ANSWERS:
            codes = codes.replace(bytes([Code.PENDING]), bytes([Code.SILENT]))
        meaning = dict(_MEANING)
        if self.vanished:
            meaning[Code.PENDING] = (PortState.UNKNOWN, SeenWhy.NO_ANSWER_AT_ALL)
            # Said on the way there, of a host that is gone.
            for lost in (Code.HOST_UNREACHABLE, Code.NETWORK_UNREACHABLE):
                meaning[lost] = (PortState.UNKNOWN, _MEANING[lost][1])
        if condition is TargetCondition.DOWN:
            reason = SeenWhy.NO_ANSWER_AT_ALL
            if self._turned_away:
                reason = _MEANING[self._turned_away.most_common(1)[0][0]][1]
            if any(code == Code.LOCAL_LIMIT for code in codes):
                reason = SeenWhy.LOCAL_LIMIT
            meaning = dict.fromkeys(_MEANING, (PortState.UNKNOWN, reason))
        elif condition is TargetCondition.ANSWERS_EVERYTHING:
            meaning = dict.fromkeys(_MEANING, (PortState.UNKNOWN, SeenWhy.ANSWERS_EVERYTHING))
        counts: Counter[tuple[PortState, SeenWhy]] = Counter()
        for code, count in Counter(codes).items():
            if code:
                counts[meaning[Code(code)]] += count
        rest, rest_why = counts.most_common(1)[0][0] if counts else (PortState.UNKNOWN, SeenWhy.NOT_PROBED)
        apart = {code for code in Code if code and meaning[code] != (rest, rest_why)}
        seen = tuple(
            Observation(
                self.target.host,
                self.target.address,
                port,
                Protocol.TCP,
                *meaning[Code(codes[port])][:1],
                vantage,
                ended_at,
                self.tries[port],
                meaning[Code(codes[port])][1],
            )
            for port in _where(codes, apart)
        )
        return Survey(
            self.target.host,
            self.target.address,
            Protocol.TCP,
            vantage,
            started_at,
            ended_at,
            self.target.ports,
            rest,
            rest_why,
            seen,
            condition,
            self.connections,
            self.answers,
        )


def _where(codes: bytearray, wanted: Iterable[Code]) -> list[int]:
    found = []
    for code in wanted:
        at = codes.find(code)
        while at >= 0:
            found.append(at)
            at = codes.find(code, at + 1)
    return sorted(found)

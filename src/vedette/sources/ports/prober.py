"""Looks at TCP ports by connecting to them: no privileges, no library, every address at once, in one thread.
Counterpart: `targets` remembers what came of each address; `nmap` looks where a connection cannot (UDP, services)."""

from __future__ import annotations

import errno
import random
import resource
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vedette.model.clock import Clock
from vedette.model.ports import Survey
from vedette.sources.ports.targets import Code, Progress, Target, Tuning

_KEPT_DESCRIPTORS = 64
"""Left to the rest of the process."""
_EVENTS = 512
_BURST = 64
"""Connections begun between two looks at what came back."""
_ROUND = 1_024
"""Connections begun until every target had its turn, more or less."""
_IDLE = 0.25
_PACE = 0.01
"""Seconds' worth of a rate that may be begun at once: whoever sleeps wakes later than it asked to."""
# linux/in.h, linux/in6.h, linux/errqueue.h: who sent the error, and what it said.
_RECEIVE_ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ICMP, _ICMP6 = 2, 3
# RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3.1: codes of "destination unreachable".
_SAID = {
    **dict.fromkeys(((_ICMP, 0), (_ICMP, 6), (_ICMP, 11), (_ICMP6, 0)), Code.NETWORK_UNREACHABLE),
    **dict.fromkeys(((_ICMP, 9), (_ICMP, 10), (_ICMP, 13), (_ICMP6, 1), (_ICMP6, 5), (_ICMP6, 6)), Code.PROHIBITED),
}
_RESET = struct.pack("ii", 1, 0)
_SOCKET = socket.SocketType
"""The C class below `socket.socket`: half the cost of one whose methods are Python."""
_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
# What the vantage itself lacks at the moment: the port is asked again, with fewer at once.
_SHORT = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
_CODES = {
    0: Code.OPEN,
    errno.ECONNREFUSED: Code.REFUSED,
    # A peer that resets after it accepted, before we looked: it did accept.
    errno.ECONNRESET: Code.OPEN,
    errno.EPIPE: Code.OPEN,
    errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Code.HOST_UNREACHABLE,
    errno.ENETUNREACH: Code.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Code.NETWORK_UNREACHABLE,
    errno.ENONET: Code.NETWORK_UNREACHABLE,
    errno.ENOPROTOOPT: Code.HOST_UNREACHABLE,
    errno.EACCES: Code.PROHIBITED,
    errno.EPERM: Code.PROHIBITED,
    errno.EADDRNOTAVAIL: Code.LOCAL_LIMIT,
    errno.EAFNOSUPPORT: Code.LOCAL_LIMIT,
    errno.EINVAL: Code.LOCAL_LIMIT,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard to look. 0 = as the machine allows.

    parallel: connections under way together, of all targets; never more than the process may have descriptors.
    per_target: of one address. rate, target_rate: connections begun in a second, of all and of one address.
    """

    parallel: int = 0
    per_target: int = 0
    rate: float = 0.0
    target_rate: float = 0.0

    def allowed(self) -> int:
        """Connections that may be under way together in this process."""
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = sum(1 for _ in Path("/proc/self/fd").iterdir())
        free = soft - taken - _KEPT_DESCRIPTORS if soft != resource.RLIM_INFINITY else 65_536
        return max(1, min(self.parallel or 2_000, free))


@dataclass(frozen=True, slots=True)
class Effort:
    """What a look cost. connections: begun; answers: of any kind; seconds: wall; shortages: times a limit was hit."""

    connections: int
    answers: int
    seconds: float
    shortages: int


_BY_ERROR = frozenset({Code.HOST_UNREACHABLE, Code.NETWORK_UNREACHABLE, Code.PROHIBITED})
_Pending = tuple[_SOCKET, int, float, Progress]  # socket, port, begun, target


class Prober:
    """Looks at many addresses at once, in the thread (and the network namespace) of the caller.

    stop: set from another thread ends the look early, and only targets that were finished are told of.
    chance: picks the ports that tell a tarpit, others at every look, so that no target can know them.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limits: Limits | None = None,
        tuning: Tuning | None = None,
        stop: threading.Event | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._tuning = tuning or Tuning()
        self._stop = stop or threading.Event()
        self._chance = chance or random.SystemRandom()
        self._flying: dict[int, _Pending] = {}
        self._room = 1
        self._shortages = 0
        self.effort = Effort(0, 0, 0.0, 0)

    def look(self, targets: Sequence[Target], vantage: str) -> list[Survey]:
        """One survey for each target, in their order, of those that were finished. Blocks until all are, or `stop`."""
        began, started_at = time.monotonic(), self._clock.now()
        self._room = self._limits.allowed()
        limit = min(self._limits.per_target or self._room, self._room)
        tuning = replace(self._tuning, missed=self._tuning.missed / max(len(targets), 1))
        all_of = [Progress(one, tuning, limit, self._chance.getrandbits(64)) for one in targets]
        self._poll = select.epoll()
        try:
            self._run(deque(all_of))
        finally:
            for connection, *_ in self._flying.values():
                connection.close()
            self._flying.clear()
            self._poll.close()
        ended_at = self._clock.now()
        self.effort = Effort(
            sum(one.connections for one in all_of),
            sum(one.answers for one in all_of),
            time.monotonic() - began,
            self._shortages,
        )
        told = [one for one in all_of if one.done] if self._stop.is_set() else all_of
        return [one.survey(vantage, started_at, ended_at) for one in told]

    def _run(self, turn: deque[Progress]) -> None:
        """Give every target its turn until none has anything left."""
        rate, target_rate = self._limits.rate, self._limits.target_rate
        burst = max(1.0, rate * _PACE)
        allowed, counted = burst, time.monotonic()
        while turn and not self._stop.is_set():
            # What was there by now is heard before anything is given up as silent: it may be us who are late.
            now = time.monotonic()
            self._answers(0.0)
            idle_until = now + _IDLE
            if rate:
                allowed, counted = min(burst, allowed + (now - counted) * rate), now
            started = 0
            # With many targets few each, so that all come round before the first one's patience is over.
            most = max(4, min(_BURST, _ROUND // len(turn)))
            for _ in range(len(turn)):
                target = turn.popleft()
                idle_until = min(idle_until, self._timeouts(target, now))
                if not target.todo and not target.flying and not target.next_round(now):
                    continue
                turn.append(target)
                room = min(self._room - len(self._flying), most)
                if rate:
                    room = min(room, int(allowed))
                room = target.window(now, target_rate, room)
                for _ in range(room):
                    if not target.todo:
                        break
                    self._begin(target, target.todo.pop())
                started += room
                allowed -= room
                if target.todo and (target.paced or target_rate):
                    idle_until = min(idle_until, target.next_start)
                if started >= _BURST:
                    break
            if rate and turn:
                idle_until = min(idle_until, now + max(1.0 - allowed, 0.0) / rate)
            if turn:
                self._answers(0.0 if started else max(0.0, min(idle_until - time.monotonic(), _IDLE)))

    def _begin(self, target: Progress, port: int) -> None:
        """Begin one connection; what ends at once is noted at once."""
        target.connections += 1
        try:
            connection = _SOCKET(target.family, _KIND, 0)
        except OSError as error:
            self._refused(target, port, error.errno or 0)
            return
        if target.examine:
            connection.setsockopt(*_RECEIVE_ERRORS[target.family], 1)
        result = connection.connect_ex((target.target.address, port & 0xFFFF))
        if result == errno.EINPROGRESS:
            descriptor = connection.fileno()
            begun = time.monotonic()
            pending = (connection, port, begun, target)
            self._flying[descriptor] = pending
            target.flying += 1
            target.waiting.append((begun, descriptor, pending))
            self._poll.register(descriptor, select.EPOLLOUT)
        elif result in _SHORT:
            connection.close()
            self._refused(target, port, result)
        else:
            self._conclude(connection, port, result, 0.0, target)

    def _refused(self, target: Progress, port: int, number: int) -> None:
        """The machine gives no connection.

        Where it ran short: fewer at once from now on, and the port again unless none is under way. Where it cannot
        (no IPv6), asking again would never end.
        """
        self._shortages += 1
        if not self._flying or number not in _SHORT:
            target.note(port, Code.LOCAL_LIMIT, 0.0)
            return
        self._room = max(1, min(self._room, len(self._flying)) * 3 // 4)
        target.todo.insert(0, port)

    def _answers(self, timeout: float) -> None:
        flying = self._flying
        if not flying:
            if timeout > 0:
                self._stop.wait(timeout)
            return
        while events := self._poll.poll(timeout, _EVENTS):
            for descriptor, _event in events:
                pending = flying.pop(descriptor, None)
                if pending is None:
                    continue
                connection, port, begun, target = pending
                target.flying -= 1
                result = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._conclude(connection, port, result, time.monotonic() - begun, target)
            if len(events) < _EVENTS:
                return
            timeout = 0.0

    def _conclude(self, connection: _SOCKET, port: int, result: int, took: float, target: Progress) -> None:
        code = _CODES.get(result, Code.LOCAL_LIMIT)
        by_others = False
        if result == 0:
            if _talks_to_itself(connection):
                connection.close()
                target.todo.append(port)
                return
            # Reset in place of an orderly end: nothing of ours stays behind in TIME_WAIT.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif result == errno.ETIMEDOUT:
            connection.close()
            target.silent(port, time.monotonic())
            return
        elif target.examine or code in _BY_ERROR:
            if not target.examine:
                # Errors of others come in: asked once more, in a way that says whose they are.
                connection.close()
                target.examine_from_now_on()
                target.todo.append(port)
                return
            code, by_others = _examined(connection, code, target)
        connection.close()
        target.note(port, code, took, by_others=by_others)
        if by_others:
            target.no_way()

    def _timeouts(self, target: Progress, now: float) -> float:
        """Give up on connections of the target that got no answer in time; when the next one is due."""
        waiting, flying = target.waiting, self._flying
        patience = target.patience
        while waiting:
            begun, descriptor, pending = waiting[0]
            if flying.get(descriptor) is not pending:
                waiting.popleft()
                continue
            if begun + patience > now:
                return begun + patience
            waiting.popleft()
            connection, port, *_ = flying.pop(descriptor)
            target.flying -= 1
            connection.close()
            target.silent(port, now)
        return now + _IDLE


def _examined(connection: _SOCKET, code: Code, target: Progress) -> tuple[Code, bool]:
    """What was meant by an error, and whether somebody else said it: a router, a firewall on the way, our own kernel.

    A refusal that others send is none of the port's: the host may be down behind them.
    """
    try:
        _, ancillary, _, _ = connection.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return code, code in _BY_ERROR
    for level, kind, data in ancillary:
        if (level, kind) == _RECEIVE_ERRORS[target.family] and len(data) >= _EXTENDED_ERROR.size + 8:
            _, origin, _, number, _, _, _ = _EXTENDED_ERROR.unpack_from(data)
            sender = data[_EXTENDED_ERROR.size :]
            raw = sender[4:8] if target.family == socket.AF_INET else sender[8:24]
            by_others = len(raw) not in (4, 16) or socket.inet_ntop(target.family, raw) != target.target.address
            target.examine_from_now_on()
            if code is Code.REFUSED and by_others:
                code = Code.PROHIBITED
            return _SAID.get((origin, number), code), by_others
    return code, code in _BY_ERROR


def _talks_to_itself(connection: _SOCKET) -> bool:
    """Whether the kernel gave a connection to this very machine the port it asks for: an answer of our own."""
    try:
        return bool(connection.getsockname()[:2] == connection.getpeername()[:2])
    except OSError:
        return False


__all__ = ["Effort", "Limits", "Prober", "Target", "Tuning"]

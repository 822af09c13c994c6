"""The small process that holds CAP_NET_ADMIN and nothing else: `python -m vedette.respond.kernel_helper CONFIG`.
Counterpart: helper_enforcer.py starts it and speaks to it over a socket pair, which is its standard input."""

# pidfd_open(2)
from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import msgspec

from vedette.model.errors import EnforcementError
from vedette.model.reasons import RefusalReason
from vedette.respond.allowlist import Entry, Guard, host_floor
from vedette.respond.frames import (
    ENTRIES_PER_FRAME,
    FRAME_LIMIT,
    Add,
    Allow,
    Close,
    Count,
    HelperConfig,
    List,
    Ping,
    Remove,
    Reply,
    Sync,
    Verb,
)
from vedette.respond.nftables import ConnectionEnder, KernelSets, network_text
from vedette.system.privileges import CAP_NET_ADMIN, keep_only
from vedette.text.addresses import Network, parse_network

FLOOR_EVERY = 30.0
"""Seconds after which the host's own addresses are read again."""
MEND_PAUSE, LONGEST_MEND_PAUSE = 0.2, 5.0
"""Seconds between two remakes, more where they fail: a program that fights over the table must not busy us."""
ENDER_PAUSE = 0.02
"""Seconds between two listings of the machine's sockets, so that a burst of verbs shares one."""
RESTARTS = 5
"""Workers that may die within a minute before the helper gives up, which the engine then sees."""


class _EnderThread:
    """Ends connections beside the answering: listing a machine's sockets takes milliseconds, a verb must not wait."""

    def __init__(self) -> None:
        self.ender = ConnectionEnder()
        self._queue: queue.SimpleQueue[list[Network] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self, networks: list[Network]) -> None:
        """Have the connections with these peers ended; returns at once."""
        self._queue.put(networks)

    def close(self) -> None:
        """Wait until what was asked for is done."""
        self._queue.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            closing = None in waiting
            self.ender.end([network for networks in waiting if networks for network in networks])
            time.sleep(ENDER_PAUSE)


OVERRIDE_SLACK = 60_000_000
"""Microseconds that a block which passes the allowlist may have been on its way here."""


class Worker:
    """Answers verbs until the engine closes, keeps the table whole, and lets nothing on the hard floor be blocked.

    Nor what is on the allowlist, unless a person overrides it and for a short time: the engine has asked before, this
    is the second bound, against mistakes. Only the floor is this process's own knowledge.
    """

    def __init__(self, connection: socket.socket, config: HelperConfig) -> None:
        self._connection = connection
        self._given = [parse_network(text) for text in config.floor]
        self._guard = Guard()
        self._read_floor()
        self._sets = KernelSets(config.size)
        self._ender = _EnderThread() if config.end_connections else None
        self._decoder = msgspec.msgpack.Decoder(Verb)
        self._encoder = msgspec.msgpack.Encoder()
        self._allowing: list[Entry] = []
        self._override_longest = config.override_longest + OVERRIDE_SLACK
        self._syncing: dict[Network, int] = {}
        self._refused: list[str] = []
        self._total = (0, 0)
        self._listing: list[tuple[str, int]] = []
        self._counting: list[tuple[str, int, int]] = []
        self._last_mend, self._pause = 0.0, MEND_PAUSE
        self._now, self._now_at = 0, time.monotonic()
        self._broken = ""
        self._to_end: list[Network] = []

    def _read_floor(self) -> None:
        self._floor_at = time.monotonic()
        self._guard.set_floor({*self._given, *host_floor()})

    def now(self) -> int:
        """The engine's time now, from what it last said and what has passed since; microseconds."""
        return self._now + int((time.monotonic() - self._now_at) * 1_000_000)

    def _heard(self, now: int) -> int:
        self._now, self._now_at = now, time.monotonic()
        return now

    def run(self, lifelines: Sequence[int]) -> None:
        """Serve until the peer closes, or a process behind one of the `lifelines` (pidfds) ends."""
        self._now = time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
        try:
            self._sets.open(self.now())
        except EnforcementError as error:
            self._broken = str(error)
        poll = select.poll()
        for descriptor in (self._connection.fileno(), self._sets.fileno(), *lifelines):
            poll.register(descriptor, select.POLLIN)
        unruly = False
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(self._pause * 1000 if unruly else FLOOR_EVERY * 1000)}
            if ready & set(lifelines):
                return
            if self._connection.fileno() in ready and not self._answer():
                return
            if self._sets.fileno() in ready:
                unruly = self._sets.changed() or unruly
            if unruly and time.monotonic() - self._last_mend >= self._pause:
                unruly = not self._mend()
            if time.monotonic() - self._floor_at >= FLOOR_EVERY:
                self._read_floor()

    def _mend(self) -> bool:
        self._last_mend = time.monotonic()
        try:
            self._sets.mend(self.now())
        except EnforcementError as error:
            self._broken = str(error)
            self._pause = min(2 * self._pause, LONGEST_MEND_PAUSE)
            return False
        self._broken, self._pause = "", MEND_PAUSE
        return True

    def _answer(self) -> bool:
        frame = self._connection.recv(FRAME_LIMIT + 1)
        if not frame:
            return False
        try:
            if len(frame) > FRAME_LIMIT:
                raise msgspec.ValidationError(f"frame of more than {FRAME_LIMIT} bytes")
            verb = self._decoder.decode(frame)
        except msgspec.MsgspecError as error:
            # Whoever sends such a thing is not our engine any more: say so and end.
            self._reply(Reply(0, f"not a frame: {error}"))
            return False
        try:
            reply = self._do(verb)
        except EnforcementError as error:
            reply = Reply(verb.id, error.message, error.hint)
        except ValueError as error:
            reply = Reply(verb.id, f"refused by the kernel helper: {error}")
        self._reply(reply)
        if self._ender and self._to_end:
            self._ender.end(self._to_end)
        self._to_end = []
        if isinstance(verb, Close):
            if self._ender:
                self._ender.close()
            return False
        return True

    def _reply(self, reply: Reply) -> None:
        self._connection.send(self._encoder.encode(reply))

    def _do(self, verb: Verb) -> Reply:
        match verb:
            case Allow(networks=networks, first=first, more=more):
                self._allowing = [] if first else self._allowing
                self._allowing += [Entry(parse_network(text)) for text in networks]
                if not more:
                    self._guard.set_allowlist(self._allowing)
            case Add(now=now, entries=entries, override=override):
                wanted, refused = self._checked(entries, override, now)
                self._open(now)
                self._to_end = list(wanted)
                self._sets.add(wanted, self._heard(now))
                _complain(refused)
            case Remove(targets=targets):
                self._sets.remove([parse_network(text) for text in targets])
            case Sync(now=now, entries=entries, first=first, more=more, override=override):
                if first:
                    self._syncing, self._refused = {}, []
                wanted, refused = self._checked(entries, override, now)
                self._syncing.update(wanted)
                self._refused += refused
                if more:
                    return Reply(verb.id)
                number = self._sets.sync(self._syncing, self._heard(now))
                self._broken = ""
                _complain(self._refused)
                return Reply(verb.id, number=number, note=self._note())
            case List(start=start):
                if not start:
                    now = self.now()
                    self._listing = sorted(
                        (network_text(one), end) for one, end in self._sets.known.items() if end > now
                    )
                page = self._listing[start : start + ENTRIES_PER_FRAME]
                return Reply(verb.id, entries=page, more=start + len(page) < len(self._listing))
            case Count(start=start):
                if not start:
                    counters = self._sets.counters()
                    self._counting = sorted((target, *two) for target, two in counters.targets.items())
                    self._total = (counters.packets, counters.bytes)
                counted = self._counting[start : start + ENTRIES_PER_FRAME]
                return Reply(
                    verb.id, counted=counted, total=self._total, more=start + len(counted) < len(self._counting)
                )
            case Ping() | Close():
                if self._broken:
                    raise EnforcementError(self._broken)
        return Reply(verb.id, note=self._note())

    def _note(self) -> str:
        return self._ender.ender.unsupported if self._ender else ""

    def _open(self, now: int) -> None:
        if self._broken:
            self._sets.sync(self._sets.known, now)
            self._broken = ""

    def _checked(
        self, entries: Sequence[tuple[str, int]], override: Sequence[int], now: int
    ) -> tuple[dict[Network, int], list[str]]:
        """Those that are canonical and may be blocked, as networks; and what is wrong with each of the others."""
        checked, refused = dict[Network, int](), list[str]()
        overriding = set(override)
        for place, (text, end) in enumerate(entries):
            try:
                network = parse_network(text)
            except ValueError as error:
                refused.append(str(error))
                continue
            guarded = self._guard.refuses(network)
            if network_text(network) != text:
                refused.append(f"{text!r} is not canonical")
            elif guarded is RefusalReason.HARD_FLOOR:
                refused.append(f"{text} is on the hard floor")
            elif guarded is not None and not (place in overriding and end <= now + self._override_longest):
                refused.append(f"{text} is on the allowlist")
            else:
                checked[network] = end
        return checked, refused


def _complain(refused: Sequence[str]) -> None:
    """ValueError where anything was refused; called when the others have been done."""
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ValueError("; ".join(refused[:3]) + more)


def serve(connection: socket.socket, config: HelperConfig, parent: int) -> None:
    """Run workers, one after another, until one ends in order; parent: pidfd of the process that started us."""
    supervisor = os.pidfd_open(os.getpid())
    deaths: list[float] = []
    while True:
        worker = os.fork()
        if not worker:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                Worker(connection, config).run([parent, supervisor])
            except EnforcementError as error:  # no way to the kernel at all: another worker would find none either
                connection.send(msgspec.msgpack.encode(Reply(0, error.message, error.hint)))
            os._exit(0)
        _, status = os.waitpid(worker, 0)
        if status == 0:
            return
        deaths = [death for death in deaths if death > time.monotonic() - 60] + [time.monotonic()]
        if len(deaths) > RESTARTS:
            raise SystemExit(f"the worker died {len(deaths)} times in a minute (last status {status})")
        # The engine may wait for an answer that will not come; what is in the kernel is there still.
        connection.send(msgspec.msgpack.encode(Reply(0, "the kernel helper died and was started again")))


def main() -> None:
    """Become the helper: descriptor 0 is the socket, the one argument the configuration."""
    config = msgspec.json.decode(sys.argv[1], type=HelperConfig)
    sys.setswitchinterval(0.0005)  # the ender must not hold an answer back for the usual 5 ms
    parent = os.pidfd_open(config.parent)
    if os.getppid() != config.parent:
        return  # it died while we started
    connection = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the engine's to answer
    try:
        # Ambient, so that `nft` has it too.
        keep_only([CAP_NET_ADMIN], uid=config.uid, gid=config.gid)
    except OSError as error:
        connection.send(
            msgspec.msgpack.encode(Reply(0, f"no CAP_NET_ADMIN: {error}", "start as root, or with that capability"))
        )
        raise SystemExit(1) from None
    serve(connection, config, parent)


if __name__ == "__main__":
    main()

"""The enforcer of an engine without privileges: asks the kernel helper, one round trip of a tenth of a millisecond.
Counterpart: kernel_helper.py at the other end of the socket pair; frames.py is their language."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.model.errors import EnforcementError
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
from vedette.respond.nftables import Counters, network_text, wanted_of
from vedette.system.exec import ENVIRONMENT

_Item = TypeVar("_Item")
_TIMEOUT = 1.0
"""Seconds for one answer; making the table anew with 10,000 elements takes 0.3."""
_SYNC_TIMEOUT = 10.0
_START_TIMEOUT = 10.0
_END_TIMEOUT = 3.0
_RESTART_PAUSE = 2.0
_MODULE = "vedette.respond.kernel_helper"
_RESTART_HINT = "restart vedette: the helper gets its privilege when the service starts"


class HelperEnforcer:
    """nftables through the kernel helper. Start it before privileges are dropped. Not thread-safe.

    A worker that dies is started again by the helper itself; the call under way fails with EnforcementError
    and the next one succeeds. When all of the helper is gone it is started anew, which needs the privilege.
    """

    name = "nftables"

    def __init__(
        self,
        *,
        floor: Iterable[str] = (),
        size: int = 65_536,
        end_connections: bool = True,
        uid: int = 65_534,
        gid: int = 65_534,
        override_longest: int = 3_600_000_000,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start the helper and wait until its table stands; EnforcementError with a hint where it cannot.

        floor: networks besides the host's own addresses, which the helper reads itself. uid, gid: whom it
        becomes when started by root. override_longest: microseconds of a block that passes the allowlist, at most.
        prefix: argument vector put before, `ip netns exec NAME` for example.
        """
        self._config = HelperConfig(os.getpid(), [*floor], size, end_connections, uid, gid, override_longest)
        self._allowlist: list[str] = []
        self._told = True
        """Whether the helper knows the allowlist; one that was started (again) does not."""
        self._prefix = list(prefix)
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._encoder = msgspec.msgpack.Encoder()
        self._id = 0
        self._connection: socket.socket | None = None
        self._pid = 0
        self._started_at = -_RESTART_PAUSE
        self.note = ""
        """What the helper cannot do and need not stop anybody; "" when it can do all."""
        try:
            self._ask(Ping, timeout=_START_TIMEOUT)
        except EnforcementError:
            self._drop()
            raise

    @property
    def pid(self) -> int:
        """The helper's process id, 0 where there is none."""
        return self._pid

    def allow(self, networks: Iterable[str]) -> None:
        """What is never blocked without a person's override from now on; EnforcementError where it cannot be told."""
        self._allowlist, self._told = list(networks), False
        self._tell()

    def _tell(self) -> None:
        pages = list(_pages(self._allowlist)) or [[]]
        # Set first: what it asks is asked in the same way.
        self._told = True
        try:
            for number, page in enumerate(pages):
                self._ask(Allow, page, first=not number, more=number < len(pages) - 1)
        except EnforcementError:
            self._told = False
            raise

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        """See `Enforcer`. A decision that the helper refuses does not keep others back."""
        entries = [(network_text(network), end) for network, end in wanted_of(decisions, now).items()]
        override = _overriding(decisions)
        failures: list[EnforcementError] = []
        for page in _pages(entries):
            try:
                self._ask(Add, now, page, override=_places(page, override))
            except _RefusedError as refused:
                failures.append(refused)
        if failures:
            raise EnforcementError("; ".join(one.message for one in failures[:3]), hint=failures[0].hint)

    def remove(self, targets: Iterable[Target]) -> None:
        """See `Enforcer`."""
        texts = [target.value for target in targets if target.kind is not TargetKind.USER]
        for page in _pages(texts):
            self._ask(Remove, page)

    def sync(self, active: Sequence[Decision], now: int) -> int:
        """See `Enforcer`."""
        entries = [(network_text(network), end) for network, end in wanted_of(active, now).items()]
        pages = list(_pages(entries)) or [[]]
        override = _overriding(active)
        for number, page in enumerate(pages[:-1]):
            self._ask(Sync, now, page, first=not number, more=True, override=_places(page, override))
        places = _places(pages[-1], override)
        return self._ask(Sync, now, pages[-1], first=len(pages) == 1, timeout=_SYNC_TIMEOUT, override=places).number

    def blocked(self) -> dict[str, int]:
        """Target as text -> end of its lease, as the helper knows it."""
        found: dict[str, int] = {}
        more = True
        while more:
            reply = self._ask(List, len(found))
            found.update(reply.entries)
            more = reply.more and bool(reply.entries)
        return found

    def counters(self) -> Counters:
        """What the kernel dropped."""
        targets: dict[str, tuple[int, int]] = {}
        more, total = True, (0, 0)
        while more:
            reply = self._ask(Count, len(targets), timeout=_SYNC_TIMEOUT)
            targets.update({target: (packets, size) for target, packets, size in reply.counted})
            more, total = reply.more and bool(reply.counted), reply.total
        return Counters(*total, targets)

    def ping(self) -> None:
        """EnforcementError unless the helper is there and its table stands."""
        self._ask(Ping)

    def close(self) -> None:
        """End the helper; what is enforced stays enforced."""
        if self._connection is None:
            return
        try:
            self._ask(Close)
        except EnforcementError:
            pass  # it is to end anyway
        self._drop()

    # ------------------------------------------------------------------------------------------ inside
    def _start(self) -> socket.socket:
        if time.monotonic() - self._started_at < _RESTART_PAUSE:
            raise EnforcementError("the kernel helper is gone", hint=_RESTART_HINT)
        self._started_at = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = msgspec.json.encode(self._config).decode()
        argv = [*self._prefix, sys.executable, "-I", "-m", _MODULE, config]
        try:
            with theirs:
                self._pid = os.posix_spawnp(
                    argv[0], argv, ENVIRONMENT, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
                )
        except OSError as error:
            ours.close()
            raise EnforcementError(f"cannot start the kernel helper: {error}", hint=_RESTART_HINT) from None
        self._connection = ours
        self._told = not self._allowlist
        return ours

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._pid:
            pid, self._pid = self._pid, 0
            # It ends by itself when the socket closes; a hung one is not waited for for ever.
            with contextlib.suppress(ChildProcessError, PermissionError, ProcessLookupError):
                end = time.monotonic() + _END_TIMEOUT
                while os.waitpid(pid, os.WNOHANG) == (0, 0):
                    if time.monotonic() > end:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                        return
                    time.sleep(0.005)

    def _ask(self, kind: Callable[..., Verb], *fields: object, timeout: float = _TIMEOUT, **named: object) -> Reply:
        connection = self._connection or self._start()
        if not self._told:
            self._tell()
        self._id += 1
        frame = self._encoder.encode(kind(self._id, *fields, **named))
        connection.settimeout(timeout)
        try:
            connection.send(frame)
            while True:
                data = connection.recv(FRAME_LIMIT * 4)
                if not data:
                    raise ConnectionResetError("it has ended")
                reply = self._decoder.decode(data)
                if reply.id == self._id:
                    break
                if reply.id == 0:
                    # The answer to this verb is lost with the worker; whether it was done, `sync` will tell.
                    self._told = not self._allowlist
                    raise EnforcementError(reply.error, hint=reply.hint or "the next sync puts it right")
        except TimeoutError:
            raise EnforcementError(
                f"the kernel helper gave no answer within {timeout:g} s", hint="the next sync puts it right"
            ) from None
        except (OSError, msgspec.MsgspecError) as error:
            self._drop()
            raise EnforcementError(f"the kernel helper is gone: {error}", hint=_RESTART_HINT) from None
        if reply.note:
            self.note = reply.note
        if reply.error:
            raise _RefusedError(reply.error, hint=reply.hint)
        return reply


class _RefusedError(EnforcementError):
    """The helper is there and said no."""


def _overriding(decisions: Iterable[Decision]) -> set[str]:
    """Targets that a person blocks though the allowlist has them."""
    return {decision.target.value for decision in decisions if decision.override}


def _places(page: Sequence[tuple[str, int]], chosen: set[str]) -> list[int]:
    return [place for place, (text, _) in enumerate(page) if text in chosen]


def _pages(items: Sequence[_Item]) -> Iterable[list[_Item]]:
    for start in range(0, len(items), ENTRIES_PER_FRAME):
        yield list(items[start : start + ENTRIES_PER_FRAME])

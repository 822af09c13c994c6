"""The small process that may look at every socket of this host, so that the engine need not: one verb, one answer.
Counterpart: `app.up` starts it before privileges go, `app.port_watch` asks it; `app.port_inside` does the looking."""

from __future__ import annotations

import sys
import threading
from typing import BinaryIO

import msgspec
import structlog

from vedette.app.apart import Apart, become
from vedette.app.port_inside import inside_view, own_host
from vedette.model.clock import SystemClock
from vedette.model.ports import InsideView, PortPolicy
from vedette.system.bound_sockets import addresses
from vedette.system.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
)

log = structlog.get_logger()

_MODULE = "vedette.app.inside_helper"
_NAME_LIMIT = 1_024
_ANSWER_LIMIT = 64 * 1024 * 1024
_PATIENCE = 90.0
"""Seconds for one answer; a host with a thousand containers takes some. More than `inside_view` takes by far: who does
not answer in time is lost for good."""
_CAPABILITIES = (CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN)
"""To read who holds a socket, to ask the kernel for its firewall (iptables-legacy through a raw socket), and to enter
network namespaces."""


class InsideHelper:
    """Starts the process; any thread may ask. Once it is gone nothing is known of the inside, which is said once."""

    def __init__(self, uid: int, gid: int) -> None:
        """uid, gid: whom it becomes. OSError where it cannot be started."""
        self._lock = threading.Lock()
        self._apart = Apart(_MODULE, uid, gid)
        self._apart.connection.settimeout(_PATIENCE)

    @property
    def pid(self) -> int:
        """Its process id, 0 once it is gone."""
        return self._apart.pid

    def view(self, policy: PortPolicy) -> tuple[InsideView, ...]:
        """The view of the one host of `policy` that this machine is, if it is any and the helper is there."""
        host = own_host(policy, addresses())
        if host is None:
            return ()
        with self._lock:
            if not self._apart.pid:
                return ()
            try:
                self._apart.stream.write(msgspec.json.encode(host.name[:_NAME_LIMIT]) + b"\n")
                self._apart.stream.flush()
                answer = msgspec.json.decode(self._apart.stream.readline(_ANSWER_LIMIT), type=InsideView | str)
            except (OSError, msgspec.MsgspecError) as error:
                reason = f"the helper that looks inside is gone: {error}"
                log.error("INSIDE NOT SEEN", reason=reason, hint="restart vedette")
                self._apart.end()
                return ()
        if isinstance(answer, str):
            log.error("INSIDE NOT SEEN", reason=f"this look inside failed: {answer}")
            return ()
        return (answer,)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._apart.end()


def serve(asked: BinaryIO, answered: BinaryIO) -> None:
    """Answer until there is nobody left to ask: each line names the host, each answer is its view, or why none.

    What fails in one look is said and does not end us: nobody with our rights could be started again, and whoever lives
    on this host names its devices and processes.
    """
    clock = SystemClock()
    while line := asked.readline(8 * _NAME_LIMIT):
        host = msgspec.json.decode(line, type=str)
        try:
            answer = msgspec.json.encode(inside_view(host, clock))
        except Exception as error:  # noqa: BLE001 (told to whoever asked)
            answer = msgspec.json.encode(ascii(f"{type(error).__name__}: {error}")[1:-1][:_NAME_LIMIT])
        answered.write(answer + b"\n")
        answered.flush()


def main() -> None:
    """Become the helper: standard input asks, standard output answers."""
    become(_CAPABILITIES)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()

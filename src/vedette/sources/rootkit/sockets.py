"""Ports that are in use and in no list of the kernel, or in one and not the other; and interfaces that take everything.
Counterpart: `system.bound_sockets` reads both lists, `system.interfaces` the interfaces; `traces` has the words."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from vedette.model.levels import Level
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.system import bound_sockets
from vedette.system.bound_sockets import BoundSocket
from vedette.system.interfaces import Interface, interfaces
from vedette.text.escape import terminal

Port = tuple[str, int]
"""Transport and number."""
_NET = Path("/proc/thread-self/net")
_PAUSE, _ROUNDS = 0.05, 3
_LOCAL = re.compile(r"^\s*\d+:\s+[0-9A-F]+:([0-9A-F]{4})\s")
_ORDINARY = frozenset({"bridge", "bond", "team"})
_WAIT = 0.5


def hidden_ports(
    look: Look,
    *,
    net: Path = _NET,
    asked: Callable[[], Collection[BoundSocket]] = bound_sockets.ask_kernel,
    taken: Callable[[str, int], bool | None] | None = None,
    answers: Callable[[int], bool] | None = None,
    ports: range = range(1, 65536),
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sockets that listen, by sock_diag against /proc/net; and every port, by trying to bind it, against both.

    A port that is taken and that nobody lists is told when it answers (TCP): one may also be bound and not listened on.
    What is suspected is looked at again, so that what just begins or ends is not.
    """
    taken, answers = taken or _taken, answers or _answers
    suspects: dict[Port, str] | None = None
    for number in range(_ROUNDS):
        if number:
            sleep(_PAUSE)
        try:
            by_kernel = {(one.transport, one.port) for one in asked()}
            by_table = {(one.transport, one.port) for one in bound_sockets.read_tables(net)}
            listed = by_kernel | by_table | _every_local_port(net)
        except OSError:
            look.missed(Check.PORTS, Blind.UNREADABLE)
            return
        found = dict.fromkeys(by_kernel - by_table, "the kernel's sock_diag lists it, /proc/net does not")
        found |= dict.fromkeys(by_table - by_kernel, "/proc/net lists it, the kernel's sock_diag does not")
        wanted = [(transport, port) for transport in ("tcp", "udp") for port in ports] if suspects is None else suspects
        refused = 0
        for transport, port in wanted:
            look.go_on()
            if (transport, port) not in listed and (transport, port) not in found:
                is_taken = taken(transport, port)
                refused += is_taken is None
                if is_taken:
                    found[transport, port] = "it is taken, and no list of the kernel shows it"
        if not number:
            look.missed(Check.PORTS, Blind.NOT_PERMITTED, refused)
        suspects = {one: how for one, how in found.items() if suspects is None or one in suspects}
        if not suspects:
            return
    for (transport, port), how in sorted((suspects or {}).items()):
        if how.startswith("it is taken") and transport == "tcp" and not answers(port):
            continue
        look.found(
            TraceKind.HIDDEN_PORT, f"{port}/{transport}", Level.CRITICAL, how,
            destination__port=port, network__transport=transport,
        )  # fmt: skip


def _every_local_port(net: Path) -> set[Port]:
    """Of every socket in whatever state."""
    found: set[Port] = set()
    for transport in ("tcp", "udp"):
        for name in (transport, f"{transport}6"):
            with suppress(FileNotFoundError):
                for line in (net / name).read_text("ascii", "replace").splitlines():
                    if (local := _LOCAL.match(line)) is not None:
                        found.add((transport, int(local[1], 16)))
    return found


def _taken(transport: str, port: int) -> bool | None:
    """Whether the port cannot be bound because somebody has it; None where we may not try."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC) as tried:
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if transport == "tcp":
                # A service that begins at this very moment must not be in our way, nor we in its.
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as error:
        return True if error.errno == errno.EADDRINUSE else None
    return False


def _answers(port: int) -> bool:
    """Whether a connection to an address of our own is taken."""
    for address in ("127.0.0.1", "::1", *sorted(bound_sockets.addresses())):
        with suppress(OSError), socket.create_connection((address, port), timeout=_WAIT):
            return True
    return False


def listeners() -> dict[str, str]:
    """What listens here, by transport, address and port: for hosts to be held against each other. Empty = not known."""
    with suppress(OSError):
        return {f"{one.transport} {one.address}:{one.port}": "there" for one in bound_sockets.ask_kernel() if one.port}
    return {}


def promiscuous_interfaces(look: Look, *, asked: Callable[[], Collection[Interface]] = interfaces) -> None:
    """Interfaces that take what is not meant for them. A port of a bridge or bond does so by its nature."""
    try:
        found = asked()
    except OSError:
        look.missed(Check.INTERFACES, Blind.UNREADABLE)
        return
    for one in found:
        if not one.promiscuous:
            continue
        ordinary = one.master or one.kind in _ORDINARY
        name = terminal(one.name)
        look.found(
            TraceKind.PROMISCUOUS_INTERFACE,
            name,
            Level.INFORMATIONAL if ordinary else Level.MEDIUM,
            "it is part of a bridge or bond" if ordinary else "somebody reads all that passes it",
            vedette__rootkit__interface=name,
        )

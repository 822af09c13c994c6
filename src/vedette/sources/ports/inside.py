"""The inside of this host: every listening socket of every network namespace, who holds it and since when.
Counterpart: `system` reads the kernel's tables; `app.port_inside` adds what the firewall does; `judge` compares."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from vedette.model.clock import Clock
from vedette.model.ports import InsideView, Listener, Network, Protocol, UnreadWhy
from vedette.system import bound_sockets
from vedette.system.bound_sockets import BoundSocket
from vedette.system.namespaces import NetworkNamespace, inside, network_namespaces
from vedette.system.packages import owners
from vedette.system.processes import Process, process, socket_holders, user_names
from vedette.text.escape import decode, terminal

_INIT = 1
_HERE = Path("/")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Space:
    """One network namespace as it was found. listeners: without a word on the firewall. routes: network, device."""

    namespace: NetworkNamespace
    listeners: tuple[Listener, ...]
    addresses: frozenset[str]
    routes: tuple[tuple[Network, str], ...]

    def within(self, call: Callable[[], T]) -> T:
        """What `call` returns inside of it; OSError where it may not be entered."""
        entrance = self.namespace.entrance
        if self.namespace.own:
            return call()
        if entrance is None:
            raise OSError(errno.ENOENT, "no way into the namespace", self.namespace.name)
        return inside(entrance, call)


@dataclass(slots=True)
class Inside:
    """All of them, our own first. unread: how often what could not be read."""

    host: str
    at: int
    spaces: list[Space] = field(default_factory=list)
    unread: dict[UnreadWhy, int] = field(default_factory=dict)

    def missed(self, why: UnreadWhy, times: int = 1) -> None:
        """Count what could not be read."""
        if times:
            self.unread[why] = self.unread.get(why, 0) + times

    def view(self, listeners: Iterable[Listener] | None = None) -> InsideView:
        """As others see it; listeners: in place of those found."""
        found = [one for space in self.spaces for one in space.listeners] if listeners is None else listeners
        own = next((space.addresses for space in self.spaces if space.namespace.own), frozenset[str]())
        complete = not self.unread.keys() & {UnreadWhy.SOCKETS, UnreadWhy.NAMESPACE, UnreadWhy.TRANSLATION}
        return InsideView(self.host, self.at, tuple(found), complete, own, dict(self.unread))


def look_inside(host: str, clock: Clock, root: Path = _HERE) -> Inside:
    """What listens on this machine, told under the name `host`.

    Sockets that several processes hold, and several sockets of one service on one port, are one listener: that of
    the oldest. Since when is the start of the process, for the age of a socket cannot be known. A connected UDP
    socket is none. root: of the file tree, for tests; elsewhere than `/` the tables of /proc alone are read.
    """
    out = Inside(host, clock.now())
    namespaces, unread = network_namespaces(root)
    # A process whose namespace is secret may live in one that we know nothing of.
    out.missed(UnreadWhy.NAMESPACE, unread)
    found: list[tuple[NetworkNamespace, list[BoundSocket], frozenset[str], tuple[tuple[Network, str], ...]]] = []
    for namespace in namespaces:
        try:
            found.append((namespace, *_read(namespace, root)))
        except OSError:
            out.missed(UnreadWhy.SOCKETS if namespace.own else UnreadWhy.NAMESPACE)
    holders = socket_holders((one.inode for _, sockets, *_ in found for one in sockets if one.inode), root)
    out.missed(UnreadWhy.PROCESS, holders.unread)
    processes = {
        pid: known
        for pid in {pid for pids in holders.by_inode.values() for pid in pids}
        if (known := process(pid, root)) is not None
    }
    users, packages = user_names(root), owners({one.executable for one in processes.values()}, root)
    for namespace, sockets, addresses, routes in found:
        listeners = []
        for one in sockets:
            holder = _holder(processes[pid] for pid in holders.by_inode.get(one.inode, ()) if pid in processes)
            if holder is None:
                out.missed(UnreadWhy.HOLDER)
            listeners.append(_listener(host, namespace, one, holder, users, packages))
        alone = _without_twins(_with_dual(listeners, sockets))
        out.spaces.append(Space(namespace, tuple(alone), addresses, routes))
    return out


def _read(
    namespace: NetworkNamespace, root: Path
) -> tuple[list[BoundSocket], frozenset[str], tuple[tuple[Network, str], ...]]:
    """Sockets, addresses and routes of a namespace; OSError where they cannot be read in any way."""
    net = root / "proc" / ("self" if namespace.own or not namespace.pids else str(namespace.pids[0])) / "net"

    def ask() -> tuple[list[BoundSocket], frozenset[str], tuple[tuple[Network, str], ...]]:
        return bound_sockets.ask_kernel(), bound_sockets.addresses(), bound_sockets.routes()

    if root == _HERE:
        try:
            if namespace.own:
                return ask()
            if namespace.entrance is not None:
                return inside(namespace.entrance, ask)
        except OSError:
            # A kernel without sock_diag, or a namespace that may be seen and not entered.
            if not namespace.own and not namespace.pids:
                raise
    elif not namespace.own and not namespace.pids:
        raise OSError(errno.ENOENT, "nobody lives in the namespace", namespace.name)
    return bound_sockets.read_tables(net), bound_sockets.addresses(net), bound_sockets.routes(net)


def _holder(holding: Iterable[Process]) -> Process | None:
    """Whom a socket is put down to: the oldest who holds it, and not systemd where it only opened it for another."""
    found = sorted(holding, key=lambda one: (one.since, one.pid))
    return next((one for one in found if one.pid != _INIT), found[0] if found else None)


def _listener(
    host: str,
    namespace: NetworkNamespace,
    one: BoundSocket,
    holder: Process | None,
    users: Mapping[int, str],
    packages: Mapping[str, str],
) -> Listener:
    made = Listener(
        host, one.address, one.port, Protocol(one.transport), dual=bool(one.dual),
        device=_named(one.device), namespace=_named(namespace.name),
    )  # fmt: skip
    if holder is None:
        return replace(made, user=users.get(one.uid, str(one.uid)))
    uid = one.uid if holder.uid < 0 else holder.uid
    return replace(
        made,
        process=terminal(decode(holder.name)),
        pid=holder.pid,
        # In a container's file tree the same number is another user.
        user=users.get(uid, str(uid)) if holder.own_files else str(uid),
        unit=terminal(holder.unit),
        package=packages.get(holder.executable, ""),
        since=holder.since,
    )


def _named(name: str) -> str:
    """A name that anybody may have given, of whatever bytes, as text that can be told."""
    return terminal(decode(os.fsencode(name)))


def _with_dual(listeners: list[Listener], sockets: list[BoundSocket]) -> list[Listener]:
    """Where the kernel did not say, `::` takes IPv4 too unless another socket has that port there."""
    four = {(one.transport, one.port) for one in sockets if one.address == "0.0.0.0"}
    return [
        replace(listener, dual=(one.transport, one.port) not in four)
        if one.dual is None and one.address == "::"
        else listener
        for listener, one in zip(listeners, sockets, strict=True)
    ]


def _without_twins(listeners: list[Listener]) -> list[Listener]:
    """One of those that differ in nothing but the process (SO_REUSEPORT): the oldest."""
    kept: dict[Listener, Listener] = {}
    for one in sorted(listeners, key=lambda one: (one.port, one.protocol.value, one.address, one.since, one.pid)):
        kept.setdefault(replace(one, pid=0, since=0), one)
    return list(kept.values())

"""The sockets on which syslog is listened for: opened while privileges last, kept through reloads.
Counterpart: syslog.py reads them; `app.up` opens them first, as ports below 1024 need."""

from __future__ import annotations

import errno
import resource
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

from vedette.sources.settings import Listen, Transport

RECEIVE_BUFFER = 8 << 20
"""Bytes asked of the kernel for datagrams that wait to be read; without CAP_NET_ADMIN net.core.rmem_max bounds it."""
BACKLOG = 1024
"""Connections that may wait to be accepted; beyond that the kernel makes them ask again a second later."""
MOST_FILES = 65_536
"""Open files asked for; each connection is one."""
# Linux: include/uapi/asm-generic/socket.h, and SK_MEMINFO_DROPS in linux/sock_diag.h.
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")


def hint_of(listen: Listen, error: OSError, source: str) -> str:
    """How to mend that a socket of this source could not be opened."""
    if error.errno in (errno.EACCES, errno.EPERM) and listen.port < 1024:
        return "a port above 1023, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
    if error.errno == errno.EADDRINUSE:
        return "another program listens there: stop it, or name another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address (yet)"
    return f"sources.{source}.listen"


class Listeners:
    """Open sockets by what they listen on. Safe to ask again and again; `close` gives all back."""

    def __init__(self) -> None:
        self._open: dict[Listen, socket.socket] = {}
        self._drops: dict[Listen, int] = {}

    def open(self, listen: Listen) -> socket.socket:
        """The bound, non-blocking socket of `listen`, made at the first call; OSError where that cannot be."""
        made = self._open.get(listen)
        if made is None:
            made = self._open[listen] = _bound(listen)
        return made

    def bound(self, listen: Listen) -> str:
        """`udp 127.0.0.1:514`, with the port that was given where 0 was asked for."""
        port = self.open(listen).getsockname()[1]
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        return f"{listen.transport.value} {host}:{port}"

    def only(self, wanted: Iterable[Listen]) -> None:
        """Close what is not listened on any more."""
        kept = set(wanted)
        for listen in [one for one in self._open if one not in kept]:
            self._open.pop(listen).close()
            self._drops.pop(listen, None)

    def dropped(self, listen: Listen) -> int:
        """Datagrams the kernel dropped since this was asked last, because nobody read them in time."""
        if listen.transport is not Transport.UDP or listen not in self._open:
            return 0
        now = int(_MEMINFO.unpack(self._open[listen].getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[8])
        before, self._drops[listen] = self._drops.get(listen, 0), now
        return now - before & 0xFFFFFFFF

    def close(self) -> None:
        """Give everything back."""
        self.only(())


def files_allowed() -> int:
    """How many files this process may have open, once it is as many as it may ask for, up to `MOST_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MOST_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _bound(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    datagrams = listen.transport is Transport.UDP
    made = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            # Both families may be named, each on its own.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if datagrams:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            with suppress(PermissionError):
                made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((listen.host, listen.port))
        if not datagrams:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made

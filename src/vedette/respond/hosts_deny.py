"""Blocks as lines of /etc/hosts.deny between two marks; every byte outside them stays as it is.
Counterpart: services built with libwrap (TCP wrappers) read the file at each connection, hosts_access(5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.model.errors import EnforcementError, Location
from vedette.respond.nftables import wanted_of
from vedette.system.files import write_atomic
from vedette.text.addresses import Network, parse_network

_BEGIN = re.compile(rb"^# BEGIN vedette\b(?:[^\n]*\(([0-2])\))?[^\n]*\n", re.MULTILINE)
_END = re.compile(rb"^# END vedette\b[^\n]*(?:\n|\Z)", re.MULTILINE)
_NEW_FILE_MODE = 0o644  # sshd's unprivileged child reads it too
_TRIES = 3


def pattern(network: Network) -> str:
    """A network as hosts_access(5) wants it: IPv6 in brackets, IPv4 prefixes with a mask."""
    whole = network.prefixlen == network.max_prefixlen
    if network.version == 4:
        return str(network.network_address) if whole else f"{network.network_address}/{network.netmask}"
    return f"[{network.network_address}]" if whole else f"[{network.network_address}]/{network.prefixlen}"


def parse_pattern(text: str) -> Network | None:
    """What `pattern` wrote, or None."""
    head, slash, rest = text.strip().partition("/")
    try:
        return ip_network(head.removeprefix("[").removesuffix("]") + slash + rest, strict=False)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Parts:
    """The file taken apart: `before` + our block + `after`; ours is None where the block is not there yet."""

    before: bytes
    ours: tuple[Network, ...] | None
    after: bytes


def take_apart(data: bytes, file: str) -> Parts:
    """Split a hosts.deny; EnforcementError with file:line where our marks are damaged."""
    begins, ends = list(_BEGIN.finditer(data)), list(_END.finditer(data))
    if not begins and not ends:
        return Parts(data, None, b"")
    if len(begins) != 1 or len(ends) != 1 or ends[0].start() < begins[0].end():
        first = min(match.start() for match in (*begins, *ends))
        raise EnforcementError(
            "the marks around vedette's lines are damaged, so nothing is written",
            location=Location(file, data.count(b"\n", 0, first) + 1),
            hint="remove the lines '# BEGIN vedette' and '# END vedette' and what is ours between them",
        )
    begin, end = begins[0], ends[0]
    breaks = b"\n" * int(begin[1] or b"0")
    before = data[: begin.start()]
    ours = []
    for line in data[begin.end() : end.start()].splitlines():
        _, colon, clients = line.decode("ascii", "replace").partition(": ")
        network = parse_pattern(clients) if colon else None
        if network is not None:
            ours.append(network)
    return Parts(before.removesuffix(breaks) if breaks else before, tuple(ours), data[end.end() :])


def put_together(parts: Parts, networks: Iterable[Network], service: str) -> bytes:
    """The file with these networks in our block; without a block, and so the bytes of before, where there are none."""
    lines = [f"{service}: {pattern(network)}\n" for network in sorted(networks, key=_order)]
    if not lines:
        return parts.before + parts.after
    breaks = 0
    if parts.before and not parts.before.endswith(b"\n"):
        breaks = 1
    if re.search(rb"\\\r?\n?\Z", parts.before):
        breaks += 1  # a backslash joins the next line to the last one, and that would be our mark
    mark = f"# BEGIN vedette: written by vedette, changes up to END are lost ({breaks})\n"
    return b"".join(
        [parts.before, b"\n" * breaks, mark.encode(), "".join(lines).encode(), b"# END vedette\n", parts.after]
    )


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


class HostsDenyEnforcer:
    """Writes the file whole, keeping mode and owner; a symbolic link is followed. Needs write access to its folder.

    Leases end at the next `remove` or `sync`: the file itself knows no time.
    """

    name = "hosts_deny"

    def __init__(self, path: Path = Path("/etc/hosts.deny"), service: str = "sshd") -> None:
        self._path, self._service = path, service

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        """See `Enforcer`."""
        fresh = wanted_of(decisions, now)
        if fresh:
            self._change(lambda there: there | set(fresh))

    def remove(self, targets: Iterable[Target]) -> None:
        """See `Enforcer`."""
        gone = {parse_network(target.value) for target in targets if target.kind is not TargetKind.USER}
        if gone:
            self._change(lambda there: there - gone)

    def sync(self, active: Sequence[Decision], now: int) -> int:
        """See `Enforcer`."""
        wanted = set(wanted_of(active, now))
        return self._change(lambda _: wanted)

    def close(self) -> None:
        """See `Enforcer`."""

    def _change(self, change: Callable[[set[Network]], set[Network]]) -> int:
        for _ in range(_TRIES):
            try:
                before = self._stamp()
                data = self._path.read_bytes() if before else b""
                parts = take_apart(data, str(self._path))
                there = set(parts.ours or ())
                wanted = change(there)
                made = put_together(parts, wanted, self._service)
                if made == data:
                    return 0
                if self._stamp() != before:
                    continue  # somebody else wrote it while we read
                write_atomic(self._path, made, None if before else _NEW_FILE_MODE)
            except OSError as error:
                raise EnforcementError(
                    f"cannot write: {error.strerror or error}",
                    location=Location(str(self._path)),
                    hint="this enforcer needs write access to the file and its folder",
                ) from None
            return max(len(there ^ wanted), 1)
        raise EnforcementError("somebody else keeps writing it", location=Location(str(self._path)))

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

"""Drops every packet of blocked sources in the kernel: own table, one timeout set per prefix length, counters.
Counterpart: kernel_helper.py holds one with the privilege, helper_enforcer.py speaks to it from the engine."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from vedette.model.clock import MILLISECOND, SECOND
from vedette.model.decisions import Decision, Target, TargetKind
from vedette.model.errors import EnforcementError
from vedette.respond.netlink import DELSETELEM, NEWSETELEM, Change, Element, Monitor, Netfilter
from vedette.respond.sockets import end_connections
from vedette.system.exec import run
from vedette.text.addresses import Network, parse_network

TABLE = "vedette"
CHAIN = "prerouting"
COUNTER = "dropped"
ALWAYS = ((4, 32), (6, 128), (6, 64))
"""Prefix lengths whose sets are there from the start; others are made when first needed."""
TOLERANCE = 2 * SECOND
"""A lease in the kernel may differ by this much from the decision's before `sync` mends it."""
LONGEST = 3650 * 86_400 * SECOND
_FORGET_AT = 4096

Length = tuple[int, int]
_DIFFERS = re.compile(rb"File exists|Device or resource busy|Not supported|Operation not supported")
_HINTS = {
    errno.EPERM: "this needs CAP_NET_ADMIN: start the kernel helper as root or with that capability",
    errno.EACCES: "this needs CAP_NET_ADMIN: start the kernel helper as root or with that capability",
    errno.ENFILE: "the set is full: raise nftables.size, or lift blocks that are not needed any more",
    errno.EOPNOTSUPP: "this kernel lacks nf_tables",
    errno.EPROTONOSUPPORT: "this kernel lacks nf_tables",
    errno.ENOBUFS: "the kernel's answer was lost; the next sync mends what is missing",
}


@dataclass(slots=True)
class Counters:
    """What was dropped since the table was made; per target since its lease was last set."""

    packets: int = 0
    bytes: int = 0
    targets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Target as text -> (packets, bytes)."""


def set_name(length: Length) -> str:
    """`v4_32`, `v6_64`."""
    return f"v{length[0]}_{length[1]}"


def length_of(network: Network) -> Length:
    """IP version and prefix length."""
    return network.version, network.prefixlen


def network_text(network: Network) -> str:
    """As a Target has it: the length only where it is not one address."""
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def structure(lengths: Iterable[Length], size: int) -> str:
    """The nft script that makes table, counter, chain, sets and rules; running it again changes nothing.

    Hook prerouting at priority raw (-300): before connection tracking and DNAT, so that published container
    ports and established connections are dropped too.
    """
    lines = [
        f"add table inet {TABLE}",
        f"add counter inet {TABLE} {COUNTER}",
        f"add chain inet {TABLE} {CHAIN} {{ type filter hook prerouting priority -300; policy accept; }}",
        f"flush chain inet {TABLE} {CHAIN}",
    ]
    for version, length in sorted(lengths, reverse=True):
        name, word = set_name((version, length)), "ip" if version == 4 else "ip6"
        lines.append(f"add set inet {TABLE} {name} {{ type ipv{version}_addr; flags timeout; size {size}; counter; }}")
        mask = ""
        if length != (32 if version == 4 else 128):
            mask = f" & {ip_network(('0.0.0.0' if version == 4 else '::', length)).netmask}"
        lines.append(f"add rule inet {TABLE} {CHAIN} {word} saddr{mask} @{name} counter name {COUNTER} drop")
    return "\n".join(lines) + "\n"


def wanted_of(decisions: Iterable[Decision], now: int) -> dict[Network, int]:
    """Network -> end of the longest lease; users and leases that have ended are left out."""
    wanted: dict[Network, int] = {}
    for decision in decisions:
        if decision.target.kind is not TargetKind.USER and decision.expires_at > now:
            network = parse_network(decision.target.value)
            wanted[network] = max(wanted.get(network, 0), decision.expires_at)
    return wanted


class KernelSets:
    """The sets and what we know to be in them. In terms of networks and lease ends; microseconds throughout.

    Needs CAP_NET_ADMIN in the network namespace it lives in. Every failure is an EnforcementError.
    """

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._lengths: set[Length] = set(ALWAYS)
        try:
            self._netfilter = Netfilter(TABLE)
            self._monitor = Monitor(TABLE, self._netfilter.port)
        except OSError as error:
            raise _explained("cannot reach the kernel's tables", error) from None
        self.known: dict[Network, int] = {}
        self._forget_at = _FORGET_AT

    def open(self, now: int) -> None:
        """Make the structure where it is missing and take over the elements that are there (we were restarted)."""
        try:
            self._lengths |= {length for name in self._netfilter.sets() if (length := _length_named(name))}
            self._build()
            self.known = {network: now + element.left * MILLISECOND for network, element in self._read().items()}
        except OSError as error:
            raise _explained("cannot set up the kernel's sets", error) from None

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self._netfilter.close()
        self._monitor.close()

    def add(self, wanted: Mapping[Network, int], now: int) -> None:
        """Drop packets from these networks until their times; in one transaction; a longer lease there stays.

        Where the sets cannot take all, as many as fit are added before EnforcementError.
        """
        fresh = {network: end for network, end in wanted.items() if end > now and end > self.known.get(network, 0)}
        if not fresh:
            return
        if len(self.known) >= self._forget_at:
            self.known = {network: end for network, end in self.known.items() if end > now}
            self._forget_at = max(_FORGET_AT, 2 * len(self.known))
        if missing := {length_of(network) for network in fresh} - self._lengths:
            self._lengths |= missing
            try:
                self._build()
            except OSError as error:
                self._lengths -= missing
                raise _explained("cannot make a set", error) from None
        try:
            self._put(fresh, now)
        except OSError as error:
            if error.errno == errno.ENOENT:
                # Table or set vanished a moment ago: remake all, the new ones among it.
                self.known.update(fresh)
                self.mend(now)
                return
            if error.errno == errno.ENFILE:
                self._put_what_fits(list(fresh.items()), now)
            raise _explained(f"cannot block {_some(fresh)}", error) from None

    def remove(self, networks: Iterable[Network]) -> None:
        """Let these through at once; what is not blocked is passed over."""
        gone = [network for network in networks if network in self.known]
        try:
            self._delete(gone)
        except OSError as error:
            raise _explained(f"cannot lift {_some(gone)}", error) from None

    def sync(self, wanted: Mapping[Network, int], now: int) -> int:
        """Make table, rules and sets exactly so, reading back what the kernel has; how much had to be mended."""
        wanted = {network: end for network, end in wanted.items() if end > now}
        try:
            return self._reconcile(wanted, now)
        except OSError as error:
            raise _explained("cannot bring the kernel's sets in line", error) from None

    def mend(self, now: int) -> int:
        """Make the kernel what we know it should be: after somebody flushed the ruleset, for example."""
        return self.sync(self.known, now)

    def changed(self) -> bool:
        """Whether somebody else touched our table since the last call; then `mend`."""
        try:
            return self._monitor.changed()
        except OSError as error:
            raise _explained("cannot watch the kernel's tables", error) from None

    def fileno(self) -> int:
        """For poll(2): readable when `changed` has something to say."""
        return self._monitor.fileno()

    def counters(self) -> Counters:
        """What was dropped."""
        try:
            packets, size = self._netfilter.counter(COUNTER)
            targets = {network_text(network): (one.packets, one.bytes) for network, one in self._read().items()}
        except OSError as error:
            raise _explained("cannot read the counters", error) from None
        return Counters(packets, size, targets)

    # ------------------------------------------------------------------------------------------ inside
    def _build(self) -> None:
        script = structure(self._lengths, self._size)
        try:
            done = run(["nft", "-f", "-"], stdin=script.encode())
            if done.returncode and _DIFFERS.search(done.stderr):
                # A table of another version or size is in the way. Its elements come back from what we know.
                done = run(["nft", "-f", "-"], stdin=f"delete table inet {TABLE}\n{script}".encode())
        except FileNotFoundError:
            raise EnforcementError("there is no program nft", hint="install the package nftables") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise EnforcementError(
                f"nft refused the table: {said[0] if said else f'exit code {done.returncode}'}",
                hint=_HINTS[errno.EPERM] if b"not permitted" in done.stderr else "see `nft list ruleset`",
            )

    def _read(self) -> dict[Network, Element]:
        found: dict[Network, Element] = {}
        for length in self._lengths:
            for element in self._netfilter.elements(set_name(length)):
                address = IPv4Address(element.key) if length[0] == 4 else IPv6Address(element.key)
                found[ip_network((address, length[1]), strict=False)] = element
        return found

    def _put(self, fresh: Mapping[Network, int], now: int) -> None:
        changes = []
        for length, networks in _by_length(fresh).items():
            new, old = list[tuple[bytes, int]](), list[tuple[bytes, int]]()
            for network in networks:
                left = max(1, min(fresh[network] - now, LONGEST) // MILLISECOND)
                (old if network in self.known else new).append((network.network_address.packed, left))
            name = set_name(length)
            if new:
                changes.append(Change(NEWSETELEM, name, new))
            if old:
                # Kernels before 6.12 do not touch the timeout of an element that is there, so it is deleted first;
                # and added before that, because deleting one whose lease just ended would fail the transaction.
                changes += [Change(NEWSETELEM, name, old), Change(DELSETELEM, name, old), Change(NEWSETELEM, name, old)]
        self._netfilter.change(changes)
        self.known.update(fresh)

    def _put_what_fits(self, fresh: Sequence[tuple[Network, int]], now: int) -> None:
        """Halve until a part fits or one element alone does not."""
        if len(fresh) == 1:
            return
        for half in (fresh[: len(fresh) // 2], fresh[len(fresh) // 2 :]):
            try:
                self._put(dict(half), now)
            except OSError as error:
                if error.errno != errno.ENFILE:
                    raise
                self._put_what_fits(half, now)

    def _delete(self, networks: Sequence[Network]) -> None:
        changes = [
            Change(DELSETELEM, set_name(length), [(network.network_address.packed, 0) for network in some])
            for length, some in _by_length(networks).items()
        ]
        try:
            self._netfilter.change(changes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            # The lease of one of them has just ended by itself (or the table is gone): one by one.
            if len(networks) > 1:
                for network in networks:
                    self._delete([network])
                return
        for network in networks:
            self.known.pop(network, None)

    def _reconcile(self, wanted: Mapping[Network, int], now: int) -> int:
        mended = 0
        self._lengths |= {length_of(network) for network in wanted}
        names = {set_name(length) for length in self._lengths}
        if not names <= set(self._netfilter.sets()) or self._netfilter.rules(CHAIN) != len(names):
            self._build()
            mended += 1
        there = self._read()
        extra = [network for network in there if network not in wanted]
        self._delete(extra)
        wrong = {
            network: end
            for network, end in wanted.items()
            if network not in there or abs(now + there[network].left * MILLISECOND - end) > TOLERANCE
        }
        self.known = {network: end for network, end in wanted.items() if network in there}
        try:
            self._put(wrong, now)
        except OSError as error:
            if error.errno == errno.ENFILE:
                self._put_what_fits(list(wrong.items()), now)
            raise
        finally:
            # What did not go in is still wanted: the next sync tries again.
            self.known = dict(wanted)
        return mended + len(extra) + len(wrong)


def _length_named(name: str) -> Length | None:
    version, _, length = name.removeprefix("v").partition("_")
    if version in ("4", "6") and length.isascii() and length.isdigit() and int(length) <= 128:
        return int(version), int(length)
    return None


def _by_length(networks: Iterable[Network]) -> dict[Length, list[Network]]:
    grouped: dict[Length, list[Network]] = {}
    for network in networks:
        grouped.setdefault(length_of(network), []).append(network)
    return grouped


def _some(networks: Iterable[Network]) -> str:
    texts = [network_text(network) for network in networks]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _explained(what: str, error: OSError) -> EnforcementError:
    hint = _HINTS.get(error.errno or 0, "see `nft list table inet vedette`")
    return EnforcementError(f"{what}: {error.strerror or error}", hint=hint)


class NftablesEnforcer:
    """The enforcer for a process that holds CAP_NET_ADMIN itself; see `helper_enforcer` for one that does not."""

    name = "nftables"

    def __init__(self, now: int, *, size: int = 65_536, end: bool = True) -> None:
        """Make the table and take over what is in it. end: end established connections of blocked peers."""
        self.sets = KernelSets(size)
        self.ender = ConnectionEnder() if end else None
        try:
            self.sets.open(now)
        except EnforcementError:
            self.sets.close()
            raise

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        """See `Enforcer`; connections are ended only once the drop is in effect."""
        wanted = wanted_of(decisions, now)
        self.sets.add(wanted, now)
        if self.ender:
            self.ender.end(list(wanted))

    def remove(self, targets: Iterable[Target]) -> None:
        """See `Enforcer`."""
        self.sets.remove(parse_network(one.value) for one in targets if one.kind is not TargetKind.USER)

    def sync(self, active: Sequence[Decision], now: int) -> int:
        """See `Enforcer`."""
        return self.sets.sync(wanted_of(active, now), now)

    def watch(self, now: int) -> int:
        """Call often (or when `sets.fileno()` is readable): remakes what somebody else broke; how much was mended."""
        return self.sets.mend(now) if self.sets.changed() else 0

    def counters(self) -> Counters:
        """What was dropped."""
        return self.sets.counters()

    def close(self) -> None:
        """See `Enforcer`."""
        self.sets.close()


class ConnectionEnder:
    """Ends connections where the kernel can; where it cannot, `unsupported` says why and the drop alone holds."""

    def __init__(self) -> None:
        self.unsupported = ""
        self.ended = 0

    def end(self, networks: Sequence[Network]) -> None:
        """End the connections with peers in `networks`; never raises, because the drop is in effect already."""
        if self.unsupported or not networks:
            return
        try:
            self.ended += end_connections(networks)
        except OSError as error:
            self.unsupported = f"connections of blocked peers cannot be ended: {error.strerror or error}"

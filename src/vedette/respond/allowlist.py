"""Who is never blocked: the hard floor nothing passes, and the allowlist that wins over rules.
Counterpart: policy asks before every decision, the kernel helper asks again before every element."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from vedette.model.errors import ConfigError, Location
from vedette.model.reasons import RefusalReason
from vedette.system.files import write_atomic
from vedette.system.own_addresses import own_addresses
from vedette.text.addresses import Network, parse, parse_network

FIXED_FLOOR = (
    "0.0.0.0/8",  # "this network", the unspecified address in it (RFC 6890)
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
)
SHORTEST_PREFIX = {4: 8, 6: 32}
"""A prefix shorter than this is refused whoever asks: it would be a large part of the world."""
TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("2001::/32"))
"""NAT64 (RFC 6052, RFC 8215) and Teredo (RFC 4380): a prefix that holds much of these holds much of IPv4."""
SHORTEST_TRANSLATED = 96 + SHORTEST_PREFIX[4]


class Networks:
    """A set of networks; asking costs one dictionary look-up per prefix length in use, also at 10,000 networks."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        for network in networks:
            self._put(network)
        for starts in self._starts.values():
            starts.sort()

    def _put(self, network: Network) -> bool:
        members = self._by_length.setdefault((network.version, network.prefixlen), set())
        start = int(network.network_address)
        if start in members:
            return False
        members.add(start)
        self._starts[network.version].append(start)
        return True

    def add(self, network: Network) -> None:
        """Put one more network in."""
        if self._put(network):
            starts = self._starts[network.version]
            insort(starts, starts.pop())

    def __len__(self) -> int:
        return sum(len(members) for members in self._by_length.values())

    def overlaps(self, network: Network) -> bool:
        """Whether `network` and any of these have an address in common."""
        start, bits = int(network.network_address), network.max_prefixlen
        for (version, length), members in self._by_length.items():
            if version == network.version and length <= network.prefixlen:
                shift = bits - length
                if start >> shift << shift in members:
                    return True
        starts = self._starts[network.version]
        first = bisect_left(starts, start)
        return first < len(starts) and starts[first] <= int(network.broadcast_address)

    def contains(self, address: str) -> bool:
        """Whether `address` (canonical text) lies in any of these; False where it is no address."""
        found = parse(address)
        return found is not None and self.overlaps(ip_network(found))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an allowlist."""

    network: Network
    comment: str = ""


class Guard:
    """The hard floor and the allowlist together. Not thread-safe; replaced or added to between two decisions."""

    def __init__(self, floor: Iterable[Network] = (), allowlist: Iterable[Entry] = ()) -> None:
        self._fixed = Networks(ip_network(text) for text in FIXED_FLOOR)
        self.floor = frozenset(floor)
        self._floor = Networks(self.floor)
        self.set_allowlist(allowlist)

    def set_floor(self, floor: Iterable[Network]) -> bool:
        """Replace what stands on the floor besides the fixed part; whether that changed anything."""
        networks = frozenset(floor)
        if networks == self.floor:
            return False
        self.floor, self._floor = networks, Networks(networks)
        return True

    def set_allowlist(self, entries: Iterable[Entry]) -> None:
        """Replace the allowlist."""
        self.entries = list(entries)
        self._allowed = Networks(entry.network for entry in self.entries)

    def allow(self, entry: Entry) -> None:
        """One more entry."""
        self.entries.append(entry)
        self._allowed.add(entry.network)

    def refuses(self, network: Network) -> RefusalReason | None:
        """HARD_FLOOR, ALLOWLISTED or None. A prefix is refused when any address in it would be."""
        if (
            network.prefixlen < SHORTEST_PREFIX[network.version]
            or (network.prefixlen < SHORTEST_TRANSLATED and is_translated(network))
            or self._fixed.overlaps(network)
            or self._floor.overlaps(network)
        ):
            return RefusalReason.HARD_FLOOR
        if self._allowed.overlaps(network):
            return RefusalReason.ALLOWLISTED
        return None

    def comment_for(self, network: Network) -> str:
        """The comment of the first allowlist entry that has an address in common with `network`."""
        for entry in self.entries:
            if entry.network.version == network.version and entry.network.overlaps(network):
                return entry.comment
        return ""


def is_translated(network: Network) -> bool:
    """Whether `network` holds addresses behind a translator or relay, whose /64 is many strangers and no site."""
    return isinstance(network, IPv6Network) and any(network.overlaps(one) for one in TRANSLATED)


def host_floor(proc: Path = Path("/proc"), resolv_conf: Path = Path("/etc/resolv.conf")) -> frozenset[Network]:
    """What this host must not block to stay a host: its own addresses, its gateways, its resolvers.

    Read from `/proc/net/{fib_trie,if_inet6,route,ipv6_route}` (proc_net(5)) and resolv.conf(5), of the
    network namespace of the caller. A file that is not there (no IPv6) adds nothing; names are not resolved.
    """
    readers: tuple[tuple[Path, Callable[[str], Iterable[IPv4Address | IPv6Address]]], ...] = (
        (proc / "net" / "route", _gateways_v4),
        (proc / "net" / "ipv6_route", _gateways_v6),
        (resolv_conf, _resolvers),
    )
    found: set[IPv4Address | IPv6Address] = set(own_addresses(proc))
    for path, reader in readers:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found.update(reader(text))
    return frozenset(ip_network(address) for address in found if not address.is_unspecified)


def _gateways_v4(text: str) -> Iterable[IPv4Address | IPv6Address]:
    """Third column, the kernel's own byte order in hexadecimal."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and len(fields[2]) == 8:
            yield IPv4Address(bytes.fromhex(fields[2])[::-1])


def _gateways_v6(text: str) -> Iterable[IPv4Address | IPv6Address]:
    """Fifth column, 32 hexadecimal digits."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 10 and len(fields[4]) == 32:
            yield ip_address(bytes.fromhex(fields[4]))


def _resolvers(text: str) -> Iterable[IPv4Address | IPv6Address]:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == "nameserver" and (address := parse(fields[1])) is not None:
            yield address


def parse_allowlist(text: str, file: str) -> list[Entry]:
    """Entries of an allowlist file: one network a line, what follows `#` is its comment.

    ConfigError with file:line for a line that is neither.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        network, _, comment = line.partition("#")
        if not network.strip():
            continue
        try:
            entries.append(Entry(parse_network(network), comment.strip()))
        except ValueError as error:
            raise ConfigError(
                str(error),
                location=Location(file, number),
                hint="one address or network a line; names are never resolved",
            ) from None
    return entries


def read_allowlist(path: Path) -> list[Entry]:
    """The entries of the file `path`, none where there is no such file; ConfigError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the allowlist: {error}", location=Location(str(path))) from None
    return parse_allowlist(text, str(path))


def write_allowlist(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the allowlist file by `entries`; OSError as the system gives it."""
    lines = [f"{entry.network}  # {' '.join(entry.comment.split())}".removesuffix("  # ") for entry in entries]
    # Our own file in a folder of the service's user: a link there was not made by whoever runs this.
    write_atomic(path, "".join(line + "\n" for line in lines).encode(), None, follow=False)

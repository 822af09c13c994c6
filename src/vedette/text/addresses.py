"""Addresses in one canonical text, so that equal peers are equal keys.
Counterpart: parsers canonicalise with it, respond masks and compares with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NetmaskValueError,
    ip_network,
)
from socket import AF_INET, inet_ntop, inet_pton

_LONGEST_V4 = len("255.255.255.255")

Network = IPv4Network | IPv6Network


def parse(text: str) -> IPv4Address | IPv6Address | None:
    """The address `text` names, or None.

    `::ffff:a.b.c.d` becomes IPv4, a zone id is dropped, leading zeros are refused (they read as octal
    elsewhere), and so is anything but ASCII.
    """
    if not text or len(text) > 64 or not text.isascii():
        return None
    try:
        if ":" not in text:
            return IPv4Address(text)
        address = IPv6Address(text.partition("%")[0])
    except (AddressValueError, ValueError):
        return None
    return address.ipv4_mapped or address


@lru_cache(maxsize=65_536)
def canonical(text: str) -> str | None:
    """`text` as canonical address text, or None where it is no address."""
    if ":" not in text and len(text) <= _LONGEST_V4:
        # The same strict reading of four decimal parts as `parse`, in C; IPv4 text that passes is canonical.
        try:
            inet_pton(AF_INET, text)
        except (OSError, ValueError):
            return None
        return text
    address = parse(text)
    return None if address is None else str(address)


def prefix(address: str, v4: int, v6: int) -> str:
    """The network of length `v4` or `v6` around `address`, `198.51.100.0/24` for example.

    ValueError when `address` is none.
    """
    if ":" not in address:
        # The same for four decimal parts, in C: a flood brings a new address with every record.
        try:
            bits = int.from_bytes(inet_pton(AF_INET, address))
        except (OSError, ValueError):
            raise ValueError(f"{address!r} is not an address") from None
        return f"{inet_ntop(AF_INET, (bits >> 32 - v4 << 32 - v4).to_bytes(4))}/{v4}"
    found = parse(address)
    if found is None:
        raise ValueError(f"{address!r} is not an address")
    length = v4 if isinstance(found, IPv4Address) else v6
    return str(ip_network((found, length), strict=False))


def parse_network(text: str) -> Network:
    """A network or single address; ValueError says what is wrong with it. Host bits are masked off."""
    head, slash, length = text.strip().partition("/")
    address = parse(head)
    if address is None:
        raise ValueError(f"{text!r} is not an address or network")
    if not slash:
        return ip_network(address)
    if not length.isascii() or not length.isdigit():
        raise ValueError(f"{text!r}: the prefix length must be a number")
    bits = int(length)
    if ":" in head and isinstance(address, IPv4Address):
        bits -= 96  # ::ffff:198.51.100.0/120 is 198.51.100.0/24
    try:
        return ip_network((address, bits), strict=False)
    except (NetmaskValueError, ValueError):
        raise ValueError(f"{text!r}: prefix length {length} does not fit") from None


def contains(networks: Iterable[Network], address: str) -> bool:
    """Whether any of `networks` contains `address`; False where it is no address."""
    return within(networks)(address)


def within(networks: Iterable[Network]) -> Callable[[str], bool]:
    """The judge of whether an address is in any of `networks`; it says False of what is no address."""
    masks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for network in networks:
        masks[network.version].append((int(network.netmask), int(network.network_address)))

    def judge(address: str) -> bool:
        found = parse(address)
        if found is None:
            return False
        bits = int(found)
        return any(bits & mask == own for mask, own in masks[found.version])

    return judge

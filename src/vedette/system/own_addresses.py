"""The addresses of this host, as the kernel lists them for the caller's network namespace.
Counterpart: `respond.allowlist` never blocks them; the source `addresses` tells the hub."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address


def own_addresses(proc: Path = Path("/proc")) -> frozenset[Address]:
    """All of them, loopback too, from `net/fib_trie` and `net/if_inet6` (proc_net(5)); a file that is not there (no
    IPv6) adds nothing."""
    found: set[Address] = set()
    for path, reader in ((proc / "net" / "fib_trie", _v4), (proc / "net" / "if_inet6", _v6)):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found.update(reader(text))
    return frozenset(found)


def _v4(text: str) -> Iterable[Address]:
    """`|-- 192.0.2.1` followed by `/32 host LOCAL`."""
    address = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("|-- "):
            address = IPv4Address(stripped[4:]) if "/" not in stripped else None
        elif address is not None and stripped.startswith("/32 ") and stripped.endswith(" LOCAL"):
            yield address


def _v6(text: str) -> Iterable[Address]:
    """`20010db8000000000000000000000001 02 40 00 80 eth0`."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6 and len(fields[0]) == 32:
            yield ip_address(bytes.fromhex(fields[0]))

"""The hosts a command names, so that one aimed at somebody else's is not run.
Counterpart: `run` asks before it starts a program; `app.attacks` says which networks are one's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import urlsplit

from vedette.model.ports import Network
from vedette.sources.attacks.outcomes import Reason
from vedette.text.addresses import parse_network

Resolve = Callable[[str], Iterable[str]]
"""All addresses of a name; none where it does not resolve."""


class Named(NamedTuple):
    """A host that a word may name. length: of the prefix after it, empty = none. sure: it can mean nothing else."""

    host: str
    length: str = ""
    sure: bool = True


_FILES = re.compile(r"\.(xml|txt|html|json|csv|log|g?nmap|lst|pem|crt|key|cfg|conf|out|py|rb|sh|nse|dat|ya?ml)", re.I)
"""Endings of files that programs are told to write or read; some are top-level domains as well."""
_NAME = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\.)*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?")
_SPAN = re.compile(r"[\d*,-]+(?:\.[\d*,-]+){3}")
_ELSEWHERE = ("-iL", "-iR")
"""nmap's targets from a file, or at random."""


def named_hosts(argv: Sequence[str]) -> list[Named]:
    """What the words after the program may name, in their order."""
    found: list[Named] = []
    for number, word in enumerate(argv[1:], 1):
        after_option = number > 1 and argv[number - 1].startswith("-")
        if word.startswith("-"):
            word = word.partition("=")[2]
            after_option = True
        named = _named(word, after_option)
        if named is not None and named not in found:
            found.append(named)
    return found


def _named(word: str, after_option: bool) -> Named | None:
    if "://" in word:
        try:
            return Named(urlsplit(word).hostname or word)
        except ValueError:
            return Named(word)
    head = word.rpartition("@")[2]
    bracketed = re.match(r"\[([0-9A-Fa-f:.]+)\]", head)
    if bracketed:
        return Named(bracketed[1])
    try:
        parse_network(head)
    except ValueError:
        pass
    else:
        host, _, length = head.partition("/")
        return Named(host, length)
    head, _, rest = head.partition("/")
    head = re.sub(r":\d+$", "", head)
    length = rest if re.fullmatch("[0-9]{1,3}", rest) else ""
    try:
        parse_network(head)
    except ValueError:
        pass
    else:
        return Named(head, length)
    if _SPAN.fullmatch(head) or head == "localhost":
        return Named(head, length)
    if not _NAME.fullmatch(head):
        return None
    if "." not in head:
        return None if after_option else Named(head, length, sure=False)
    if after_option and _FILES.fullmatch(PurePath(head).suffix):
        return None
    return Named(head, length)


def refused(argv: Sequence[str], own: Sequence[Network], resolve: Resolve) -> tuple[Reason, str, str] | None:
    """Why a command may not be run where only `own` may be looked at; None where every host it names is in them.

    The reason, the word it is about, and what is so of it.
    """
    elsewhere = next((word for word in argv for one in _ELSEWHERE if word.startswith(one)), None)
    if elsewhere is not None:
        return Reason.OUTSIDE_OWN_NETWORKS, elsewhere, "takes targets that are not in the command"
    for named in named_hosts(argv):
        networks = _networks(named, resolve)
        if not networks and named.sure:
            return Reason.NAME_UNRESOLVED, named.host, "does not resolve"
        for one in networks:
            if not any(_within(one, mine) for mine in own):
                return Reason.OUTSIDE_OWN_NETWORKS, named.host, f"is outside own_networks ({one})"
    return None


def _networks(named: Named, resolve: Resolve) -> list[Network]:
    length = f"/{named.length}" if named.length else ""
    if _SPAN.fullmatch(named.host):
        # nmap's `192.0.2.1-9` and `192.0.2.*`: the network around all of them
        parts = named.host.split(".")
        fixed = next((at for at, part in enumerate(parts) if not part.isdigit()), 4)
        length = length if fixed == 4 else f"/{8 * fixed}"
        named = Named(".".join([*parts[:fixed], *["0"] * (4 - fixed)]))
    try:
        return [parse_network(named.host + length)]
    except ValueError:
        return [_around(address, named.length) for address in resolve(named.host)]


def _around(address: str, length: str) -> Network:
    """The network of that length around an address; a length its family does not have is the address alone."""
    alone = ip_network(address)
    if length and int(length) <= alone.max_prefixlen:
        return ip_network(f"{address}/{int(length)}", strict=False)
    return alone


def _within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and int(outer.network_address) <= int(inner.network_address)
        and int(inner.broadcast_address) <= int(outer.broadcast_address)
    )

"""Who sends by HTTP: bearer tokens compared by their hashes, and addresses that guess.
Counterpart: http.py asks for every request; settings say where the tokens lie."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network

from vedette.model.clock import MINUTE, Clock
from vedette.model.errors import ConfigError
from vedette.sources.settings import TokenSettings

SHORTEST = 16
"""Characters of a token; shorter ones can be guessed."""
MOST_REMEMBERED = 4096
"""Networks whose wrong tokens are remembered."""


class Tokens:
    """The tokens of `senders`, read now. ConfigError where one is not there, too short, or another's."""

    def __init__(self, senders: Sequence[TokenSettings], source: str) -> None:
        self._known: list[tuple[bytes, str]] = []
        for number, sender in enumerate(senders):
            token = sender.token.read()
            if len(token) < SHORTEST or not token.isascii() or any(sign <= " " for sign in token):
                raise ConfigError(
                    f"sources.{source}.tokens: the token of {sender.name} is no word of {SHORTEST} characters or more",
                    hint="openssl rand -hex 32",
                )
            digest = sha256(token.encode()).digest()
            if any(hmac.compare_digest(digest, other) for other, _ in self._known[:number]):
                raise ConfigError(f"sources.{source}.tokens: {sender.name} has the token of another")
            self._known.append((digest, sender.name))

    def name_of(self, authorization: str) -> str | None:
        """The sender an `Authorization` header is of (RFC 6750 section 2.1); all are compared, whichever it is."""
        scheme, _, token = authorization.partition(" ")
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, name in self._known:
            if hmac.compare_digest(digest, known):
                found = name
        return found if scheme.lower() == "bearer" else None


class Guesses:
    """How often a network was wrong within a minute. most: beyond that it is slowed."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wrong(self, address: str) -> bool:
        """It was wrong once more; whether that is more than is borne."""
        network, now = _network_of(address), self._clock.now()
        began, wrong = self._wrong.pop(network, (now, 0))
        if abs(now - began) >= MINUTE:
            began, wrong = now, 0
        self._wrong[network] = (began, wrong + 1)
        if len(self._wrong) > MOST_REMEMBERED:
            self._wrong.popitem(last=False)
        return wrong >= self._most


def _network_of(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address):
        # One subscriber has a whole /64 to come from.
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)

"""RFC 9162, section 2.1, word for word and slow, and C2SP's notes by hand: what the ledger is held to.
Counterpart: the tests beside it; nothing of `vedette` is used here."""

from __future__ import annotations

import base64
import hashlib


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def half(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    """2.1.1"""
    if not leaves:
        return digest(b"")
    if len(leaves) == 1:
        return digest(b"\x00" + leaves[0])
    k = half(len(leaves))
    return digest(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """2.1.3.1"""
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """2.1.4.1"""
    return subproof(m, leaves, True)


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = half(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return digest(name.encode() + b"\n" + bytes([kind]) + public)[:4]


def signature_line(name: str, ident: bytes, signature: bytes) -> str:
    return "— " + name + " " + base64.b64encode(ident + signature).decode() + "\n"

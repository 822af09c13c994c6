"""Passwords as they are kept: scrypt (RFC 7914) with a salt of their own, parameters beside them.
Counterpart: `app.operators` makes and checks them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

_R, _P, _BYTES = 8, 1, 32


def hashed(password: str, log_n: int) -> str:
    """`scrypt$log2(N)$r$p$salt$hash`. log_n: 17 takes 128 MiB and a third of a second."""
    salt = secrets.token_bytes(16)
    made = _scrypt(password, salt, log_n, _R, _P)
    return f"scrypt${log_n}${_R}${_P}${b64encode(salt).decode()}${b64encode(made).decode()}"


def fits(password: str, kept: str) -> bool:
    """Whether it is the password of `kept`, in time that does not tell how nearly. ValueError for another format."""
    kind, log_n, r, p, salt, wanted = kept.split("$")
    if kind != "scrypt":
        raise ValueError(f"passwords of the kind {kind!r} are not known")
    made = _scrypt(password, b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(made, b64decode(wanted))


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    n = 1 << log_n
    # Bytes that are no UTF-8 come from a terminal as surrogates.
    spelled = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(spelled, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 2) * 2, dklen=_BYTES)

"""Requests to a Chef server signed with a private key: versions 1.0, 1.1 and 1.3 of its protocol.
Counterpart: `chef_client` sends the headers; a server holds the public key (mixlib-authentication)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vedette.model.errors import InventoryError
from vedette.model.reasons import InventoryReason
from vedette.text.times import rfc3339

Version = Literal["1.0", "1.1", "1.3"]

API_VERSION = "1"
"""X-Ops-Server-API-Version: the oldest that speaks of policyfiles and of keys apart from clients."""
LINE = 60
"""Characters of base64 in one X-Ops-Authorization header."""


class Signer:
    """Signs as `user`. The key is in neither repr nor errors."""

    def __init__(self, user: str, pem: str, version: Version) -> None:
        self._user = user
        self._version = version
        self._key = _private_key(pem)

    def headers(self, method: str, path: str, body: bytes, now: int) -> dict[str, str]:
        """What a request needs besides its content. path: as sent, without query. now: microseconds UTC."""
        algorithm, digest = ("sha256", hashlib.sha256) if self._version == "1.3" else ("sha1", hashlib.sha1)
        content = _base64(digest(body).digest())
        timestamp = rfc3339(now)[:19] + "Z"
        asked = self._asked(method.upper(), canonical_path(path), content, timestamp)
        signature = _base64(self._signature(asked.encode()))
        return {
            "X-Ops-Sign": f"algorithm={algorithm};version={self._version};",
            "X-Ops-Userid": self._user,
            "X-Ops-Timestamp": timestamp,
            "X-Ops-Content-Hash": content,
            "X-Ops-Server-API-Version": API_VERSION,
            **{f"X-Ops-Authorization-{number}": line for number, line in enumerate(_lines(signature), 1)},
        }

    def _asked(self, method: str, path: str, content: str, timestamp: str) -> str:
        """The text that is signed."""
        if self._version == "1.3":
            lines = [
                f"Method:{method}",
                f"Path:{path}",
                f"X-Ops-Content-Hash:{content}",
                "X-Ops-Sign:version=1.3",
                f"X-Ops-Timestamp:{timestamp}",
                f"X-Ops-UserId:{self._user}",
                f"X-Ops-Server-API-Version:{API_VERSION}",
            ]
        else:
            user = self._user if self._version == "1.0" else _base64(hashlib.sha1(self._user.encode()).digest())
            lines = [
                f"Method:{method}",
                f"Hashed Path:{_base64(hashlib.sha1(path.encode()).digest())}",
                f"X-Ops-Content-Hash:{content}",
                f"X-Ops-Timestamp:{timestamp}",
                f"X-Ops-UserId:{user}",
            ]
        return "\n".join(lines)

    def _signature(self, asked: bytes) -> bytes:
        if self._version == "1.3":
            return self._key.sign(asked, PKCS1v15(), SHA256())
        try:
            # 1.0 and 1.1 sign the text itself, padded, and no digest of it.
            return self._key.sign(asked, PKCS1v15(), NoDigestInfo())
        except ValueError:
            raise InventoryError(
                InventoryReason.KEY_UNUSABLE,
                f"a key of {self._key.key_size} bits is too short for signatures of version {self._version}",
                hint="2048 bits or more, or `version: 1.3`",
            ) from None


def canonical_path(path: str) -> str:
    """The path as it is signed: slashes that repeat are one, and none at the end."""
    return re.sub("/+", "/", path).rstrip("/") or "/"


def _private_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise _unusable("is encrypted", "keep it without a password, readable by us alone") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable("is no private key in PEM", "the file that Chef made, from -----BEGIN to END-----") from None
    if not isinstance(key, RSAPrivateKey):
        raise _unusable("is not RSA", "Chef takes RSA keys only")
    return key


def _unusable(what: str, hint: str) -> InventoryError:
    return InventoryError(InventoryReason.KEY_UNUSABLE, f"the key {what}", hint=hint)


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _lines(text: str) -> Iterator[str]:
    for start in range(0, len(text), LINE):
        yield text[start : start + LINE]

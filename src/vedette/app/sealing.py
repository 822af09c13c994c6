"""An archive sealed with a passphrase: scrypt makes the key, ChaCha20-Poly1305 seals piece after piece.
Counterpart: `app.backup`, which writes what is in it."""

# RFC 7914 (scrypt), RFC 8439 (ChaCha20-Poly1305). The pieces are bound together as in STREAM (Hoang, Reyhanitabar,
# Rogaway, Vizar 2015): counter and "last" in the nonce, so that none can be left out, moved or cut off.
from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from vedette.model.errors import StateError

_PIECE = 64 << 10
_TAG = 16
_MOST_HEADER = 4096


class Sealing(msgspec.Struct, frozen=True):
    """How the key is made of the passphrase. salt: hexadecimal, new for every archive."""

    salt: str
    n: int = 1 << 17
    r: int = 8
    p: int = 1

    @classmethod
    def new(cls) -> Sealing:
        """With a salt of its own."""
        return cls(os.urandom(16).hex())

    def key(self, passphrase: str) -> bytes:
        """The key, 32 bytes."""
        memory = 256 * self.n * self.r
        return hashlib.scrypt(
            passphrase.encode(), salt=bytes.fromhex(self.salt), n=self.n, r=self.r, p=self.p, maxmem=memory, dklen=32
        )

    def check(self) -> None:
        """ValueError where a hostile file asks for what would take all memory or all time."""
        if not (2 <= self.n <= 1 << 20 and self.n & (self.n - 1) == 0 and 1 <= self.r <= 8 and 1 <= self.p <= 4):
            raise ValueError("parameters of scrypt out of bounds")
        if len(bytes.fromhex(self.salt)) != 16:
            raise ValueError("a salt of another length")


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int
    sealing: Sealing | None = None


def read_header(file: BinaryIO, name: str, version: int, place: str) -> tuple[bytes, Sealing | None]:
    """The first line of an archive. StateError where it is of another kind, or newer than `version`."""
    line = file.readline(_MOST_HEADER)
    try:
        header = msgspec.json.decode(line, type=_Header)
        if header.format != name:
            raise ValueError(f"its format is {header.format!r}")
        if header.sealing is not None:
            header.sealing.check()
    except (ValueError, msgspec.DecodeError) as error:
        raise StateError(f"{place} is no archive of ours: {error}") from None
    if header.version > version:
        raise StateError(
            f"{place} is of version {header.version}", hint=f"this program knows {version}: use a newer one"
        )
    return line, header.sealing


class Sealed:
    """Writes: what is written comes out sealed. `finish` writes the last piece; without it the archive is torn."""

    def __init__(self, file: BinaryIO, key: bytes, header: bytes) -> None:
        self._file = file
        self._cipher = ChaCha20Poly1305(key)
        self._header = header
        self._waiting = bytearray()
        self._number = 0

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._waiting += data
        while len(self._waiting) > _PIECE:
            self._piece(bytes(self._waiting[:_PIECE]), last=False)
            del self._waiting[:_PIECE]
        return len(data)

    def flush(self) -> None:
        """Nothing: pieces are whole."""

    def finish(self) -> None:
        """Write what waits as the last piece."""
        self._piece(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _piece(self, data: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last=last), data, self._header))
        self._number += 1


class Opened:
    """Reads what `Sealed` wrote; gives only bytes whose seal holds. StateError where one does not."""

    def __init__(self, file: BinaryIO, key: bytes, header: bytes) -> None:
        self._file = file
        self._cipher = ChaCha20Poly1305(key)
        self._header = header
        self._number = 0
        self._ready = b""
        self._next = file.read(_PIECE + _TAG)
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end, which is the end that was written."""
        while not self._ready and not self._ended:
            self._open()
        found, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return found

    def _open(self) -> None:
        piece, self._next = self._next, self._file.read(_PIECE + _TAG)
        last = not self._next
        try:
            self._ready = self._cipher.decrypt(_nonce(self._number, last=last), piece, self._header)
        except (InvalidTag, ValueError):
            if self._number == 0:
                raise StateError(
                    "the seal does not open: another passphrase, or the archive was altered",
                    hint="nothing was restored",
                ) from None
            raise StateError("the archive is torn or was altered", hint="nothing was restored") from None
        self._number += 1
        self._ended = last


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])

"""What the hub says to agents under its own signature, and the check an agent makes before it believes a word.
Counterpart: `app.hub_control` signs on the hub, `fleet.bundles` and `app.agent_blocks` open it on an agent."""

# Ed25519 (RFC 8032) by a key that the fleet's authority certified (RFC 5280): a host needs no more than it has.
from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec
import zstandard
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from vedette.fleet.authority import UNREADABLE, Authority
from vedette.model.errors import StateError, VedetteError
from vedette.system.files import write_atomic

SIGNER_NAME = "vedette-signer"
"""The name of the key's certificate; no host can have it, for those are named by their ids."""
KEY_FILE = "signer.pem"
LIMIT = 8 << 20
"""Bytes of what is signed, packed: a message must hold it."""
RAW_LIMIT = 64 << 20
_FORMAT, _VERSION = "vedette-signed", 1
_LEVEL = 9


class SignedKind(StrEnum):
    """What is signed; part of what the signature is over, so that one is never taken for the other."""

    BUNDLE = "bundle"
    DECISIONS = "decisions"


class SignedReason(StrEnum):
    """Why something is not believed."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too-large"
    NEWER = "newer-version"
    OF_ANOTHER_KIND = "of-another-kind"
    CERTIFICATE = "certificate"
    """The key is not one that the fleet's authority certified for this."""
    SIGNATURE = "signature"


class SignedError(VedetteError):
    """Something that is not believed; `reason` says why."""

    def __init__(self, reason: SignedReason, words: str = "") -> None:
        super().__init__(f"{reason.value}: {words}" if words else reason.value)
        self.reason = reason


class _Signed(msgspec.Struct, frozen=True):
    format: str
    version: int
    kind: str
    certificate: bytes
    signature: bytes
    body: bytes


class HubSigner:
    """The hub's signing key, in the authority's folder, certified by it."""

    def __init__(self, key: Ed25519PrivateKey, certificate: bytes) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def open(cls, folder: Path, authority: Authority) -> HubSigner:
        """The key of this folder, made at first; StateError where what is there cannot be used."""
        place = folder / KEY_FILE
        try:
            if not place.exists():
                made = Ed25519PrivateKey.generate()
                text = made.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                write_atomic(place, text + authority.certify_signer(made.public_key(), SIGNER_NAME), follow=False)
            text = place.read_bytes()
            key = serialization.load_pem_private_key(text, None)
            certificate = x509.load_pem_x509_certificate(text).public_bytes(serialization.Encoding.PEM)
        except OSError as error:
            raise StateError(f"the hub's signing key in {place}: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise StateError(f"the hub's signing key in {place} cannot be read: {error}", hint="restore it") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise StateError(f"the hub's signing key in {place} is of another kind", hint="restore it")
        return cls(key, certificate)

    def sign(self, kind: SignedKind, body: bytes) -> bytes:
        """`body` packed and signed. SignedError where it is too large for a message."""
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
        made = msgspec.msgpack.encode(
            _Signed(_FORMAT, _VERSION, kind.value, self._certificate, self._key.sign(_covered(kind, packed)), packed)
        )
        if len(made) > LIMIT or len(body) > RAW_LIMIT:
            raise SignedError(SignedReason.TOO_LARGE, f"{len(made)} bytes packed, {len(body)} unpacked")
        return made


def opened(signed: bytes, kind: SignedKind, authority: bytes) -> bytes:
    """The body, once it is certain that the hub of this authority (PEM) signed it as `kind`; SignedError if not."""
    if len(signed) > LIMIT:
        raise SignedError(SignedReason.TOO_LARGE)
    try:
        found = msgspec.msgpack.decode(signed, type=_Signed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignedError(SignedReason.UNREADABLE, str(error)) from None
    if found.format != _FORMAT:
        raise SignedError(SignedReason.UNREADABLE)
    if found.version > _VERSION:
        raise SignedError(SignedReason.NEWER)
    if found.kind != kind.value:
        raise SignedError(SignedReason.OF_ANOTHER_KIND)
    try:
        _key_of(found.certificate, authority).verify(found.signature, _covered(kind, found.body))
    except InvalidSignature:
        raise SignedError(SignedReason.SIGNATURE) from None
    try:
        body = zstandard.ZstdDecompressor().decompress(found.body, max_output_size=RAW_LIMIT)
    except (zstandard.ZstdError, MemoryError) as error:
        raise SignedError(SignedReason.UNREADABLE, str(error)) from None
    if len(body) > RAW_LIMIT:
        raise SignedError(SignedReason.TOO_LARGE)
    return body


def _key_of(certificate: bytes, authority: bytes) -> Ed25519PublicKey:
    try:
        given, by = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
        given.verify_directly_issued_by(by)
        key = given.public_key()
        names = [name.value for name in given.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except UNREADABLE:
        raise SignedError(SignedReason.CERTIFICATE) from None
    if not isinstance(key, Ed25519PublicKey) or names != [SIGNER_NAME]:
        raise SignedError(SignedReason.CERTIFICATE)
    return key


def _covered(kind: SignedKind, packed: bytes) -> bytes:
    return f"{_FORMAT}/{_VERSION}\n{kind.value}\n".encode() + packed

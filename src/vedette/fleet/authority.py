"""The fleet's own certificate authority, and the requests that are put to it.
Counterpart: `enrolment` and `broker` get their certificates here; an agent's key is made on the agent."""

# RFC 5280 (certificates), RFC 2986 (requests).
from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette.model.clock import DAY, HOUR, SECOND, Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import is_host_id
from vedette.system.files import write_atomic

HUB_NAME = "vedette-hub"
"""The name every certificate of the hub carries: agents ask for it, at whatever address they reach the hub."""
AGENT_LIFE = 30 * DAY
SERVER_LIFE = 90 * DAY
_AUTHORITY_LIFE = 3650 * DAY
_EARLY = HOUR
"""Valid from a little before now: clocks of hosts differ."""
MOST_REQUEST = 4096
"""Bytes of a request (CSR); ours have about 500."""

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading a stranger's certificate or request may raise; the last three are no ValueError."""


class RequestError(VedetteError):
    """A certificate request that is not granted."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate. pem: it alone; serial: hexadecimal; key_hash: SHA-256 of its public key; times: microseconds."""

    pem: bytes
    serial: str
    key_hash: str
    begins_at: int
    expires_at: int

    @property
    def renew_at(self) -> int:
        """When two thirds of its life are over."""
        return self.begins_at + (self.expires_at - self.begins_at) * 2 // 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Key and certificate of one side, and whom it trusts; all PEM."""

    key: bytes
    certificate: bytes
    authority: bytes

    def server_context(self, *, clients: bool) -> ssl.SSLContext:
        """For a listener; `clients`: only for those with a certificate of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.authority.decode("ascii"))
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a connection to the hub, which must call itself HUB_NAME and be certified by our authority alone."""
        context = trusting(self.authority)
        self._load(context)
        return context

    def with_authority(self, authority: bytes) -> Identity:
        """The same, trusting another authority."""
        return Identity(self.key, self.certificate, authority)

    def _load(self, context: ssl.SSLContext) -> None:
        # The library reads key and certificate from a file only; nobody else may read that one.
        with tempfile.NamedTemporaryFile(prefix="vedette-", suffix=".pem") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self.key + self.certificate)
            file.flush()
            context.load_cert_chain(file.name)


def trusting(authority: bytes) -> ssl.SSLContext:
    """For a client that trusts this authority (PEM) alone; VedetteError where it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise VedetteError(f"the hub's authority cannot be read: {error}") from None
    return context


def fingerprint(authority: bytes) -> str:
    """SHA-256 of a certificate (PEM), hexadecimal; VedetteError where it is none."""
    try:
        return x509.load_pem_x509_certificate(authority).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise VedetteError(f"not a certificate: {error}") from None


def new_key() -> bytes:
    """A private key (P-256, PKCS #8), PEM."""
    return _private(ec.generate_private_key(ec.SECP256R1()))


def request(key: bytes, host_id: str) -> bytes:
    """A certificate request for this host, PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host_id)])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(_loaded(key), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def check_request(pem: bytes, host_id: str) -> tuple[ec.EllipticCurvePublicKey, str]:
    """The public key of a request and its SHA-256. RequestError unless it asks for this host id and nothing else."""
    if not is_host_id(host_id):
        raise RequestError("this is no host id")
    if len(pem) > MOST_REQUEST:
        raise RequestError("the request is too long")
    try:
        asked = x509.load_pem_x509_csr(pem)
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise RequestError("the key is not of the curve P-256")
        if not asked.is_signature_valid:
            raise RequestError("the request is not signed by its own key")
        if len(asked.extensions):
            raise RequestError("the request asks for extensions")
        names = [(name.oid, name.value) for name in asked.subject]
    except UNREADABLE as error:
        raise RequestError(f"the request cannot be read: {error}") from None
    if names != [(NameOID.COMMON_NAME, host_id)]:
        raise RequestError("the request is for another name")
    return key, _key_hash(key)


def read_certificate(pem: bytes) -> Issued:
    """What a certificate says of itself; VedetteError where it cannot be read."""
    try:
        return _issued(x509.load_pem_x509_certificate(pem))
    except UNREADABLE as error:
        raise VedetteError(f"not a certificate: {error}") from None


def certified_host(pem: bytes) -> tuple[str, str]:
    """Host id and enrolment an agent's certificate is for."""
    subject = x509.load_pem_x509_certificate(pem).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    units = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(names[0].value) if names else "", str(units[0].value) if units else ""


class Authority:
    """Signs; its key lies in the folder, for its owner's eyes only, and goes nowhere else."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Authority:
        """The authority of this folder, made at first. StateError where what is there cannot be used."""
        place = folder / "ca.pem"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not place.exists():
                # One file for both: there is never a key without its certificate.
                write_atomic(place, _new_authority(clock.now()), follow=False)
            if place.stat().st_mode & 0o077:
                raise StateError(f"{place} can be read by others", hint=f"chmod 600 {place}; consider a new authority")
            text = place.read_bytes()
            key = serialization.load_pem_private_key(text, None)
            certificate = x509.load_pem_x509_certificate(text)
        except OSError as error:
            raise StateError(f"the fleet's authority in {place}: {error.strerror}") from None
        except (ValueError, TypeError) as error:
            raise StateError(f"the fleet's authority in {place} cannot be read: {error}", hint="restore it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise StateError(f"the fleet's authority in {place}: key and certificate differ", hint="restore it")
        return cls(key, certificate, clock)

    def issue_agent(self, csr: bytes, host_id: str, enrolment: str, life: int = AGENT_LIFE) -> Issued:
        """A certificate for an agent: for connections it opens, for this host and enrolment. RequestError if not."""
        key, _ = check_request(csr, host_id)
        subject = _name(host_id, enrolment)
        return _issued(self._sign(key, subject, ExtendedKeyUsageOID.CLIENT_AUTH, [], life))

    def identity(self, name: str, *, server: bool, names: tuple[str, ...] = (), life: int = SERVER_LIFE) -> Identity:
        """A new key and certificate for a part of the hub; `names`: further DNS names of a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._sign(
            key.public_key(), _name(name, HUB_NAME), usage, [HUB_NAME, *names] if server else [], life
        )
        return Identity(_private(key), certificate.public_bytes(serialization.Encoding.PEM), self.certificate)

    def certify_signer(self, key: Ed25519PublicKey, name: str) -> bytes:
        """A certificate (PEM) for the key the hub signs policy with; it opens no connection.

        It lasts as long as the authority: an agent whose hub is away for long must still believe what it keeps.
        """
        certificate = self._sign(key, _name(name, HUB_NAME), ExtendedKeyUsageOID.CODE_SIGNING, [], _AUTHORITY_LIFE)
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey | Ed25519PublicKey,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        names: list[str],
        life: int,
    ) -> x509.Certificate:
        now = self._clock.now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - _EARLY))
            .not_valid_after(_moment(now + life))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_KEY_USE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(san, critical=False)
        return builder.sign(self._key, hashes.SHA256())


_KEY_USE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_SIGNING_USE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _new_authority(now: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: two hubs' authorities must not be mistaken for each other.
    name = _name(f"Vedette fleet {x509.random_serial_number() % 2**32:08x}", "")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - _EARLY))
        .not_valid_after(_moment(now + _AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNING_USE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _private(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _name(name: str, unit: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if unit:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(attributes)


def subject_text(name: str, unit: str) -> str:
    """A certificate's subject as nats-server compares it with a user (RFC 4514)."""
    return f"CN={name},OU={unit}"


def _issued(certificate: x509.Certificate) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        f"{certificate.serial_number:x}",
        _key_hash(certificate.public_key()),
        _micros(certificate.not_valid_before_utc),
        _micros(certificate.not_valid_after_utc),
    )


def _key_hash(key: object) -> str:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RequestError("the key is not of the curve P-256")
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _loaded(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise VedetteError(f"the private key cannot be read: {error}") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise VedetteError("the private key is not of the curve P-256")
    return loaded


def _moment(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at // SECOND, datetime.UTC)


def _micros(moment: datetime.datetime) -> int:
    return int(moment.timestamp()) * SECOND

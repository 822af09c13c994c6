"""What the authority signs, and every request it does not."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette.fleet.authority import (
    AGENT_LIFE,
    Authority,
    RequestError,
    certified_host,
    check_request,
    new_key,
    read_certificate,
    request,
)
from vedette.fleet.signing import SignedError, SignedKind, SignedReason, opened
from vedette.model.clock import DAY
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import is_host_id
from vedette.testing.clock import START, FakeClock

HOST = "5f1c7a52-90ce-4a5c-8f66-2f3cf0f1a001"
HOSTILE = [
    "*",
    ">",
    ".",
    "",
    "../ca",
    "a b",
    HOST.upper(),
    f"{HOST}\n",
    f"{HOST}.>",
    f"{HOST}/..",
    "0" * 36,
    f"\0{HOST}",
]
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "ca", FakeClock())


def test_it_is_made_once_for_its_owner_alone_and_read_again(tmp_path: Path):
    first = Authority.open(tmp_path / "ca", FakeClock())
    place = tmp_path / "ca" / "ca.pem"
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert Authority.open(tmp_path / "ca", FakeClock()).fingerprint == first.fingerprint
    assert Authority.open(tmp_path / "other", FakeClock()).fingerprint != first.fingerprint
    assert b"PRIVATE" not in first.certificate


def test_a_key_others_can_read_and_a_damaged_one_are_refused(tmp_path: Path):
    Authority.open(tmp_path / "ca", FakeClock())
    place = tmp_path / "ca" / "ca.pem"
    place.chmod(0o644)
    with pytest.raises(StateError, match="read by others"):
        Authority.open(tmp_path / "ca", FakeClock())
    place.chmod(0o600)
    place.write_bytes(place.read_bytes()[:80])
    with pytest.raises(StateError, match="cannot be read"):
        Authority.open(tmp_path / "ca", FakeClock())


def test_an_agents_certificate_is_for_its_connections_and_enrolment_alone(authority: Authority):
    key = new_key()
    issued = authority.issue_agent(request(key, HOST), HOST, "e1")
    certificate = x509.load_pem_x509_certificate(issued.pem)
    assert certified_host(issued.pem) == (HOST, "e1")
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert issued.expires_at == START + AGENT_LIFE
    assert START + 19 * DAY < issued.renew_at < START + 20 * DAY
    assert read_certificate(issued.pem) == issued


@pytest.mark.parametrize("host_id", [*HOSTILE, NOBODY])
def test_what_is_no_host_id_gets_no_certificate(authority: Authority, host_id: str):
    assert not is_host_id(host_id)
    asked = _csr([(NameOID.COMMON_NAME, host_id)] if host_id else [(NameOID.COMMON_NAME, "x")])
    with pytest.raises(RequestError, match="no host id"):
        authority.issue_agent(asked, host_id, "e1")


@pytest.mark.parametrize("name", [*(name for name in HOSTILE if name), "5f1c7a52-90ce-4a5c-8f66-2f3cf0f1a002", "hub"])
def test_a_request_for_another_name_is_refused(name: str):
    with pytest.raises(RequestError, match="another name"):
        check_request(_csr([(NameOID.COMMON_NAME, name)]), HOST)


def test_a_request_asks_for_its_name_and_nothing_more():
    with pytest.raises(RequestError, match="another name"):
        check_request(_csr([(NameOID.COMMON_NAME, HOST), (NameOID.ORGANIZATIONAL_UNIT_NAME, "vedette-hub")]), HOST)
    with pytest.raises(RequestError, match="another name"):
        check_request(_csr([(NameOID.COMMON_NAME, HOST), (NameOID.COMMON_NAME, "hub")]), HOST)
    extended = x509.BasicConstraints(ca=True, path_length=None)
    with pytest.raises(RequestError, match="extensions"):
        check_request(_csr([(NameOID.COMMON_NAME, HOST)], extended), HOST)


def test_keys_and_bytes_that_are_not_taken():
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(RequestError, match="P-256"):
            check_request(_csr([(NameOID.COMMON_NAME, HOST)], key=key), HOST)
    for junk in (b"", b"\0" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(RequestError, match="cannot be read"):
            check_request(junk, HOST)
    with pytest.raises(RequestError, match="too long"):
        check_request(b"x" * 100_000, HOST)


def test_a_request_that_another_key_signed_is_refused():
    good = x509.load_pem_x509_csr(request(new_key(), HOST)).public_bytes(serialization.Encoding.DER)
    # The last bytes are of the signature's second number.
    forged = good[:-10] + bytes([good[-10] ^ 1]) + good[-9:]
    asked = x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RequestError, match="own key"):
        check_request(asked, HOST)


def _csr(names, extension=None, key=None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def test_a_request_with_one_extension_twice_is_refused_and_no_crash():
    """No library makes one, and whoever has a key can."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]))
    for last in (4, 5):
        oid = x509.ObjectIdentifier(f"1.2.3.{last}")
        asked = asked.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=False)
    made = asked.sign(key, hashes.SHA256())
    inner = made.tbs_certrequest_bytes.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")
    assert inner != made.tbs_certrequest_bytes
    algorithm = _der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    signature = _der(0x03, b"\0" + key.sign(inner, ec.ECDSA(hashes.SHA256())))
    hostile = x509.load_der_x509_csr(_der(0x30, inner + algorithm + signature))
    assert hostile.is_signature_valid
    with pytest.raises(RequestError, match="cannot be read"):
        check_request(hostile.public_bytes(serialization.Encoding.PEM), HOST)


def test_versions_that_do_not_exist_are_refused_and_no_crash(authority: Authority):
    good = x509.load_pem_x509_csr(request(new_key(), HOST)).public_bytes(serialization.Encoding.DER)
    wrong = good.replace(b"\x02\x01\x00", b"\x02\x01\x08", 1)
    pem = b"-----BEGIN %s-----\n%s\n-----END %s-----\n"
    with pytest.raises(RequestError, match="cannot be read"):
        check_request(pem % (b"CERTIFICATE REQUEST", b64encode(wrong), b"CERTIFICATE REQUEST"), HOST)
    good = x509.load_pem_x509_certificate(authority.certificate).public_bytes(serialization.Encoding.DER)
    wrong = pem % (b"CERTIFICATE", b64encode(good.replace(b"\x02\x01\x02", b"\x02\x01\x08", 1)), b"CERTIFICATE")
    with pytest.raises(VedetteError, match="not a certificate"):
        read_certificate(wrong)
    signed = {
        "format": "vedette-signed",
        "version": 1,
        "kind": "bundle",
        "certificate": wrong,
        "signature": b"",
        "body": b"",
    }
    with pytest.raises(SignedError) as error:
        opened(msgspec.msgpack.encode(signed), SignedKind.BUNDLE, authority.certificate)
    assert error.value.reason is SignedReason.CERTIFICATE

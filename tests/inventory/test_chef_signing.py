"""Signatures against the check of the test server, which knows the protocol and not this code."""

from __future__ import annotations

from functools import cache

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scenarios.parts.chef import faults, make_key, pem

from vedette.inventory.chef_signing import Signer, Version, canonical_path
from vedette.model.clock import SECOND
from vedette.model.errors import InventoryError
from vedette.model.reasons import InventoryReason

NOW = 1_795_478_400 * SECOND + 999_999
VERSIONS: list[Version] = ["1.0", "1.1", "1.3"]


KEY = pem(make_key())


@cache
def signer(version: Version, user: str) -> Signer:
    return Signer(user, KEY, version)


def signed(version: Version, method: str, path: str, body: bytes, user: str = "vedette") -> dict[str, str]:
    headers = signer(version, user).headers(method, path, body, NOW)
    return {name.lower(): value for name, value in headers.items()}


def judged(headers: dict[str, str], method: str, target: str, body: bytes) -> str:
    return faults(method, target, headers, body, make_key().public_key(), NOW / SECOND)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=6, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "get"]),
    path=st.from_regex(r"(/{1,2}[A-Za-z0-9_.:-]{1,12}){1,5}/?", fullmatch=True),
    body=st.binary(max_size=100),
    user=st.sampled_from(["vedette", "a", "pivotal@example.org"]),
)
def test_what_is_signed_is_accepted_and_nothing_else(version: Version, method: str, path: str, body: bytes, user: str):
    headers = signed(version, method, path, body, user)
    assert headers["x-ops-timestamp"] == "2026-11-24T00:00:00Z"
    assert judged(headers, method.upper(), path, body) == ""
    assert judged(headers, method.upper(), path + "?q=*:*", body) == ""
    assert judged(headers, "PUT", path, body) == "signature"
    assert judged(headers, method.upper(), path + "x", body) == "signature"
    assert judged(headers, method.upper(), path, body + b"x") == "content hash"
    assert judged({**headers, "x-ops-userid": user + "x"}, method.upper(), path, body) == "signature"
    assert judged({**headers, "x-ops-timestamp": "2026-11-24T00:00:01Z"}, method.upper(), path, body) == "signature"


def test_the_headers_of_each_version_are_those_of_the_protocol():
    for version, algorithm in (("1.0", "sha1"), ("1.1", "sha1"), ("1.3", "sha256")):
        headers = signed(version, "GET", "/organizations/shop/nodes", b"")
        assert headers["x-ops-sign"] == f"algorithm={algorithm};version={version};"
        lines = [headers[f"x-ops-authorization-{number}"] for number in range(1, 7)]
        assert [len(line) for line in lines] == [60, 60, 60, 60, 60, 44]
    assert signed("1.3", "GET", "/", b"")["x-ops-server-api-version"] == "1"


def test_the_path_is_signed_without_what_says_nothing():
    assert [canonical_path(path) for path in ("/", "//", "/a//b/", "/a/b", "")] == ["/", "/", "/a/b", "/a/b", "/"]


def ec_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def encrypted_key() -> str:
    return (
        make_key()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        .decode()
    )


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("not a key, and yet it must not be shown to anybody who reads it", "no private key in PEM"),
        (pem(make_key())[:400], "no private key in PEM"),
        (ec_key(), "not RSA"),
        (encrypted_key(), "encrypted"),
    ],
    ids=["text", "cut", "elliptic", "encrypted"],
)
def test_a_key_that_cannot_be_used_is_named_and_not_shown(key: str, says: str):
    with pytest.raises(InventoryError, match=says) as caught:
        Signer("vedette", key, "1.3")
    assert caught.value.reason is InventoryReason.KEY_UNUSABLE
    assert caught.value.hint
    assert key[30:60] not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


def test_a_key_too_short_for_the_text_itself_still_signs_its_digest():
    key = make_key(1024)
    user = "a-rather-long-name-of-a-client"
    headers = Signer(user, pem(key), "1.3").headers("GET", "/nodes", b"", NOW)
    lower = {name.lower(): value for name, value in headers.items()}
    assert faults("GET", "/nodes", lower, b"", key.public_key(), NOW / SECOND) == ""
    with pytest.raises(InventoryError, match="1024 bits is too short") as caught:
        Signer(user, pem(key), "1.0").headers("GET", "/nodes", b"", NOW)
    assert caught.value.reason is InventoryReason.KEY_UNUSABLE


def test_a_signer_shows_nothing_of_its_key():
    signer = Signer("vedette", pem(make_key()), "1.3")
    assert "PRIVATE" not in repr(signer)
    assert str(make_key().private_numbers().d)[:20] not in repr(vars(signer))

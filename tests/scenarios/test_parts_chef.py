"""Proves the Chef server of the scenarios: whom it believes, what it serves, how it fails.
Counterpart: parts/chef.py."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from tests.scenarios.parts.chef import ChefServer, faults, flat, make_key, signed_text
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import run

from vedette.inventory.chef import ChefWords, read_chef
from vedette.model.clock import SystemClock

NOW = 1_795_478_400
STAMP = "2026-11-24T00:00:00Z"


def text_of(version: str, path: str, content: str, stamp: str = STAMP) -> str:
    """What is signed for GET as `vedette`."""
    if version == "1.3":
        return (
            f"Method:GET\nPath:{path}\nX-Ops-Content-Hash:{content}\nX-Ops-Sign:version=1.3\n"
            f"X-Ops-Timestamp:{stamp}\nX-Ops-UserId:vedette\nX-Ops-Server-API-Version:1"
        )
    user = "vedette" if version == "1.0" else base64.b64encode(hashlib.sha1(b"vedette").digest()).decode()
    hashed = base64.b64encode(hashlib.sha1(path.encode()).digest()).decode()
    return (
        f"Method:GET\nHashed Path:{hashed}\nX-Ops-Content-Hash:{content}\nX-Ops-Timestamp:{stamp}\nX-Ops-UserId:{user}"
    )


def headers(version: str, signature: bytes, content: str, stamp: str = STAMP) -> dict[str, str]:
    text = base64.b64encode(signature).decode()
    lines = {f"x-ops-authorization-{at // 60 + 1}": text[at : at + 60] for at in range(0, len(text), 60)}
    return {
        "x-ops-sign": f"algorithm={'sha256' if version == '1.3' else 'sha1'};version={version};",
        "x-ops-userid": "vedette",
        "x-ops-timestamp": stamp,
        "x-ops-content-hash": content,
        "x-ops-server-api-version": "1",
        **lines,
    }


def content_hash(version: str, body: bytes = b"") -> str:
    return base64.b64encode(hashlib.new("sha256" if version == "1.3" else "sha1", body).digest()).decode()


def signed(path: str, stamp: str = STAMP) -> dict[str, str]:
    """Version 1.3, by the library."""
    content = content_hash("1.3")
    text = text_of("1.3", path, content, stamp).encode()
    return headers("1.3", make_key().sign(text, padding.PKCS1v15(), hashes.SHA256()), content, stamp)


def judged(said: dict[str, str], target: str = "/nodes", body: bytes = b"", now: float = NOW) -> str:
    return faults("GET", target, said, body, make_key().public_key(), now)


def test_a_request_is_believed_when_all_of_it_fits():
    good = signed("/nodes")
    assert judged(good) == ""
    assert judged(good, "//nodes/?q=1") == ""
    assert judged(good, "/roles") == "signature"
    assert judged(good, body=b"x") == "content hash"
    assert judged(good, now=NOW + 16 * 60) == "synchronize the clock on your host"
    assert judged(good, now=NOW - 16 * 60) == "synchronize the clock on your host"
    assert judged({**good, "x-ops-server-api-version": "0"}) == "signature"
    assert judged({**good, "x-ops-sign": "algorithm=sha1;version=1.3;"}) == "algorithm 'sha1'"
    assert judged({**good, "x-ops-sign": "algorithm=sha256;version=1.2;"}) == "version '1.2'"
    assert judged({**good, "x-ops-timestamp": "yesterday"}) == "timestamp"
    assert judged({name: text for name, text in good.items() if "authorization" not in name}) == "authorization lines"
    joined = "".join(good[f"x-ops-authorization-{at}"] for at in range(1, 7))
    short = {name: text for name, text in good.items() if "authorization" not in name}
    assert judged({**short, "x-ops-authorization-1": joined}) == "authorization lines"
    assert judged({**good, "x-ops-sign": "algorithm=sha1;version=1.0;", "x-ops-content-hash": content_hash("1.0")}) == (
        "signature"
    )


def test_a_signature_of_a_digest_is_none_of_the_text():
    text = text_of("1.0", "/nodes", content_hash("1.0"))
    signature = make_key().sign(text.encode(), padding.PKCS1v15(), hashes.SHA1())
    assert judged(headers("1.0", signature, content_hash("1.0"))) == "signature"
    assert signed_text(b"\x00" * 256, make_key().public_key()) is None


@pytest.mark.root
@pytest.mark.parametrize("version", ["1.0", "1.1", "1.3"])
def test_what_openssl_signs_is_believed(version: str, tmp_path: Path):
    with ChefServer() as chef:
        (tmp_path / "key.pem").write_text(chef.key_pem)
    content = content_hash(version)
    (tmp_path / "text").write_text(text_of(version, "/nodes", content))
    if version == "1.3":
        argv = ["openssl", "dgst", "-sha256", "-sign"]
        run([*argv, str(tmp_path / "key.pem"), "-out", str(tmp_path / "signature"), str(tmp_path / "text")])
    else:
        # private_encrypt: the text itself with padding of type 1.
        argv = ["openssl", "rsautl", "-sign", "-pkcs", "-inkey", str(tmp_path / "key.pem")]
        run([*argv, "-in", str(tmp_path / "text"), "-out", str(tmp_path / "signature")])
    signature = (tmp_path / "signature").read_bytes()
    assert judged(headers(version, signature, content)) == ""
    assert judged(headers(version, signature[:-1] + bytes([signature[-1] ^ 1]), content)) == "signature"


@pytest.fixture
def chef() -> Iterator[ChefServer]:
    with ChefServer() as server:
        yield server


def get(chef: ChefServer, path: str) -> tuple[int, Any]:
    full = f"/organizations/shop{path}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    connection = http.client.HTTPConnection(chef.address, chef.port, timeout=10)
    try:
        connection.request("GET", full, headers=signed(full.partition("?")[0], stamp))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_it_serves_what_was_put_there(chef: ChefServer):
    chef.set_role("web", default_attributes={"a": 1})
    chef.set_node("web1", run_list=["role[web]"])
    chef.set_node("db1", automatic={"fqdn": "db1.example.org"})
    chef.set_item("servers", "web1", roles=["web"])
    chef.set_policy("production", "shop", default_attributes={"b": 2})
    assert get(chef, "/roles") == (200, {"web": f"{chef.url}/roles/web"})
    assert get(chef, "/roles/web")[1]["default_attributes"] == {"a": 1}
    assert get(chef, "/nodes/web1")[1]["run_list"] == ["role[web]"]
    assert get(chef, "/data/servers") == (200, {"web1": f"{chef.url}/data/servers/web1"})
    assert get(chef, "/data/servers/web1") == (200, {"id": "web1", "roles": ["web"]})
    assert list(get(chef, "/policy_groups")[1]["production"]["policies"]) == ["shop"]
    assert get(chef, "/policy_groups/production/policies/shop")[1]["default_attributes"] == {"b": 2}
    assert get(chef, "/environments/_default")[0] == 200
    for query, names in (("*:*", ["db1", "web1"]), ("role:web", ["web1"]), ("fqdn:db1.example.org", ["db1"])):
        assert [one["name"] for one in get(chef, f"/search/node?q={query}")[1]["rows"]] == names
    page = get(chef, "/search/node?q=*:*&rows=1&start=1")[1]
    assert (page["total"], page["start"], [one["name"] for one in page["rows"]]) == (2, 1, ["web1"])
    for path in ("/roles/db", "/data/none", "/policies", "/policy_groups/none/policies/shop"):
        assert get(chef, path)[0] == 404
    del chef.roles["web"]
    assert get(chef, "/roles") == (200, {})
    assert [one.status for one in chef.requests[-2:]] == [404, 200]


def test_it_fails_where_and_as_long_as_it_is_told_to(chef: ChefServer):
    chef.fail_with(500, "/roles")
    assert [get(chef, path)[0] for path in ("/roles", "/roles/web", "/nodes")] == [500, 500, 200]
    chef.fail_with(403, times=1)
    assert [get(chef, path)[0] for path in ("/nodes", "/nodes", "/roles")] == [403, 200, 500]
    chef.recover()
    assert get(chef, "/roles")[0] == 200
    chef.cut()
    with pytest.raises(http.client.IncompleteRead):
        get(chef, "/roles")
    chef.ahead = 3600
    chef.recover()
    assert get(chef, "/roles")[0] == 401


def test_what_search_sees_of_a_node_is_merged_by_precedence():
    kinds = ("default", "normal", "override", "automatic")
    node = {kind: {"a": {"who": kind, kind: 1}} for kind in kinds}
    assert flat({"name": "x", **node}) == {
        "name": "x",
        "a": {"who": "automatic", "default": 1, "normal": 1, "override": 1, "automatic": 1},
    }


@pytest.mark.root
def test_it_listens_inside_a_network_namespace(lab: NetLab, monkeypatch: pytest.MonkeyPatch):
    space = lab.namespace()
    space.ip("address", "add", "192.0.2.53/32", "dev", "lo")
    with ChefServer(address="192.0.2.53", inside=space.inside) as chef:
        chef.set_role("web", default_attributes={"vedette": {"open_ports": [443]}})
        monkeypatch.setenv("CHEF_KEY", chef.key_pem)
        words = ChefWords.model_validate(
            {
                "url": chef.url,
                "user": chef.user,
                "key": {"env": "CHEF_KEY"},
                "plain_http": True,
                "hosts": {"web1": {"roles": ["web"]}},
            }
        )
        found = space.inside(lambda: read_chef(words, "chef", SystemClock()))
        assert [one.ports.first for one in found.hosts[0].openings] == [443]

"""A Chef server's bad days: what each of them is called, how often it is asked again, and that no key is ever shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.chef import ChefServer, make_key, pem

from vedette.inventory import chef_signing
from vedette.inventory.chef import ChefWords, read_chef
from vedette.model.clock import HOUR, SystemClock
from vedette.model.errors import InventoryError
from vedette.model.reasons import InventoryReason as Reason
from vedette.testing.clock import FakeClock

KEYS = cache(chef_signing._private_key)
"""Each key is read once: the library proves its primes every time."""


@pytest.fixture
def chef(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChefServer]:
    with ChefServer(bits=1024) as server:
        server.set_role("web", default_attributes={"vedette": {"open_ports": [443]}})
        monkeypatch.setenv("CHEF_KEY", server.key_pem)
        monkeypatch.setattr(chef_signing, "_private_key", KEYS)
        yield server


class Pauses:
    """Waits nothing and remembers how long it should have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def words(chef: ChefServer, **more: Any) -> ChefWords:
    said = {
        "url": chef.url,
        "user": chef.user,
        "key": {"env": "CHEF_KEY"},
        "plain_http": True,
        "nodes": "none",
        "hosts": {"web1": {"roles": ["web"]}},
        **more,
    }
    return ChefWords.model_validate(said)


def opened(chef: ChefServer, pauses: Pauses | None = None, **more: Any) -> int:
    found = read_chef(words(chef, **more), "chef", SystemClock(), pause=pauses or Pauses())
    return found.hosts[0].openings[0].ports.first


def refused(chef: ChefServer, pauses: Pauses | None = None, clock: Any = None, **more: Any) -> InventoryError:
    with pytest.raises(InventoryError) as caught:
        read_chef(words(chef, **more), "chef", clock or SystemClock(), pause=pauses or Pauses())
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert not [line for line in chef.key_pem.splitlines() if len(line) > 20 and line in shown]
    return caught.value


Trouble = Callable[[ChefServer], object]


@pytest.mark.parametrize(
    ("trouble", "reason", "asked", "says"),
    [
        (lambda chef: chef.fail_with(401), Reason.UNAUTHENTICATED, 1, "HTTP 401: as the test wants it: 401"),
        (lambda chef: chef.fail_with(403), Reason.FORBIDDEN, 1, "the right to read it"),
        (lambda chef: chef.fail_with(404), Reason.NOT_FOUND, 1, "look at `url`"),
        (lambda chef: chef.fail_with(413), Reason.TOO_LARGE, 1, "ask for less"),
        (lambda chef: chef.fail_with(406), Reason.UNEXPECTED_STATUS, 1, "HTTP 406"),
        (lambda chef: chef.fail_with(302), Reason.UNEXPECTED_STATUS, 1, "redirects are not followed"),
        (lambda chef: chef.fail_with(204), Reason.UNEXPECTED_STATUS, 1, "HTTP 204"),
        (lambda chef: chef.fail_with(429), Reason.RATE_LIMITED, 3, "less often"),
        (lambda chef: chef.fail_with(500), Reason.SERVER_ERROR, 3, "server's own log"),
        (lambda chef: chef.fail_with(503), Reason.SERVER_ERROR, 3, "HTTP 503"),
        (lambda chef: chef.cut(), Reason.CUT, 3, "the answer was cut"),
        (lambda chef: chef.slow(), Reason.SLOW, 3, "no answer within 80ms"),
        (lambda chef: chef.drip(), Reason.SLOW, 3, "no answer within 80ms"),
        (lambda chef: chef.answer(b"<html>Sign in"), Reason.NOT_JSON, 1, "its web page?"),
        (lambda chef: chef.answer(b'{"web":'), Reason.NOT_JSON, 1, "no JSON"),
        (lambda chef: chef.answer(b"\xff\xfe"), Reason.NOT_JSON, 1, "no JSON"),
        (lambda chef: chef.answer(b"[" * 100_000), Reason.NOT_JSON, 1, "no JSON"),
        (lambda chef: chef.answer(b'["web"]'), Reason.WRONG_SHAPE, 1, "no JSON object"),
        (lambda chef: chef.answer(b'"' + b"x" * 200_000 + b'"'), Reason.TOO_LARGE, 1, "over 100000 bytes"),
        (lambda chef: chef.answer(b'{"run_list": 7}', "/roles/web"), Reason.WRONG_SHAPE, 1, "run list is no list"),
        (lambda chef: chef.answer(b'{"default_attributes": []}', "/roles/web"), None, 1, ""),
        (lambda chef: chef.answer(b'{"default_attributes": [1]}', "/roles/web"), Reason.WRONG_SHAPE, 1, "no mapping"),
        (lambda chef: chef.answer(b'{"env_run_lists": "x"}', "/roles/web"), Reason.WRONG_SHAPE, 1, "no mapping"),
    ],
)
def test_every_bad_day_has_a_name_and_says_what_to_do(
    chef: ChefServer, trouble: Trouble, reason: Reason | None, asked: int, says: str
):
    trouble(chef)
    pauses = Pauses()
    limits = {"answer_bytes": 100_000}
    if reason is None:
        assert read_chef(words(chef), "chef", SystemClock(), pause=pauses).hosts[0].openings == ()
        return
    error = refused(chef, pauses, timeout="80ms", limits=limits)
    assert (error.reason, len(pauses.seconds)) == (reason, asked - 1)
    assert says in str(error)
    assert "roles" in str(error) or "role[web]" in str(error)
    chef.recover()
    assert opened(chef) == 443


def test_what_may_pass_is_asked_again_and_later_each_time(chef: ChefServer):
    pauses = Pauses()
    chef.fail_with(503, times=2)
    assert opened(chef, pauses) == 443
    assert pauses.seconds == [0.5, 1.0]
    chef.fail_with(429, times=1, headers={"Retry-After": "7"})
    assert opened(chef, pauses) == 443
    assert pauses.seconds[2:] == [7.0]
    chef.fail_with(429, times=1, headers={"Retry-After": "999999"})
    assert opened(chef, pauses) == 443
    assert pauses.seconds[3:] == [30.0]
    chef.fail_with(500, times=4)
    assert opened(chef, pauses, attempts=5) == 443
    assert refused(chef, attempts=1, url=chef.url + "x").reason is Reason.NOT_FOUND


def test_what_a_server_says_is_shown_on_one_line_and_not_at_length(chef: ChefServer):
    chef._troubles[""] = lambda handler: handler.send(403, b'{"error": ["\\u001b[31mred\\n' + b"x" * 5000 + b'"]}')
    shown = str(refused(chef))
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert len(shown) < 600


def test_clocks_that_are_apart_explain_a_refusal(chef: ChefServer):
    chef.ahead = 3600
    error = refused(chef)
    assert error.reason is Reason.CLOCK_SKEW
    assert re.search(r"the server's clock is (3599|3600) s ahead", error.message)
    behind = refused(chef, clock=FakeClock(SystemClock().now() + 4 * HOUR))
    assert re.search(r"clock is \d+ s behind", behind.message)
    chef.ahead = 0
    assert opened(chef) == 443


def test_another_key_or_user_is_refused(chef: ChefServer, tmp_path: Path):
    (tmp_path / "key.pem").write_text(pem(make_key()))
    error = refused(chef, key={"file": str(tmp_path / "key.pem")})
    assert (error.reason, "signature" in error.message) == (Reason.UNAUTHENTICATED, True)
    assert refused(chef, user="somebody").reason is Reason.UNAUTHENTICATED


def test_every_version_is_spoken(chef: ChefServer, monkeypatch: pytest.MonkeyPatch):
    chef.users["vedette"] = make_key().public_key()
    monkeypatch.setenv("CHEF_KEY", pem(make_key()))
    chef.set_node("web1")
    for version in ("1.0", "1.1", "1.3", 1.3):
        chef.requests.clear()
        assert opened(chef, version=version, nodes="search") == 443
        assert {one.version for one in chef.requests} == {str(version)}
        assert {one.method for one in chef.requests} == {"GET", "POST"}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ({"env": "NO_SUCH"}, "NO_SUCH is not set"),
        ({"file": "/no/such"}, "No such file"),
        ({"env": "HOME"}, "no private"),
    ],
)
def test_a_key_that_is_not_there_is_an_error_before_anything_is_asked(chef: ChefServer, key: Any, says: str):
    error = refused(chef, key=key)
    assert (error.reason, says in str(error)) == (Reason.KEY_UNUSABLE, True)
    assert chef.requests == []


def test_a_server_that_is_gone_is_unreachable(chef: ChefServer):
    chef.stop()
    pauses = Pauses()
    assert refused(chef, pauses).reason is Reason.UNREACHABLE
    assert len(pauses.seconds) == 2
    chef.start()
    assert opened(chef) == 443


def test_the_whole_reading_ends_in_time(chef: ChefServer):
    chef.slow("/roles/web")
    error = refused(chef, timeout="30s", longest="100ms")
    assert (error.reason, "within 100ms" in error.message) == (Reason.SLOW, True)


def test_nodes_that_do_not_come_in_time_do_not_cost_us_policy(chef: ChefServer):
    chef.slow("/search")
    found = read_chef(words(chef, nodes="search", timeout="30s", longest="200ms"), "chef", SystemClock())
    assert found.hosts[0].openings[0].ports.first == 443
    assert [one.reason for one in found.problems] == [Reason.SLOW]
    assert not found.claims_complete


def test_proxies_and_netrc_of_the_environment_are_not_asked(chef: ChefServer, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert opened(chef) == 443


def test_certificates_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    authority, stranger = Authority(tmp_path / "one"), Authority(tmp_path / "other")
    with ChefServer(bits=1024, context=authority.server_context()) as chef:
        chef.set_role("web", default_attributes={"vedette": {"open_ports": [443]}})
        monkeypatch.setenv("CHEF_KEY", chef.key_pem)
        assert opened(chef, plain_http=False, ca_file=str(authority.ca_file)) == 443
        for more in ({}, {"ca_file": str(stranger.ca_file)}):
            error = refused(chef, plain_http=False, **more)
            assert (error.reason, "ca_file" in error.hint) == (Reason.TLS, True)
        (tmp_path / "none.pem").write_text("nothing")
        for file in ("none.pem", "missing.pem"):
            assert refused(chef, ca_file=str(tmp_path / file)).reason is Reason.TLS


def test_without_the_libraries_it_says_what_to_install(chef: ChefServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "vedette.inventory.chef_client", raising=False)
    error = refused(chef)
    assert (error.reason, "vedette[hub]" in error.hint) == (Reason.NOT_INSTALLED, True)


# ---------------------------------------------------------------------------------------------- words


MINIMAL = {"url": "https://chef.example.org/organizations/shop", "user": "vedette", "key": {"env": "CHEF_KEY"}}


@pytest.mark.parametrize(
    ("more", "base"),
    [
        ({}, ("https://chef.example.org", "/organizations/shop")),
        (
            {"url": "https://chef.example.org:8443/organizations/shop/"},
            ("https://chef.example.org:8443", "/organizations/shop"),
        ),
        ({"url": "https://[2001:db8::1]", "organization": "a"}, ("https://[2001:db8::1]", "/organizations/a")),
        ({"url": "http://chef.example.org/", "plain_http": True}, ("http://chef.example.org", "")),
    ],
)
def test_an_url_is_server_and_organization(more: Any, base: tuple[str, str]):
    assert ChefWords.model_validate({**MINIMAL, **more}).base() == base


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"url": "http://chef.example.org"}, "not https"),
        ({"url": "https://me:hunter2@chef.example.org"}, "holds a user"),
        ({"url": "ftp://chef.example.org"}, "none of a Chef server"),
        ({"url": "https://chef.example.org:port"}, "url is none"),
        ({"organization": "shop"}, "one of them"),
        ({"key": "-----BEGIN hunter2"}, "valid dictionary"),
        ({"key": {"env": "A", "file": "B"}}, "one of them"),
        ({"version": "1.2"}, "'1.0', '1.1' or '1.3'"),
        ({"timeout": "2h"}, "between 0 and an hour"),
        ({"nodes": "none", "node_writable": "accept"}, "nodes: none"),
        ({"usr": "x"}, "Extra inputs"),
        ({"attributes": {"ports": [""]}}, "at least 1 character"),
        ({"hosts_bag": {"bag": "a/b"}}, "match pattern"),
    ],
)
def test_words_that_cannot_be_meant_are_refused_and_not_repeated(more: Any, says: str):
    with pytest.raises(ValidationError) as caught:
        ChefWords.model_validate({**MINIMAL, **more})
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_schema_takes_what_the_words_take():
    made = ChefWords.model_json_schema()
    paths = made["$defs"]["AttributeWords"]["properties"]["ports"]["anyOf"]
    assert {"type": "string"} in paths
    assert 1.3 in made["properties"]["version"]["enum"]
    said = ChefWords.model_validate(
        {**MINIMAL, "version": 1.3, "attributes": {"ports": "a.b", "open": ["c", ["d", "e.f"]]}}
    )
    assert (said.attributes.ports, said.attributes.open) == ([("a", "b")], [("c",), ("d", "e.f")])

"""Proves the pager service: its judgement, its memory of incidents, its bad days and its webhooks.
Counterpart: parts/pagerduty.py."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty, faults, send_webhook


def _trigger(dedup: str | None = "k", **payload: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "routing_key": ROUTING_KEY,
        "event_action": "trigger",
        "payload": {"summary": "s", "source": "web03", "severity": "critical", **payload},
    }
    return body if dedup is None else {**body, "dedup_key": dedup}


def _follow(action: str, dedup: str = "k") -> dict[str, Any]:
    return {"routing_key": ROUTING_KEY, "event_action": action, "dedup_key": dedup}


class _Client:
    def __init__(self, pagerduty: PagerDuty, context: ssl.SSLContext) -> None:
        self._pagerduty = pagerduty
        self._context = context

    def send(self, body: Any, *, timeout: float = 10.0, path: str = "/v2/enqueue") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPSConnection(
            "localhost", self._pagerduty.port, timeout=timeout, context=self._context
        )
        try:
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture
def client(pagerduty: PagerDuty, authority: Authority) -> _Client:
    return _Client(pagerduty, authority.client_context())


def test_an_incident_lives_by_its_dedup_key(pagerduty: PagerDuty, client: _Client):
    assert client.send(_trigger()) == (202, {"status": "success", "message": "Event processed", "dedup_key": "k"})
    client.send(_trigger())
    (incident,) = pagerduty.incidents
    assert (incident.state, incident.triggers) == ("triggered", 2)
    client.send(_follow("acknowledge"))
    assert incident.state == "acknowledged"
    client.send(_trigger())
    assert (incident.state, incident.triggers) == ("acknowledged", 3)
    client.send(_follow("resolve"))
    assert pagerduty.open_incidents() == []
    client.send(_trigger())
    assert [one.state for one in pagerduty.incidents] == ["resolved", "triggered"]
    assert [one.body["event_action"] for one in pagerduty.requests] == [
        "trigger",
        "trigger",
        "acknowledge",
        "trigger",
        "resolve",
        "trigger",
    ]


def test_what_has_no_open_incident_is_dropped_silently(pagerduty: PagerDuty, client: _Client):
    assert client.send(_follow("resolve"))[0] == 202
    client.send(_trigger())
    other = {**_follow("resolve"), "routing_key": "f" * 32}
    assert client.send(other)[0] == 202
    assert [one.state for one in pagerduty.incidents] == ["triggered"]


def test_a_trigger_without_a_key_is_given_one_and_always_opens(pagerduty: PagerDuty, client: _Client):
    keys = {client.send(_trigger(None))[1]["dedup_key"] for _ in range(2)}
    assert keys == {one.dedup_key for one in pagerduty.open_incidents()}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (_trigger() | {"routing_key": "short"}, "routing_key"),
        (_trigger() | {"event_action": "fire"}, "event_action"),
        (_trigger("x" * 256), "dedup_key"),
        (_trigger() | {"colour": "red"}, "colour"),
        (_trigger(summary="x" * 1025), "summary"),
        (_trigger(summary=""), "summary"),
        (_trigger(severity="high"), "severity"),
        (_trigger(source=None), "source"),
        (_trigger(timestamp="yesterday"), "timestamp"),
        (_trigger(custom_details="text"), "custom_details"),
        (_trigger() | {"links": [{"text": "no href"}]}, "href"),
        (_trigger() | {"images": [{"src": "http://example.org/x.png"}]}, "https"),
        ({"routing_key": ROUTING_KEY, "event_action": "resolve"}, "dedup_key"),
        (b"{", "JSON"),
        (_trigger(custom_details={"x": "y" * 512_000}), "512 KB"),
    ],
)
def test_wrong_events_are_refused_with_what_is_wrong(pagerduty: PagerDuty, client: _Client, body: Any, wrong: str):
    status, answer = client.send(body)
    assert status == 400
    assert wrong in " ".join(answer["errors"])
    assert pagerduty.incidents == []
    assert pagerduty.requests[0].accepted is False


def test_full_events_and_changes_are_right():
    full = _trigger(
        timestamp="2026-11-24T03:00:00.123456Z",
        component="sshd",
        group="web",
        custom_details={"a": 1},
        **{"class": "brute force"},
    ) | {
        "links": [{"href": "https://example.org", "text": "t"}],
        "images": [{"src": "https://example.org/a.png"}],
        "client": "Vedette",
        "client_url": "https://example.org",
    }
    assert faults(full, 1000) == []
    change = {"routing_key": ROUTING_KEY, "payload": {"summary": "deployed", "source": "ci"}, "links": []}
    assert faults(change, 100, change=True) == []
    assert faults(change | {"dedup_key": "k"}, 100, change=True) == ["unknown field 'dedup_key'"]


def test_changes_open_no_incident(pagerduty: PagerDuty, client: _Client):
    change = {"routing_key": ROUTING_KEY, "payload": {"summary": "deployed"}}
    assert client.send(change, path="/v2/change/enqueue")[0] == 202
    assert pagerduty.incidents == []
    assert client.send(_trigger(), path="/nowhere")[0] == 400


def test_bad_days_come_in_the_order_planned(pagerduty: PagerDuty, client: _Client):
    pagerduty.plan(Answer("status", 429, (("Retry-After", "7"),)), Answer("status", 500), Answer("cut"))
    assert [client.send(_trigger())[0] for _ in range(2)] == [429, 500]
    with pytest.raises((http.client.HTTPException, OSError)):
        client.send(_trigger())
    assert pagerduty.incidents == []
    pagerduty.plan(Answer("cut", applied=True))
    with pytest.raises((http.client.HTTPException, OSError)):
        client.send(_trigger())
    assert len(pagerduty.incidents) == 1
    assert [(one.status, one.accepted) for one in pagerduty.requests] == [
        (429, False),
        (500, False),
        (0, False),
        (0, True),
    ]


def test_a_hanging_answer_does_not_block_the_others(pagerduty: PagerDuty, client: _Client):
    pagerduty.plan(Answer("hang"))
    with pytest.raises(TimeoutError):
        client.send(_trigger(), timeout=0.2)
    assert client.send(_trigger())[0] == 202
    assert [one.accepted for one in pagerduty.requests] == [False, True]


def test_it_goes_down_and_comes_back_on_the_same_port(pagerduty: PagerDuty, client: _Client):
    pagerduty.always(Answer("status", 503))
    assert client.send(_trigger())[0] == 503
    pagerduty.recover()
    port = pagerduty.port
    pagerduty.down()
    with pytest.raises(ConnectionRefusedError):
        client.send(_trigger())
    pagerduty.up()
    assert pagerduty.port == port
    assert client.send(_trigger())[0] == 202
    assert len(pagerduty.wait_for(1)) == 1


def test_a_client_that_does_not_know_the_authority_refuses(pagerduty: PagerDuty):
    with pytest.raises(ssl.SSLCertVerificationError):
        _Client(pagerduty, ssl.create_default_context()).send(_trigger())
    assert pagerduty.requests == []


class _Listener(BaseHTTPRequestHandler):
    seen: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.headers["X-PagerDuty-Signature"], body))
        self.send_response(202)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    seen: list[tuple[str, bytes]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Listener", (_Listener,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/pagerduty", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_people_do_comes_back_as_a_signed_webhook(
    pagerduty: PagerDuty, client: _Client, listener: tuple[str, list[tuple[str, bytes]]]
):
    url, seen = listener
    client.send(_trigger())
    (incident,) = pagerduty.incidents
    pagerduty.person_does(incident, "acknowledged")
    assert send_webhook(url, pagerduty.webhook(incident, "incident.acknowledged"), "new", "old") == 202
    ((header, body),) = seen
    expected = [f"v1={hmac.new(secret, body, hashlib.sha256).hexdigest()}" for secret in (b"new", b"old")]
    assert header.split(",") == expected
    event = json.loads(body)["event"]
    assert (event["event_type"], event["resource_type"]) == ("incident.acknowledged", "incident")
    assert (event["data"]["incident_key"], event["data"]["status"]) == ("k", "acknowledged")

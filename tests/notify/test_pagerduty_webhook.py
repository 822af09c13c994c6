from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.examples import Counts
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import Incident, PagerDuty, post, send_webhook, signature

from vedette.model.clock import SECOND
from vedette.model.errors import ConfigError, StateError
from vedette.notify import pagerduty_webhook
from vedette.notify.pagerduty_webhook import (
    MOST_BODY,
    PagerDutyListener,
    PagerEvent,
    PagerVerb,
    parse_event,
    signed,
)
from vedette.notify.settings import PagerDutyWebhookSettings
from vedette.testing.clock import START, FakeClock

INCIDENT = Incident("Q1", 1, "r" * 32, "d" * 64, "triggered", [{"payload": {"summary": "[HIGH] it"}}])


class Told:
    """The callback of a test."""

    def __init__(self) -> None:
        self.told: list[tuple[str, PagerVerb, str, int]] = []
        self.refuses = False

    async def __call__(self, dedup_key: str, verb: PagerVerb, who: str, at: int) -> None:
        if self.refuses:
            raise StateError("the disk is full")
        self.told.append((dedup_key, verb, who, at))


@pytest.fixture
def told() -> Told:
    return Told()


@asynccontextmanager
async def listening(
    told: Told, counts: Counts, folder: Path, clock: FakeClock | None = None, **changes: Any
) -> AsyncIterator[tuple[PagerDutyListener, str]]:
    for name, secret in (("new", "new-secret"), ("old", "old-secret")):
        (folder / name).write_text(secret + "\n")
    values = {"port": 0, "secrets": [{"file": str(folder / "new")}, {"file": str(folder / "old")}]}
    settings = PagerDutyWebhookSettings.model_validate(values | changes)
    # Far in the future, so that the real times of the part are in its past.
    listener = PagerDutyListener(settings, told, clock or FakeClock(START + 10**16), counts)
    started = asyncio.Event()
    task = asyncio.create_task(listener.run(started))
    await started.wait()
    try:
        yield listener, f"http://127.0.0.1:{listener.port}/pagerduty"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------------------------------------- real requests


@pytest.mark.parametrize("verb", list(PagerVerb))
async def test_what_a_person_does_comes_back(
    verb: PagerVerb, pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path
):
    body = pagerduty.webhook(INCIDENT, f"incident.{verb.value}")
    async with listening(told, counts, tmp_path) as (_, url):
        assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 202
    ((key, what, who, at),) = told.told
    assert (key, what, who) == ("d" * 64, verb, "Someone on call")
    assert at > START - 365 * 86_400 * SECOND
    assert counts.of("pagerduty_webhook") == {"told": 1}


async def test_over_tls(pagerduty: PagerDuty, authority: Authority, told: Told, counts: Counts, tmp_path: Path):
    issued = authority._authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    body = pagerduty.webhook(INCIDENT, "incident.acknowledged")
    async with listening(told, counts, tmp_path, **files) as (_, url):
        status = await asyncio.to_thread(
            send_webhook, url.replace("http:", "https:"), body, "new-secret", context=authority.client_context()
        )
    assert status == 202
    assert len(told.told) == 1


async def test_while_the_secret_is_changed_one_of_several_signatures_is_enough(
    pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path
):
    async with listening(told, counts, tmp_path) as (_, url):
        for secrets in (("unknown", "old-secret"), ("new-secret", "unknown"), ("old-secret",)):
            body = pagerduty.webhook(INCIDENT, "incident.resolved")
            assert await asyncio.to_thread(send_webhook, url, body, *secrets) == 202
    assert len(told.told) == 3


async def test_repeats_are_harmless(pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path):
    body = pagerduty.webhook(INCIDENT, "incident.resolved", event_id="01EVENT")
    async with listening(told, counts, tmp_path) as (_, url):
        for _ in range(3):
            assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 202
    assert len(told.told) == 1
    assert counts.of("pagerduty_webhook") == {"told": 1, "repeated": 2}


async def test_what_could_not_be_stored_comes_again(pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path):
    body = pagerduty.webhook(INCIDENT, "incident.resolved", event_id="01EVENT")
    async with listening(told, counts, tmp_path) as (_, url):
        told.refuses = True
        assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 503
        told.refuses = False
        assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 202
    assert len(told.told) == 1


async def test_a_clock_that_is_ahead_there_does_not_reach_into_our_future(
    pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path
):
    clock = FakeClock(1_000_000 * SECOND)
    body = pagerduty.webhook(INCIDENT, "incident.resolved")
    async with listening(told, counts, tmp_path, clock) as (_, url):
        assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 202
    assert told.told[0][3] == clock.now()


REFUSED = [
    ("a wrong secret", {"X-PagerDuty-Signature": signature(b"{}", "guess")}, b"{}", "/pagerduty", 401),
    ("no signature", {}, b"{}", "/pagerduty", 401),
    ("an empty signature", {"X-PagerDuty-Signature": ""}, b"{}", "/pagerduty", 401),
    ("another version", {"X-PagerDuty-Signature": signature(b"{}", "new-secret").replace("v1", "v0")}, b"{}", "", 401),
    ("letters beyond ASCII", {"X-PagerDuty-Signature": "v1=\xe9"}, b"{}", "/pagerduty", 401),
    ("many signatures", {"X-PagerDuty-Signature": ",".join(["v1=" + "0" * 64] * 100)}, b"{}", "/pagerduty", 401),
    ("another body", {"X-PagerDuty-Signature": signature(b"{}", "new-secret")}, b"{} ", "/pagerduty", 401),
    ("no JSON", {"X-PagerDuty-Signature": signature(b"no", "new-secret")}, b"no", "/pagerduty", 400),
    ("no event", {"X-PagerDuty-Signature": signature(b"{}", "new-secret")}, b"{}", "/pagerduty", 400),
    ("another path", {"X-PagerDuty-Signature": signature(b"{}", "new-secret")}, b"{}", "/", 404),
    ("too large", {"X-PagerDuty-Signature": "v1=0"}, b"x" * (MOST_BODY + 1), "/pagerduty", 413),
]


@pytest.mark.parametrize(
    ("headers", "body", "path", "status"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
async def test_what_is_refused(
    headers: dict[str, str], body: bytes, path: str, status: int, told: Told, counts: Counts, tmp_path: Path
):
    async with listening(told, counts, tmp_path) as (listener, _):
        url = f"http://127.0.0.1:{listener.port}{path or '/pagerduty'}"
        assert await asyncio.to_thread(post, url, body, headers) == status
    assert told.told == []
    assert sum(counts.of("pagerduty_webhook").values()) == 1


async def talk(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"GET /pagerduty HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
        (b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", b"413"),
        (b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"4"),
        (
            b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n" + b"x" * 65536 + b"\r\n"
            + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 17,
            b"413",
        ),
        (b"POST /pagerduty HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", b"400"),
    ],
    ids=["get", "tls", "negative", "huge", "large", "long header", "chunked", "expect"],
)  # fmt: skip
async def test_odd_requests(
    request_bytes: bytes, answer: bytes, told: Told, counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pagerduty_webhook, "_LINGER_SECONDS", 0.01)
    async with listening(told, counts, tmp_path) as (listener, _):
        assert (await talk(listener.port, request_bytes)).startswith(b"HTTP/1.1 " + answer)
    assert told.told == []


async def test_a_slow_client_is_sent_away(told: Told, counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pagerduty_webhook, "_REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(pagerduty_webhook, "_LINGER_SECONDS", 0.01)
    async with listening(told, counts, tmp_path) as (listener, _):
        assert b"408" in await talk(listener.port, b"POST /pagerduty HTTP/1.1\r\nHost:")


async def test_who_leaves_is_counted(told: Told, counts: Counts, tmp_path: Path):
    async with listening(told, counts, tmp_path) as (listener, _):
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):
            while not counts.of("pagerduty_webhook"):  # noqa: ASYNC110 (nothing to wait for: they left)
                await asyncio.sleep(0.001)
    assert counts.of("pagerduty_webhook") == {"bad-request": 1}


async def test_idle_connections_do_not_keep_it_from_others_for_ever(
    pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pagerduty_webhook, "_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(pagerduty_webhook, "_LINGER_SECONDS", 0.01)
    body = pagerduty.webhook(INCIDENT, "incident.resolved")
    async with listening(told, counts, tmp_path) as (listener, url):
        idle = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(16)]
        assert b"503" in await talk(listener.port, b"POST /pagerduty HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(10):
            while await asyncio.to_thread(send_webhook, url, body, "new-secret") != 202:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for one in idle:
            one.close()
    assert len(told.told) == 1


async def test_a_place_it_cannot_listen_on_is_a_mistake_of_the_configuration(
    told: Told, counts: Counts, tmp_path: Path
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "new").write_text("s")
        values = {"port": taken.getsockname()[1], "secrets": [{"file": str(tmp_path / "new")}]}
        listener = PagerDutyListener(PagerDutyWebhookSettings.model_validate(values), told, FakeClock(), counts)
        with pytest.raises(ConfigError, match="cannot listen for PagerDuty"):
            await listener.run()


async def test_without_its_secret_it_takes_nothing(pagerduty: PagerDuty, told: Told, counts: Counts, tmp_path: Path):
    body = pagerduty.webhook(INCIDENT, "incident.resolved")
    async with listening(told, counts, tmp_path) as (_, url):
        (tmp_path / "old").write_text("\n")
        assert await asyncio.to_thread(send_webhook, url, body, "") == 401
        (tmp_path / "old").unlink()
        assert await asyncio.to_thread(send_webhook, url, body, "new-secret") == 503
    assert told.told == []


# ---------------------------------------------------------------------------------------------- pure


def event(**changes: Any) -> bytes:
    values = {
        "id": "01E",
        "event_type": "incident.acknowledged",
        "occurred_at": "2026-11-24T00:00:00.169Z",
        "agent": {"summary": "A \x1b[31mPerson\u202e"},
        "data": {"incident_key": "k"},
    }
    return json.dumps({"event": values | changes}).encode()


def test_an_event_is_read_and_its_text_made_harmless():
    assert parse_event(event()) == PagerEvent(
        "01E", "k", PagerVerb.ACKNOWLEDGED, "A \\x1b[31mPerson\\u{202e}", START + 169_000
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"event_type": "incident.annotated"},
        {"event_type": "service.updated"},
        {"event_type": "pagey.ping"},
        {"data": {"incident_key": None}},
        {"data": {}},
    ],
)
def test_what_is_not_about_us(changes: dict[str, Any]):
    assert parse_event(event(**changes)) is None


@pytest.mark.parametrize("changes", [{"agent": None}, {"agent": {"summary": ""}}, {"agent": "x"}])
def test_without_a_name_it_was_pagerduty(changes: dict[str, Any]):
    found = parse_event(event(**changes))
    assert found is not None
    assert found.who == "PagerDuty"


@pytest.mark.parametrize(
    "changes",
    [
        {"event_type": 1},
        {"data": []},
        {"data": {"incident_key": "k" * 256}},
        {"occurred_at": "yesterday"},
        {"occurred_at": "2026-11-24T00:00:00"},
        {"occurred_at": 5},
    ],
)
def test_what_is_no_event(changes: dict[str, Any]):
    with pytest.raises(ValueError, match=r".+"):
        parse_event(event(**changes))


FIELDS = st.sampled_from(["event", "event_type", "data", "incident_key", "occurred_at", "agent", "id"])
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["incident.resolved", "2026-11-24T00:00:00Z", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=10,
)


@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps({"event": value}).encode()))
def test_any_body_is_an_event_or_none(body: bytes):
    try:
        found = parse_event(body)
    except ValueError:
        return
    assert found is None or isinstance(found, PagerEvent)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_only_the_right_signature_passes(body: bytes, header: bytes):
    assert signed(body, signature(body, "s").encode(), ["s"])
    assert not signed(body, header, ["s"])
    assert not signed(body + b"x", signature(body, "s").encode(), ["s"])

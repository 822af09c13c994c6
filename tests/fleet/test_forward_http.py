"""HTTP out to a real server over TLS: JSON lines with a token; what each answer means.
Counterpart: vedette.fleet.forward_http."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.fleet.forwarding import HOST, Shelves, running, short, until
from tests.scenarios.parts.certificates import Authority

from vedette.app.counters import Counters
from vedette.app.forwarding import heads
from vedette.fleet import forward_http
from vedette.fleet.forward import Forwarder, ForwardError
from vedette.fleet.forward_http import HttpForward
from vedette.fleet.forward_settings import HttpTarget
from vedette.testing.clock import FakeClock


class Service:
    """A log service: `answers` are given one after the other, then 200."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.port = 0
        self.heads: list[str] = []
        self.taken: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                body = await reader.readexactly(int(head.lower().split("content-length: ")[1].split("\r\n")[0]))
                self.heads.append(head)
                answer = self.answers.pop(0) if self.answers else "200 OK"
                if answer.startswith("200"):
                    self.taken += [json.loads(line) for line in body.splitlines()]
                writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def service(authority: Authority, *answers: str) -> AsyncIterator[Service]:
    made = Service(*answers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=authority.server_context())
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def target(there: Service, authority: Authority, **more: object) -> HttpForward:
    url = f"https://127.0.0.1:{there.port}/receiver/v1/http/xyz"
    made = {"type": "http", "name": "there", "url": url, "ca_file": str(authority.ca_file), "timeout": 5}
    return HttpForward(HttpTarget.model_validate(made | more), heads())


async def test_records_come_as_json_lines_with_token_and_headers(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    put = Shelves().add("file:/var/log/auth.log", b"Jan  2 00:00:01 web1 sshd[812]: bad \xff \x1b[31m", b"no header")
    async with service(authority) as there:
        sending = target(there, authority, token={"file": str(tmp_path / "token")}, headers={"X-Sumo-Category": "a/b"})
        assert await sending.send([put], 0) == 0
        await sending.close()
    [head] = there.heads
    assert head.startswith("POST /receiver/v1/http/xyz HTTP/1.1\r\n")
    assert "authorization: bearer s3cret\r\n" in head.lower()
    assert "x-sumo-category: a/b\r\n" in head.lower()
    assert there.taken[0] == {
        "@timestamp": "2026-01-02T00:00:01.000000Z",
        "event.created": "2026-11-24T00:00:00.000000Z",
        "event.id": f"{HOST}/file:/var/log/auth.log/0:100",
        "event.original": "Jan  2 00:00:01 web1 sshd[812]: bad \\xff \x1b[31m",
        "host.id": HOST,
        "host.name": "web1",
        "process.name": "sshd",
    }
    assert there.taken[1]["event.original"] == "no header"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("429 Slow", "rate-limited"),
        ("503 Down", "server-error"),
        ("408 Late", "server-error"),
        ("401 Who", "misconfigured"),
        ("302 Elsewhere", "misconfigured"),
    ],
)
async def test_what_may_pass_is_tried_again(authority: Authority, tmp_path: Path, answer: str, reason: str) -> None:
    shelves, counters = Shelves(), Counters()
    shelves.add("audit", b"one")
    async with service(authority, answer, answer) as there:
        sending = Forwarder(
            "there",
            target(there, authority),
            tmp_path / "there",
            shelves.read,
            clock=FakeClock(),
            counter=counters,
            sleep=short,
        )
        async with running(sending):
            await until(lambda: counters.value("forwarded", "there"))
    assert counters.value("forward_failed", f"there:{reason}") == 2
    assert [line["event.original"] for line in there.taken] == ["one"]


async def test_what_is_refused_for_ever_is_left_out_and_the_rest_goes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_http, "BODY_BYTES", 400)
    put = Shelves().add("audit", b"one", b"two", b"three")
    async with service(authority, "200 OK", "400 Bad") as there:
        sending = target(there, authority)
        refused = await sending.send([put], 0)
        await sending.close()
    assert refused > 0
    assert len(there.taken) == 3 - refused


async def test_a_body_too_large_for_the_service_is_halved_until_it_fits(authority: Authority) -> None:
    put = Shelves().add("audit", b"one", b"two", b"three")
    async with service(authority, "413 Large", "200 OK", "413 Large", "413 Large") as there:
        sending = target(there, authority)
        refused = await sending.send([put], 0)
        await sending.close()
    assert refused == 1
    assert [line["event.original"] for line in there.taken] == ["one", "three"]


async def test_how_long_the_service_wants_us_to_wait_is_known(authority: Authority) -> None:
    put = Shelves().add("audit", b"one")
    async with service(authority, "429 Slow\r\nRetry-After: 7") as there:
        sending = target(there, authority)
        with pytest.raises(ForwardError) as raised:
            await sending.send([put], 0)
        await sending.close()
    assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    "more", [{"ca_file": ""}, {"token": {"env": "VEDETTE_NOT_SET"}}, {"url": {"file": "/nowhere"}}]
)
async def test_a_server_not_trusted_and_a_secret_not_there_get_nothing(
    authority: Authority, more: dict[str, object]
) -> None:
    put = Shelves().add("audit", b"one")
    async with service(authority) as there:
        sending = target(there, authority, **more)
        with pytest.raises(ForwardError, match=r"ConnectError|VEDETTE_NOT_SET|/nowhere"):
            await sending.send([put], 0)
        await sending.close()
    assert not there.heads


@pytest.mark.parametrize(
    "more",
    [
        {"url": "http://collector.example/secret"},
        {"url": "ftp://127.0.0.1/"},
        {"name": "../up"},
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"X-A": "a\r\nB: c"}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused_without_repeating_them(more: dict[str, object]) -> None:
    made = {"type": "http", "name": "there", "url": "https://collector.example/x"}
    with pytest.raises(ValidationError) as raised:
        HttpTarget.model_validate(made | more)
    assert "secret" not in str(raised.value)

"""JSON posted over loopback: answered only when kept, tokens, limits, and what bad senders cannot do.
Counterpart: src/vedette/sources/http.py, http_server.py, http_tokens.py."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import orjson
import pytest
import trustme
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import RecordFormat, Trust
from vedette.model.errors import ConfigError
from vedette.sources import http, http_server
from vedette.sources.http import HttpSource, check_http
from vedette.sources.settings import HttpSettings
from vedette.sources.syslog_sockets import Listeners
from vedette.testing.clock import FakeClock

TOKEN, OTHER = "a-token-of-the-first", "a-token-of-the-second"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", TOKEN)
    monkeypatch.setenv("SECOND", OTHER)


def settings(**more: object) -> HttpSettings:
    named = {
        "listen": [{"tcp": "127.0.0.1:0"}],
        "tokens": [
            {"name": "web1", "token": {"env": "FIRST"}},
            {"name": "web2", "token": {"env": "SECOND"}},
        ],
    }
    return HttpSettings.model_validate(named | more)


class Sent:
    """What a test sends with."""

    def __init__(self, port: int, got: Collected, counts: Counts, source: HttpSource) -> None:
        self.port = port
        self.source = source
        self.got = got
        self.counts = counts

    async def raw(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def post(self, body: bytes, *lines: str, token: str = TOKEN, path: str = "/") -> tuple[int, bytes, bytes]:
        """Status, header and body of the answer."""
        header = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close", *lines]
        if token:
            header.append(f"Authorization: Bearer {token}")
        answer = await self.raw("\r\n".join([*header, "", ""]).encode() + body)
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head.lower(), rest

    def ended(self, how: str) -> int:
        return self.counts.seen["http_requests", how]


@asynccontextmanager
async def listening(wanted: HttpSettings, kept: Callable[[], Awaitable[None]] = http.at_once) -> AsyncIterator[Sent]:
    counts = Counts()
    with closing(Listeners()) as listeners:
        source = HttpSource(wanted, listeners, host_id="h", clock=FakeClock(1), counter=counts, kept=kept)
        async with running(source) as got:
            await source.begun.wait()
            yield Sent(listeners.open(wanted.places[0]).getsockname()[1], got, counts, source)


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"a": 1}', [b'{"a": 1}']),
        (b'{"a":1}\r\n\n {"b":"\xff\x00"}\n', [b'{"a":1}', b'{"b":"\xff\x00"}']),
        (b'[{"a": 1},\n {"b":2}]', [b'{"a": 1}', b'{"b":2}']),
        (b'{\n "a": 1\n}\n', [b'{\n "a": 1\n}']),
        (b"\xef\xbb\xbf{}", [b"{}"]),
    ],
)
async def test_objects_arrays_and_lines_become_records(body: bytes, records: list[bytes]):
    async with listening(settings()) as sent:
        status, _, answer = await sent.post(body)
        assert (status, orjson.loads(answer)) == (200, {"taken": len(records), "refused": 0})
        assert (await sent.post(gzip.compress(body), "Content-Encoding: gzip", token=OTHER))[0] == 200
        assert sent.got.records == records * 2
    first, second = sent.got.batches
    assert (first.origin.source, second.origin.source) == ("http:token/web1", "http:token/web2")
    assert (first.trust, first.format) == (Trust.FORGEABLE, RecordFormat.JSON)
    assert sent.ended("kept") == 2


async def test_it_is_answered_only_when_it_is_kept_and_comes_again_where_it_is_not():
    go, fails = asyncio.Event(), [True, False]

    async def kept() -> None:
        await go.wait()
        if fails.pop(0):
            raise OSError("disk full")

    async with listening(settings(), kept) as sent:
        asking = asyncio.create_task(sent.post(b'{"a":1}'))
        await sent.got.count(1)
        await asyncio.sleep(0.02)
        assert not asking.done()
        go.set()
        status, head, _ = await asking
        assert (status, b"retry-after: 5" in head) == (503, True)
        assert (await sent.post(b'{"a":1}'))[0] == 200
        assert sent.got.records == [b'{"a":1}'] * 2
        assert sent.ended("not-kept") == 1


async def test_who_has_no_token_is_told_and_who_guesses_is_slowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "SLOWED_BY", 0.01)
    async with listening(settings(bad_tokens=2)) as sent:
        assert [(await sent.post(b"{}", token=token))[0] for token in ("", "wrong", "wrong")] == [401, 401, 429]
        assert (await sent.post(b"{}"))[0] == 200
        assert sent.got.records == [b"{}"]
        assert [sent.ended(how) for how in ("no-token", "bad-token", "bad-tokens-limited")] == [1, 1, 1]


async def test_a_hundred_bad_tokens_at_once_are_counted_and_a_good_one_is_heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "SLOWED_BY", 0.2)
    async with listening(settings(bad_tokens=20)) as sent:
        guesses = [asyncio.create_task(sent.post(b"{}", token=f"guess-{number}")) for number in range(95)]
        assert (await sent.post(b'{"good":1}'))[0] == 200
        told = [status for status, _, _ in await asyncio.gather(*guesses)]
        assert sorted(told) == [401] * 20 + [429] * 75
        assert sent.ended("bad-token") == 20
        assert sent.ended("bad-tokens-limited") == 75
        assert sent.got.records == [b'{"good":1}']
        assert not sent.source._memory.size


async def test_anybody_may_send_where_that_is_said():
    async with listening(settings(tokens=[], anonymous=True)) as sent:
        assert (await sent.post(b"{}", token=""))[0] == 200
        assert (await sent.post(b"{}", token="wrong"))[0] == 401
    (batch,) = sent.got.batches
    assert (batch.origin.source, batch.trust) == ("http:anonymous/127.0.0.1", Trust.NETWORK)


async def test_what_is_too_large_or_no_body_is_refused_and_the_next_is_taken():
    bomb = gzip.compress(b"0" * 4_000_000)
    packed = gzip.compress(b'{"a":1}')
    async with listening(settings(max_body=20_000, max_unpacked=100_000, max_record=1024)) as sent:
        gz = "Content-Encoding: gzip"
        assert [
            (await sent.post(body, *lines))[0]
            for body, *lines in (
                (b"x" * 20_001,),
                (bomb, gz),
                (packed[:-3], gz),
                (b"plain", gz),
                (packed + b"more", gz),
                (b"{}", "Content-Encoding: br"),
                (b'[{"a":1}',),
                (b"[" * 15_000,),
                (b"hello\nyou",),
                (b"\xff\x00",),
            )
        ] == [413, 413, 400, 400, 400, 415, 400, 400, 400, 400]
        assert not sent.got.batches
        status, _, answer = await sent.post(b'{"a":"' + b"x" * 2000 + b'"}\nno object\n{}')
        assert (status, orjson.loads(answer)) == (200, {"taken": 2, "refused": 1})
        assert [len(record) for record in sent.got.records] == [1024, 2]
        assert sent.got.batches[0].dropped == {"json-unreadable": 1, "record-too-long": 1}
        assert (await sent.post(b""))[0] == 200
        assert (await sent.post(b"{}", path="/else"))[0] == 404
        assert (await sent.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        assert sent.ended("no-such-path") == 2
        assert sent.ended("too-large") == 2


@pytest.mark.parametrize(
    "asked",
    ["TRACE / ", "BREW / ", "PUT /v1/events ", "CONNECT x:1 ", "POST * ", "POST http://[/ ", "POST /v1/events/ "],
)
async def test_whatever_else_is_asked_is_counted(asked: str):
    async with listening(settings()) as sent:
        head = f"{asked}HTTP/1.1\r\nHost: [\r\nContent-Length: 2\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        assert (await sent.raw(head.encode() + b"{}")).startswith(b"HTTP/1.1 404 ")
        assert sent.ended("no-such-path") == 1
        assert not sent.got.batches


async def test_who_goes_before_its_end_is_counted_and_leaves_nothing():
    async with listening(settings()) as sent:
        _, writer = await asyncio.open_connection("127.0.0.1", sent.port)
        head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n"
        writer.write(head.encode() + b'{"a":1}')
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        for _ in range(1000):
            if sent.ended("cut-off"):
                break
            await asyncio.sleep(0.01)
        assert sent.ended("cut-off") == 1
        assert not sent.got.batches
        assert (await sent.post(b"{}"))[0] == 200


async def test_one_wait_for_the_disk_is_for_all_who_came_before_it():
    waits, go = 0, asyncio.Event()

    async def kept() -> None:
        nonlocal waits
        waits += 1
        await go.wait()

    async with listening(settings(), kept) as sent:
        asking = [asyncio.create_task(sent.post(b'{"a":%d}' % number)) for number in range(20)]
        await sent.got.count(20)
        await asyncio.sleep(0.05)
        go.set()
        assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
    assert waits < 5


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_GOODBYE", 0.05)
    async with listening(settings(max_body=20_000)) as sent:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 413 " in await sent.raw(
            head.encode() + b"1000\r\n" + b"x" * 4096 + b"\r\n" + b"5000\r\n" + b"x" * 20480
        )


async def test_bad_and_slow_connections_end_and_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_GOODBYE", 0.05)
    async with listening(settings(request="100ms", idle="100ms")) as sent:
        assert b" 400 " in await sent.raw(b"\x16\x03\x01\x00 no http\r\n\r\n")
        assert await sent.raw(b"") == b""
        assert await sent.raw(b"POST / HTTP/1.1\r\nX: ") == b""
        head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n"
        assert b" 408 " in await sent.raw(head.encode() + b"{")
        whole = head.replace(": 9", ": 2").encode() + b"{}"
        # Two on one connection, and then nothing more.
        assert (await sent.raw(whole * 2)).count(b" 200 ") == 2
        assert (await sent.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)).startswith(b"HTTP/1.1 400 ")
        assert sent.ended("too-slow") == 1
        await asyncio.sleep(0.02)
        assert sent.counts.seen["http_connections", "idle"] == 3
        assert sent.counts.seen["http_connections", "bad-frame"] == 2


async def test_connections_of_one_address_are_bounded():
    async with listening(settings(max_connections_per_address=2)) as sent:
        held = [await asyncio.open_connection("127.0.0.1", sent.port) for _ in range(2)]
        assert await sent.raw(b"") == b""
        assert sent.counts.seen["http_connections", "too-many-of-address"] == 1
        for _, writer in held:
            writer.close()


async def test_who_has_a_token_keeps_its_connection_where_all_are_taken():
    request = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    async with listening(settings(max_connections=3)) as sent:
        reader, known = await asyncio.open_connection("127.0.0.1", sent.port)
        known.write(request)
        assert b" 200 " in await reader.readuntil(b"taken")
        silent = [await asyncio.open_connection("127.0.0.1", sent.port) for _ in range(2)]
        answer, new = await asyncio.open_connection("127.0.0.1", sent.port, local_addr=("127.0.0.2", 0))
        new.write(request)
        assert b" 200 " in await answer.readuntil(b"taken")
        assert await silent[0][0].read() == b""
        known.write(request)
        assert b" 200 " in await reader.readuntil(b"taken")
        assert sent.counts.seen["http_connections", "gave-way"] == 1
        for writer in (known, new, silent[0][1], silent[1][1]):
            writer.close()


async def test_who_comes_while_the_engine_is_busy_is_told_to_come_later(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "BUSY_AFTER", 0.05)
    go = asyncio.Event()

    class Busy(Collected):
        async def emit(self, batch: object) -> None:
            await go.wait()
            await super().emit(batch)  # type: ignore[arg-type]

    counts, wanted = Counts(), settings()
    with closing(Listeners()) as listeners:
        source = HttpSource(wanted, listeners, host_id="h", clock=FakeClock(1), counter=counts)
        async with running(source, Busy()) as got:
            await source.begun.wait()
            sent = Sent(listeners.open(wanted.places[0]).getsockname()[1], got, counts, source)
            first = asyncio.create_task(sent.post(b'{"a":1}'))
            await asyncio.sleep(0.02)
            status, head, _ = await sent.post(b'{"b":2}')
            assert (status, b"retry-after: 5" in head) == (429, True)
            monkeypatch.setattr(source._memory, "most", 3 * http.LEAST)
            assert (await sent.post(b'{"b":2}'))[0] == 429
            go.set()
            assert (await first)[0] == 200
            assert got.records == [b'{"a":1}']
            assert sent.ended("busy") == 2


async def test_tls_and_what_is_none(tmp_path: Path):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "pem")
    files = {"certificate": str(tmp_path / "pem"), "key": str(tmp_path / "key")}
    async with listening(settings(listen=[{"tls": "127.0.0.1:0"}], **files)) as sent:
        import ssl

        context = ssl.create_default_context()
        authority.configure_trust(context)
        reader, writer = await asyncio.open_connection("127.0.0.1", sent.port, ssl=context)
        head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n"
        writer.write(head.encode() + b"{}")
        assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        await sent.raw(head.encode() + b"{}")
        await asyncio.sleep(0.02)
        assert sent.got.records == [b"{}"]
        assert sent.counts.seen["http_connections", "handshake-failed"] == 1


def test_tokens_that_cannot_be_used_are_said(monkeypatch: pytest.MonkeyPatch):
    check_http(settings())
    monkeypatch.setenv("SECOND", TOKEN)
    with pytest.raises(ConfigError, match="the token of another"):
        check_http(settings())
    monkeypatch.setenv("SECOND", "short")
    with pytest.raises(ConfigError, match="web2 is no word of 16"):
        check_http(settings())
    monkeypatch.delenv("SECOND")
    with pytest.raises(ConfigError, match="SECOND is not set"):
        check_http(settings())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tokens": []}, "anonymous: true"),
        ({"listen": [{"udp": "127.0.0.1:0"}]}, "HTTP goes by"),
        ({"tokens": [{"name": "a", "token": {"env": "A"}}] * 2}, "same name"),
        ({"tokens": [], "anonymous": True, "accept_forgeable": True}, "needs tokens"),
        ({"tokens": [{"name": "a/b", "token": {"env": "A"}}]}, "pattern"),
    ],
)
def test_settings_that_make_no_sense_are_refused(more: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        settings(**more)

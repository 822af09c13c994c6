"""Senders on loopback: each way in, what each is trusted, and what bad ones cannot do.
Counterpart: src/vedette/sources/syslog.py and syslog_sockets.py."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs
from tests.sources.collecting import Collected, Counts, running

from vedette.model.batch import Batch, Trust
from vedette.model.errors import ConfigError
from vedette.model.reasons import DropReason
from vedette.sources import syslog
from vedette.sources.connections import ConnectionEnd
from vedette.sources.settings import SyslogSettings
from vedette.sources.syslog import SyslogSource, peer_name
from vedette.sources.syslog_sockets import MOST_FILES, Listeners
from vedette.testing.clock import FakeClock


class Served:
    """A source on loopback, its counters, and sockets to send to it."""

    def __init__(self, listen: list[dict[str, str]], **words: object) -> None:
        self.settings = SyslogSettings.model_validate({"listen": listen, **words})
        self.counts = Counts()
        self.listeners = Listeners()
        self.source = SyslogSource(
            self.settings, self.listeners, host_id="h", clock=FakeClock(1_000_000), counter=self.counts
        )

    def port(self, number: int = 0) -> int:
        return int(self.listeners.open(self.settings.places[number]).getsockname()[1])

    async def connect(self, number: int = 0, **more: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self.settings.places[number].host
        return await asyncio.open_connection(host, self.port(number), **more)  # type: ignore[arg-type]

    async def send(self, data: bytes, number: int = 0, **more: object) -> None:
        _, writer = await self.connect(number, **more)
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def until(self, end: ConnectionEnd, n: int = 1) -> None:
        await self.counted("syslog_connections", end.value, n)

    async def counted(self, name: str, reason: str, n: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.counts.seen[name, reason] < n:  # noqa: ASYNC110 (a counter tells nobody)
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    *listen: dict[str, str], into: Collected | None = None, **words: object
) -> AsyncIterator[tuple[Served, Collected]]:
    served = Served(list(listen), **words)
    try:
        async with running(served.source, into) as got:
            await served.source.begun.wait()
            yield served, got
    finally:
        served.listeners.close()


UDP, TCP, TLS = {"udp": "127.0.0.1:0"}, {"tcp": "127.0.0.1:0"}, {"tls": "127.0.0.1:0"}


def senders(got: Collected) -> set[tuple[str, Trust]]:
    return {(batch.origin.source, batch.trust_of(0)) for batch in got.batches}


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_datagrams(host: str, family: socket.AddressFamily):
    place = f"[{host}]:0" if ":" in host else f"{host}:0"
    async with serving({"udp": place}, max_record=1024) as (served, got):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for data in (b"<34>one\n\0", b"<34>two\nlines \0\xff", b"", b"x" * 3000):
                sender.sendto(data, (host, served.port()))
            assert await got.count(3) == [b"<34>one", b"<34>two\nlines \0\xff", b"x" * 1024]
    assert senders(got) == {(f"syslog:udp/{host}", Trust.NETWORK)}
    assert got.ids == [f"h/syslog:udp/{host}/1000000:{n}" for n in range(3)]
    assert served.counts.seen["source_dropped", DropReason.RECORD_TOO_LONG] == 1
    assert sum(batch.dropped.get("record-too-long", 0) for batch in got.batches) == 1


async def test_a_connection_with_both_framings_and_half_a_last_line():
    async with serving(TCP, UDP, timezone="Europe/Berlin") as (served, got):
        await served.send(b"<1>a\r\n6 <2>b\nc<3>d\n<4>half")
        assert await got.count(4) == [b"<1>a", b"<2>b\nc", b"<3>d", b"<4>half"]
        await served.send(b"<5>e\n")
        assert (await got.count(5))[-1] == b"<5>e"
        await served.until(ConnectionEnd.CLOSED)
    assert senders(got) == {("syslog:tcp/127.0.0.1", Trust.NETWORK)}
    assert {batch.timezone for batch in got.batches} == {"Europe/Berlin"}
    assert [batch.number for batch in got.batches] == list(range(len(got.batches)))
    assert len(set(got.ids)) == 5, "of two connections of one sender, too"
    assert served.counts.seen["syslog_connections", ConnectionEnd.CUT_OFF.value] == 1


async def test_batches_grow_while_the_engine_is_busy_and_a_loud_sender_is_held_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "MOST_OF_SENDER", 20_000)
    go = asyncio.Event()

    class Busy(Collected):
        async def emit(self, batch: Batch) -> None:
            await super().emit(batch)
            await go.wait()

    got = Busy()
    lines = b"".join(b"<13>%06d\n" % n for n in range(30_000))
    async with serving(TCP, UDP, into=got) as (served, _):
        for of in (loud := socket.socket(), served.listeners.open(served.settings.places[0])):
            of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            of.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loud.connect(("127.0.0.1", served.port()))
        _, writer = await asyncio.open_connection(sock=loud)
        writer.write(lines)
        sending = asyncio.create_task(writer.drain())
        await got.count(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"<13>quiet", ("127.0.0.1", served.port(1)))
        await asyncio.sleep(0.1)
        assert not sending.done(), "who is not read cannot write"
        assert len(got.batches) == 1
        go.set()
        await sending
        await got.until(lambda got: sum(map(len, got.batches)) == 30_001)
        writer.close()
    kinds = [batch.origin.source for batch in got.batches]
    assert kinds.index("syslog:udp/127.0.0.1") <= 3, "not behind all that the loud one sent"
    assert [record for record in got.records if record != b"<13>quiet"] == lines.splitlines()
    assert max(len(batch) for batch in got.batches) > 100
    assert max(len(batch.block) for batch in got.batches) < 20_000 + syslog.CHUNK


async def test_what_the_kernel_dropped_is_told_on_the_next_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "MOST_WAITING", 1)
    monkeypatch.setattr(syslog, "AGAIN", 0.01)
    go = asyncio.Event()

    class Busy(Collected):
        async def emit(self, batch: Batch) -> None:
            await super().emit(batch)
            await go.wait()

    async with serving(UDP, into=Busy()) as (served, got):
        place = served.settings.places[0]
        served.listeners.open(place).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for n in range(5000):
                sender.sendto(b"<13>%04d" % n + b"x" * 500, ("127.0.0.1", served.port()))
                if n % 500 == 0:
                    await asyncio.sleep(0)
            await served.counted("source_dropped", DropReason.RECEIVE_BUFFER_FULL)
            go.set()

            def all_told(got: Collected) -> bool:
                lost = sum(batch.dropped.get("receive-buffer-full", 0) for batch in got.batches)
                return lost > 0 and lost + len(got.records) >= 5000

            await got.until(all_told)
    assert served.counts.seen["source_dropped", DropReason.RECEIVE_BUFFER_FULL] + len(got.records) == 5000


async def test_made_up_addresses_share_an_origin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "MOST_SENDERS", 2)
    async with serving(UDP) as (served, got):
        for n in (1, 2, 3, 4, 1):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((f"127.0.0.{n}", 0))
                sender.sendto(b"<1>%d" % n, ("127.0.0.1", served.port()))
        await got.count(5)
    assert {batch.origin.source for batch in got.batches} == {
        "syslog:udp/127.0.0.1",
        "syslog:udp/127.0.0.2",
        "syslog:udp",
    }
    assert len(set(got.ids)) == 5
    assert served.counts.seen["syslog_senders_shared", ""] >= 1


# ---------------------------------------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    made.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"certificate": f"{tmp_path}/server.pem", "key": f"{tmp_path}/server.key"}


def client(authority: trustme.CA, of: trustme.CA | None = None, *names: str, common: str | None = None):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if of is not None:
        of.issue_cert(*names, common_name=common).configure_cert(context)
    return context


async def turned_away(served: Served, context: ssl.SSLContext) -> None:
    """Send, and wait for the end: in TLS 1.3 a client learns only then that it is not wanted."""
    with suppress(ssl.SSLError, ConnectionError):
        reader, writer = await served.connect(ssl=context)
        try:
            writer.write(b"9 <13>false")
            assert await reader.read() == b""
        finally:
            writer.close()
    await served.until(ConnectionEnd.HANDSHAKE_FAILED)


async def test_tls_with_and_without_a_client_certificate(authority: trustme.CA, files: dict[str, str]):
    ca = files["certificate"].replace("server", "ca")
    async with serving(TLS, **files, client_ca=ca) as (served, got):
        await served.send(b"8 <13>web1", ssl=client(authority, authority, "Web1.example.org"))
        await got.count(1)
        await served.send(b"8 <13>anon<13>line\n", ssl=client(authority))
        await got.count(3)
        # A stranger's certificate is not as good as none.
        await turned_away(served, client(authority, trustme.CA(), "web1.example.org"))
        await served.send(b"<13>last\n", ssl=client(authority, authority, "web1.example.org"))
        assert await got.count(4) == [b"<13>web1", b"<13>anon", b"<13>line", b"<13>last"]
    assert senders(got) == {
        ("syslog:tls/web1.example.org", Trust.FORGEABLE),
        ("syslog:tls-anonymous/127.0.0.1", Trust.NETWORK),
    }
    assert got.ids[-1] == "h/syslog:tls/web1.example.org/1000000:1"


async def test_tls_that_asks_nobody_trusts_nobody(authority: trustme.CA, files: dict[str, str]):
    async with serving(TLS, **files) as (served, got):
        await served.send(b"<13>shown\n", ssl=client(authority, authority, "web1.example.org"))
        await got.count(1)
    assert senders(got) == {("syslog:tls-anonymous/127.0.0.1", Trust.NETWORK)}


async def test_tls_that_asks_everybody(authority: trustme.CA, files: dict[str, str]):
    ca = files["certificate"].replace("server", "ca")
    async with serving(TLS, **files, client_ca=ca, require_client=True) as (served, got):
        await turned_away(served, client(authority))
        await served.send(b"<13>a\n", ssl=client(authority, authority, "web1.example.org"))
        assert await got.count(1) == [b"<13>a"]


async def test_bad_clients_of_tls_end_alone(authority: trustme.CA, files: dict[str, str]):
    async with serving(TLS, **files, handshake="50ms") as (served, got):
        _, silent = await served.connect()
        await served.send(b"<13>no TLS at all\n")
        await served.until(ConnectionEnd.HANDSHAKE_FAILED, 2)
        silent.close()
        await served.send(b"<13>good\n", ssl=client(authority))
        assert await got.count(1) == [b"<13>good"]


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subjectAltName": (("IP Address", "192.0.2.1"), ("DNS", "Web1.example"))}, "web1.example"),
        ({"subject": ((("organizationName", "o"),), (("commonName", "web2"),))}, "web2"),
        ({"subject": ((("commonName", "a/../b\n"),),)}, "sha256.e3b0c44298fc1c149afbf4c8996fb924"),
        ({}, "sha256.e3b0c44298fc1c149afbf4c8996fb924"),
    ],
)
def test_a_peer_is_named_by_its_certificate(certificate: dict[str, object], name: str):
    assert peer_name(certificate, b"").startswith(name)
    assert re.fullmatch(r"[a-z0-9.]+", peer_name(certificate, b""))


def test_files_of_tls_that_cannot_be_used(files: dict[str, str], tmp_path: Path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(ConfigError, match="No such file") as error:
        Served([TLS], **{**files, "client_ca": f"{tmp_path}/none.pem"})
    assert "client_ca" in str(error.value)
    with pytest.raises(ConfigError, match=r"wrong\.pem"):
        Served([TLS], **{**files, "certificate": str(wrong)})


# ---------------------------------------------------------------------------------------------------- bad clients
async def test_connections_are_bounded_and_idle_ones_end():
    async with serving(TCP, max_connections=3, max_connections_per_address=2, idle="200ms") as (served, got):
        kept = [await served.connect() for _ in range(2)]
        kept[0][1].write(b"<13>half")
        reader, writer = await served.connect()
        assert await reader.read() == b""
        writer.close()
        assert served.counts.seen["syslog_connections", ConnectionEnd.TOO_MANY_OF_ADDRESS.value] == 1
        others = [await served.connect(local_addr=(f"127.0.0.{last}", 0)) for last in (2, 3, 4, 5)]
        # The first of the address with two gave way, its half a record is one; then all had one, none silent for long.
        await served.until(ConnectionEnd.GAVE_WAY)
        await served.until(ConnectionEnd.TOO_MANY, 2)
        assert await got.count(1) == [b"<13>half"]
        await served.until(ConnectionEnd.IDLE, 3)
        assert served.counts.seen["syslog_connections", ConnectionEnd.GAVE_WAY.value] == 1
        for _, one in (*kept, *others):
            one.close()
        await served.send(b"<13>after\n")
        assert (await got.count(2))[-1] == b"<13>after"


async def test_that_all_are_taken_is_said_once_until_there_is_room_again():
    with capture_logs() as said:
        async with serving(TCP, max_connections=2, max_connections_per_address=1) as (served, got):
            for round_ in (1, 2):
                held = [await served.connect(local_addr=(f"127.0.0.{last}", 0)) for last in (2, 3, 4)]
                await served.until(ConnectionEnd.TOO_MANY, round_)
                for _, one in held:
                    one.close()
                await served.until(ConnectionEnd.CLOSED, 2 * round_)
            await served.send(b"<13>after\n")
            await got.count(1)
    full = [one["most_connections_have"] for one in said if one["event"] == "ALL CONNECTIONS ARE TAKEN"]
    assert full == ["127.0.0.2"] * 2


async def test_who_showed_a_certificate_keeps_its_connection_and_a_handshake_that_hangs_does_not(
    authority: trustme.CA, files: dict[str, str]
):
    ca = files["certificate"].replace("server", "ca")
    async with serving(TLS, **files, client_ca=ca, max_connections=4) as (served, got):
        known = [await served.connect(ssl=client(authority, authority, "web1.example.org")) for _ in range(2)]
        for _, one in known:
            one.write(b"<13>known\n")
        await got.count(2)
        # Neither its certificate nor anything else: a handshake that is not begun.
        hanging = [await served.connect() for _ in range(2)]
        for last in (2, 3):
            await served.send(b"<13>new\n", ssl=client(authority), local_addr=(f"127.0.0.{last}", 0))
        await served.until(ConnectionEnd.GAVE_WAY)
        for _, one in known:
            one.write(b"<13>still\n")
        assert sorted(await got.count(6)) == [b"<13>known"] * 2 + [b"<13>new"] * 2 + [b"<13>still"] * 2
        for _, one in (*known, *hanging):
            one.close()


async def test_there_may_be_as_many_files_as_connections_and_less_is_said():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with capture_logs() as said:
            async with serving(TCP) as (served, got):
                await served.send(b"<13>one\n")
                await got.count(1)
                raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                assert raised == min(hard if hard != resource.RLIM_INFINITY else MOST_FILES, MOST_FILES)
            async with serving(TCP, max_connections=MOST_FILES):
                pass
        words = [one["event"] for one in said]
        assert words.count("fewer files may be open than max_connections needs") == 1 + (raised < 500 + 256)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_that_breaks_ends_alone(monkeypatch: pytest.MonkeyPatch):
    async with serving(TCP) as (served, got):
        _, quiet = await served.connect()
        _, broken = await served.connect()
        broken.write(b"<13>one\n")
        await got.count(1)
        taken = broken.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        broken.transport.abort()
        await served.until(ConnectionEnd.RESET)
        with monkeypatch.context() as patched:
            patched.setattr(syslog.Frames, "feed", lambda *_: 1 / 0)
            await served.send(b"<13>a defect of ours\n")
            await served.until(ConnectionEnd.DEFECT)
        quiet.write(b"<13>two\n")
        assert await got.count(2) == [b"<13>one", b"<13>two"]
        quiet.close()


# ---------------------------------------------------------------------------------------------------- begin and end
async def test_what_was_read_is_emitted_at_the_end(monkeypatch: pytest.MonkeyPatch):
    served, got = Served([UDP]), Collected()

    async def emit(batch: Batch) -> None:
        await got.emit(batch)
        if len(got.batches) == 1:
            await asyncio.Event().wait()

    task = asyncio.create_task(served.source.run(emit))
    await served.source.begun.wait()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"<13>1", b"<13>2"):
            sender.sendto(data, ("127.0.0.1", served.port()))
            await asyncio.sleep(0.01)
    await got.count(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    served.listeners.close()
    assert got.records == [b"<13>1", b"<13>2"]


async def test_a_place_that_is_taken_is_waited_for_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "AGAIN", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serving({"tcp": f"127.0.0.1:{port}"}, UDP) as (served, got):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"<13>udp", ("127.0.0.1", served.port(1)))
            assert await got.count(1) == [b"<13>udp"]
            assert served.counts.seen["source_dropped", DropReason.SOURCE_UNREADABLE] >= 1
            taken.close()
            async with asyncio.timeout(10):
                while True:
                    try:
                        await served.send(b"<13>tcp\n")
                        break
                    except OSError:
                        await asyncio.sleep(0.01)
            assert await got.count(2) == [b"<13>udp", b"<13>tcp"]


def test_sockets_outlive_a_source_and_go_when_nobody_wants_them():
    settings = SyslogSettings.model_validate({"listen": [TCP, UDP]})
    tcp, udp = settings.places
    listeners = Listeners()
    said = listeners.bound(tcp), listeners.bound(udp)
    assert [word.rpartition(":")[0] for word in said] == ["tcp 127.0.0.1", "udp 127.0.0.1"]
    listeners.only([udp])
    assert listeners.bound(udp) == said[1]
    with pytest.raises(ConnectionRefusedError), socket.socket() as late:
        late.connect(("127.0.0.1", int(said[0].rpartition(":")[2])))
    descriptor = listeners.open(udp).fileno()
    listeners.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)

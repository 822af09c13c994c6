"""Joining over the real door: who is let in, who is not, and what a stranger can ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from vedette.app.counters import Counters
from vedette.fleet import door
from vedette.fleet.authority import HUB_NAME, Authority, certified_host, new_key, request
from vedette.fleet.door import Door, Patience
from vedette.fleet.enrolment import MOST_BODY, EnrolRequest, Membership, Registrar, Told, enrol, new_token
from vedette.fleet.hub_settings import HubSettings
from vedette.model.clock import DAY, MINUTE, SECOND
from vedette.model.errors import VedetteError
from vedette.model.fleet import AgentState, EnrolReason
from vedette.store.agents import Agents
from vedette.store.state import State
from vedette.testing.clock import START, FakeClock


class Hub:
    def __init__(self, folder: Path, state: State, **settings: object) -> None:
        # Certificates are judged by the machine's clock, which no test moves: begin there.
        import time

        self.clock = FakeClock(int(time.time()) * SECOND)
        self.counters = Counters()
        self.state = state
        self.roll = Agents(state)
        self.authority = Authority.open(folder / "ca", self.clock)
        self.admitted = 0
        told = Told(("tls://{host}:4222",), self.authority.certificate)
        self.registrar = Registrar(
            self.authority, self.roll, lambda: told, clock=self.clock, counter=self.counters, changed=self._changed
        )
        self.settings = HubSettings.model_validate({"enrol": "127.0.0.1:-1", **settings})
        self.door = Door(self.registrar, self.settings, clock=self.clock, counter=self.counters)

    async def _changed(self) -> None:
        self.admitted += 1

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.door.port}"

    def token(self, uses: int = 1, life: int = DAY, group: str = "web") -> str:
        now = self.clock.now()
        text, token = new_token(self.authority.fingerprint, group, uses=uses, expires_at=now + life, by="anna", now=now)
        self.roll.add_token(token)
        return text

    def count(self, reason: EnrolReason) -> int:
        return self.counters.value("enrolments", reason)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with its tables: making them takes longer than any of these tests."""
    place = tmp_path_factory.mktemp("empty") / "state.db"
    State(place).close()
    return place


@pytest.fixture
def state(tmp_path: Path, empty: Path) -> Iterator[State]:
    shutil.copy(empty, tmp_path / "state.db")
    made = State(tmp_path / "state.db")
    yield made
    made.close()


def fresh(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def client(hub: Hub) -> httpx.AsyncClient:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=hub.authority.certificate.decode())
    context.check_hostname = False
    return httpx.AsyncClient(verify=context, trust_env=False, base_url=hub.url)


def body(hub: Hub, token: str, host_id: str, **changed: object) -> dict[str, object]:
    said = {"version": 1, "host_id": host_id, "name": "web01", "secret": token.partition(".")[2]}
    return {**said, "csr": request(new_key(), host_id).decode(), **changed}


@asynccontextmanager
async def opened(tmp_path: Path, state: State, **settings: object) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path, state, **settings)
    async with hub.door:
        yield hub


def test_a_host_joins_and_keeps_what_it_needs_for_itself_alone(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            host_id, folder, token = str(uuid.uuid4()), fresh(tmp_path, "agent"), hub.token()
            member = await enrol(hub.url, token, folder, host_id=host_id, name="web01")
            agent = hub.roll.agent(host_id)
            assert agent is not None
            assert (agent.state, agent.group, agent.name) == (AgentState.ACTIVE, "web", "web01")
            assert agent.serial == member.certificate.serial
            assert certified_host(member.identity.certificate) == (host_id, agent.enrolment)
            assert member.urls == ("tls://127.0.0.1:4222",)
            assert Membership.load(folder) == member
            assert [path.name for path in folder.iterdir()] == ["membership.json"]
            assert (folder / "membership.json").stat().st_mode & 0o777 == 0o600
            assert hub.admitted == 1
            assert hub.count(EnrolReason.ENROLLED) == 1
            # The secret is nowhere on the hub.
            secret = token.partition(".")[2].encode()
            assert all(secret not in path.read_bytes() for path in tmp_path.glob("state.db*"))  # noqa: ASYNC240
            with pytest.raises(VedetteError, match="token-used-up"):
                await enrol(hub.url, token, fresh(tmp_path, "other"), host_id=str(uuid.uuid4()), name="web02")

    asyncio.run(scenario())


def test_an_answer_that_got_lost_is_asked_for_again_and_uses_nothing_up(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            host_id, folder, token = str(uuid.uuid4()), fresh(tmp_path, "agent"), hub.token()
            key = new_key()
            (folder / "membership.key").write_bytes(key)
            said = body(hub, token, host_id, csr=request(key, host_id).decode())
            async with client(hub) as there:
                assert (await there.post("/v1/enrol", json=said)).status_code == 200
            member = await enrol(hub.url, token, folder, host_id=host_id, name="web01")
            assert member.identity.key == key
            assert hub.count(EnrolReason.REPEATED) == 1

    asyncio.run(scenario())


def test_a_bounded_token_lets_so_many_in_and_one_that_ended_none(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            token = hub.token(uses=2, life=MINUTE)
            async with client(hub) as there:
                told = [(await there.post("/v1/enrol", json=body(hub, token, str(uuid.uuid4())))) for _ in range(3)]
                assert [one.status_code for one in told] == [200, 200, 403]
                assert told[2].json() == {"refused": "token-used-up"}
                late = hub.token(uses=5, life=MINUTE)
                hub.clock.advance(MINUTE)
                ended = await there.post("/v1/enrol", json=body(hub, late, str(uuid.uuid4())))
                assert ended.json() == {"refused": "token-ended"}

    asyncio.run(scenario())


def test_a_host_id_in_use_is_not_given_twice_and_a_revoked_one_never_again(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            token, host_id = hub.token(uses=9), str(uuid.uuid4())
            async with client(hub) as there:

                async def ask() -> dict[str, str]:
                    return (await there.post("/v1/enrol", json=body(hub, token, host_id))).json()

                assert "certificate" in await ask()
                first = hub.roll.agent(host_id)
                assert await ask() == {"refused": "host-id-taken"}
                hub.roll.change(host_id, AgentState.RETIRED, by="anna", note="", now=START)
                assert json.loads(hub.registrar.renew(host_id, request(new_key(), host_id))) == {
                    "refused": "not-enrolled"
                }
                assert "certificate" in await ask()
                again = hub.roll.agent(host_id)
                assert first is not None
                assert again is not None
                assert again.enrolment != first.enrolment
                hub.roll.change(host_id, AgentState.REVOKED, by="anna", note="stolen", now=START)
                assert await ask() == {"refused": "revoked"}
                assert hub.roll.change(host_id, AgentState.RETIRED, by="anna", note="", now=START) is None

    asyncio.run(scenario())


def test_hostile_host_ids_are_refused(tmp_path: Path, state: State):
    hub = Hub(tmp_path, state)
    token = hub.token().partition(".")[2]
    csr = request(new_key(), str(uuid.uuid4())).decode()
    for host_id in ("*", ">", ".", "..", "../ca", "a b", "", "x" * 5000, "00000000-0000-0000-0000-000000000000"):
        asked = EnrolRequest(1, host_id, "web01", token, csr)
        assert hub.registrar.join(asked, "127.0.0.1") == (EnrolReason.BAD_HOST_ID, None)
    assert hub.roll.agents() == []
    assert hub.roll.tokens()[0].uses_left == 1


def test_bad_bodies_are_refused_by_name(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state, bad_tokens=100) as hub, client(hub) as there:
            host_id, token = str(uuid.uuid4()), hub.token()
            other = request(new_key(), str(uuid.uuid4())).decode()
            wanted = {
                "bad-csr": json.dumps(body(hub, token, host_id, csr=other)).encode(),
                "bad-request": json.dumps(body(hub, token, host_id, name="../\n")).encode(),
                "too-large": b"x" * (MOST_BODY + 1),
            }
            for reason, sent in wanted.items():
                assert (await there.post("/v1/enrol", content=sent)).json() == {"refused": reason}
            for sent in (
                b"",
                b"\xff\0",
                b"[" * 10_000,
                b"{}",
                json.dumps({**body(hub, token, host_id), "x": 1}).encode(),
            ):
                assert (await there.post("/v1/enrol", content=sent)).json() == {"refused": "bad-request"}
            assert (await there.get("/v1/../ca.pem")).status_code == 404
            assert "certificate" in (await there.post("/v1/enrol", json=body(hub, token, host_id))).json()

    asyncio.run(scenario())


async def connected(hub: Hub) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=hub.authority.certificate.decode())
    context.check_hostname = False
    return await asyncio.open_connection("127.0.0.1", hub.door.port, ssl=context)


async def raw(hub: Hub, data: bytes) -> bytes:
    """What comes back for bytes that no library would send."""
    reader, writer = await connected(hub)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.transport.abort()


def posted(sent: bytes, line: str = "POST /v1/enrol", host: str = "x") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent


def test_whatever_a_stranger_sends_is_answered_and_counted_once(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state, bad_tokens=100) as hub:
            good = body(hub, hub.token(), str(uuid.uuid4()))
            wanted = [
                (b"\x00\xff no http\r\n\r\n", EnrolReason.BAD_REQUEST),
                (b"POST /v1/enrol HTTP/1.1\r\nX: " + b"a" * 70_000, EnrolReason.BAD_REQUEST),
                (b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", EnrolReason.BAD_REQUEST),
                (posted(b"{}", "PUT /v1/enrol"), EnrolReason.NOT_FOUND),
                (posted(b"{}", "BREW /"), EnrolReason.NOT_FOUND),
                (posted(b"{}", "POST http://[/"), EnrolReason.NOT_FOUND),
                (posted(b"{}", "POST /v1/../../etc/passwd"), EnrolReason.NOT_FOUND),
                (posted(json.dumps({**good, "secret": "\ud800"}).encode()), EnrolReason.BAD_REQUEST),
                (posted(json.dumps({**good, "csr": "\0" * 99}).encode()), EnrolReason.BAD_CSR),
                (posted(json.dumps({**good, "host_id": "../ca"}).encode()), EnrolReason.BAD_HOST_ID),
                (posted(json.dumps(good).encode(), host="a]:x["), EnrolReason.ENROLLED),
            ]
            for sent, reason in wanted:
                before = {one: hub.count(one) for one in EnrolReason}
                assert (await raw(hub, sent)).startswith(b"HTTP/1.1 "), sent[:60]
                counted = {one: hub.count(one) - before[one] for one in EnrolReason if hub.count(one) != before[one]}
                assert counted == {reason: 1}, sent[:60]

    asyncio.run(scenario())


def test_a_defect_that_a_stranger_finds_is_answered_and_counted(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise LookupError("nobody thought of \x1b[31m this")

    async def scenario() -> None:
        async with opened(tmp_path, state) as hub, client(hub) as there:
            monkeypatch.setattr(hub.registrar, "join", broken)
            said = await there.post("/v1/enrol", json=body(hub, hub.token(), str(uuid.uuid4())))
            assert (said.status_code, said.json()) == (503, {"refused": "unavailable"})
            assert hub.count(EnrolReason.UNAVAILABLE) == 1

    with capture_logs() as logged:
        asyncio.run(scenario())
    assert [one["event"] for one in logged] == ["REQUEST TO JOIN FAILED"]
    assert "\x1b" not in logged[0]["error"]


@pytest.mark.parametrize("at_once", [0, len(posted(b" " * 1000)) - 1000], ids=["header", "body"])
def test_who_sends_a_byte_now_and_then_is_cut_off_and_counted_once(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(door, "_CONNECTION_SECONDS", 0.3)

    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            sent = posted(b" " * 1000)
            reader, writer = await connected(hub)
            writer.write(sent[:at_once])
            reading = asyncio.create_task(reader.read())
            with contextlib.suppress(OSError):
                for byte in sent[at_once:]:
                    if reading.done():
                        break
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)
            writer.transport.abort()
            await asyncio.gather(reading, return_exceptions=True)
            async with asyncio.timeout(20):
                while hub.door._open or not hub.count(EnrolReason.TOO_SLOW):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            assert hub.count(EnrolReason.TOO_SLOW) == 1

    asyncio.run(scenario())


def test_a_flood_of_bad_tokens_is_cut_off_for_its_address_and_counted(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state, bad_tokens=5) as hub, client(hub) as there:
            said = body(hub, f"{'0' * 64}.{'x' * 43}", str(uuid.uuid4()))
            told = [(await there.post("/v1/enrol", json=said)).status_code for _ in range(12)]
            assert told == [403] * 5 + [429] * 7
            assert hub.count(EnrolReason.UNKNOWN_TOKEN) == 5
            assert hub.count(EnrolReason.RATE_LIMITED) == 7
            token = hub.token()
            assert (await there.post("/v1/enrol", json=body(hub, token, str(uuid.uuid4())))).status_code == 429
            hub.clock.advance(MINUTE)
            assert (await there.post("/v1/enrol", json=body(hub, token, str(uuid.uuid4())))).status_code == 200

    asyncio.run(scenario())


def test_patience_is_kept_by_address_and_bounded():
    patience = Patience(2, FakeClock())
    for _ in range(2):
        patience.wrong("192.0.2.1")
        patience.wrong("2001:db8::1")
    assert patience.spent("192.0.2.1")
    assert patience.spent("::ffff:192.0.2.1")
    assert not patience.spent("192.0.2.2")
    assert patience.spent("2001:db8::ffff")
    assert not patience.spent("2001:db8:0:1::1")
    for number in range(5000):
        patience.wrong(f"10.0.{number // 250}.{number % 250}")
    assert len(patience._wrong) == 4096
    assert not patience.spent("192.0.2.1")


def test_connections_that_say_nothing_are_bounded_and_do_not_keep_others_out(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state, most_connections=8) as hub:
            idle = [socket.create_connection(("127.0.0.1", hub.door.port)) for _ in range(50)]
            try:
                async with asyncio.timeout(20):
                    while hub.count(EnrolReason.TOO_MANY) < 48:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert len(hub.door._open) == 2
            finally:
                for one in idle:
                    one.close()
            async with asyncio.timeout(20):
                while hub.door._open:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            member = await enrol(
                hub.url, hub.token(), fresh(tmp_path, "agent"), host_id=str(uuid.uuid4()), name="web01"
            )
            assert member.urls

    asyncio.run(scenario())


def test_nothing_is_said_to_a_hub_that_is_not_the_tokens(tmp_path: Path, state: State):
    async def scenario() -> None:
        async with opened(tmp_path, state) as hub:
            real = Authority.open(tmp_path / "real", hub.clock)
            token = f"{real.fingerprint}.{'x' * 43}"
            with pytest.raises(VedetteError, match="not the one the token is for"):
                await enrol(hub.url, token, fresh(tmp_path, "agent"), host_id=str(uuid.uuid4()), name="web01")
            assert hub.counters.snapshot() == {}
            # One that shows the real authority and has no certificate of it learns nothing either.
            asked: list[bytes] = []

            async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append(await reader.read(4096))
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(real.certificate)
                writer.write(head + real.certificate)
                await writer.drain()
                writer.close()

            context = hub.authority.identity("door", server=True).server_context(clients=False)
            server = await asyncio.start_server(pretend, "127.0.0.1", 0, ssl=context)
            async with server:
                url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                with pytest.raises(VedetteError, match="cannot be reached"):
                    await enrol(url, token, fresh(tmp_path, "second"), host_id=str(uuid.uuid4()), name="web01")
            assert len(asked) == 1
            assert b"x" * 43 not in asked[0]

    asyncio.run(scenario())


@pytest.mark.parametrize("token", ["", "x", "a" * 64, f"{'A' * 64}.{'x' * 43}", f"{'a' * 64}.{'x' * 42}/"])
def test_what_is_no_token_is_said_before_anything_is_tried(tmp_path: Path, token: str):
    with pytest.raises(VedetteError, match="no join token"):
        asyncio.run(enrol("https://127.0.0.1:1", token, tmp_path, host_id=str(uuid.uuid4()), name="x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("group", "uses", "life"), [("../x", 1, DAY), ("Web", 1, DAY), ("web", 0, DAY), ("web", 1, 0)])
def test_unfit_tokens_are_not_made(group: str, uses: int, life: int):
    with pytest.raises(VedetteError):
        new_token("0" * 64, group, uses=uses, expires_at=START + life, by="anna", now=START)


def test_the_name_every_hub_carries_is_a_plain_label():
    assert HUB_NAME.replace("-", "").isalnum()

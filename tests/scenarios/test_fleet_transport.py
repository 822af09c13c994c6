"""Agent and hub over a real nats-server: what arrives, and what an agent may not do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

from vedette.app.counters import Counters
from vedette.fleet import subjects
from vedette.fleet.authority import HUB_NAME, Authority, Identity, new_key, request
from vedette.fleet.broker import Broker
from vedette.fleet.door import Door
from vedette.fleet.enrolment import Membership, Registrar, enrol, new_token
from vedette.fleet.hub_settings import BrokerSettings, HubSettings
from vedette.fleet.link import Endpoint, LinkError
from vedette.fleet.membership import Admission, renew
from vedette.fleet.transport import AgentTransport, Arrival, HubTransport, StreamLimits
from vedette.model.clock import DAY, SystemClock
from vedette.model.fleet import Agent, AgentState, LinkReason
from vedette.model.shipping import BatchKey, Lane
from vedette.store.agents import Agents
from vedette.store.state import State

BOUND = 20.0
STORED = f"jetstream/HUB/streams/{subjects.EVENTS}"


def enrolled(name: str) -> Agent:
    return Agent(str(uuid.uuid4()), name, "web", AgentState.ACTIVE, uuid.uuid4().hex, "", "", 0, 0)


def identity_of(agent: Agent, authority: Authority, life: int = DAY) -> Identity:
    key = new_key()
    issued = authority.issue_agent(request(key, agent.host_id), agent.host_id, agent.enrolment, life)
    return Identity(key, issued.pem, authority.certificate)


class Fleet:
    """A broker, the hub's side of it, and two agents that were let in."""

    def __init__(self, folder: Path) -> None:
        self.counters = Counters()
        self.authority = Authority.open(folder / "ca", SystemClock())
        settings = BrokerSettings(listen="127.0.0.1:-1")
        self.broker = Broker(folder / "broker", self.authority, settings, clock=SystemClock(), counter=self.counters)
        self.agents = [enrolled("web01"), enrolled("web02")]
        self.reports: list[tuple[str, bytes]] = []

    def endpoint(self, agent: Agent, identity: Identity | None = None) -> Endpoint:
        identity = identity or identity_of(agent, self.authority)
        return Endpoint((self.broker.url,), identity.client_context(), subjects.inbox(agent.host_id))

    def hub(self, on_renew=None) -> HubTransport:
        async def on_ask(host_id: str, asked: bytes) -> bytes:
            return host_id.encode() + b" asked " + asked

        return HubTransport(
            self.broker.hub_endpoint(),
            self.counters,
            on_report=lambda host_id, packed: self.reports.append((host_id, packed)),
            on_ask=on_ask,
            on_renew=on_renew or on_ask,
        )

    @asynccontextmanager
    async def raw(self, agent: Agent) -> AsyncIterator[tuple[Client, list[str]]]:
        """An agent that does what it likes: a bare client with its certificate, and what it was told of errors."""
        client, errors = Client(), []

        async def on_error(error: Exception) -> None:
            errors.append(str(error).lower())

        endpoint = self.endpoint(agent)
        await client.connect(
            list(endpoint.urls),
            tls=endpoint.context,
            tls_hostname=HUB_NAME,
            inbox_prefix=endpoint.inbox,
            error_cb=on_error,
            allow_reconnect=False,
        )
        try:
            yield client, errors
        finally:
            await client.close()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Fleet, HubTransport]]:
    fleet = Fleet(folder)
    async with fleet.broker:
        await fleet.broker.allow(fleet.agents)
        async with fleet.hub() as hub:
            async with hub.link.use(BOUND):
                pass
            yield fleet, hub


async def taken(hub: HubTransport, wanted: int) -> list[Arrival]:
    found: list[Arrival] = []
    arrivals = hub.arrivals()
    try:
        async for arrival in arrivals:
            await arrival.ack()
            found.append(arrival)
            if len(found) == wanted:
                return found
    finally:
        await arrivals.aclose()
    return found


async def tried(agent: AgentTransport, key: BatchKey, seconds: float = BOUND) -> bool:
    """Whether the broker took it this time."""
    try:
        await agent.publish(key, Lane.BULK, b"again", seconds)
    except LinkError:
        return False
    return True


async def until(condition) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 (many things are waited for)
            await asyncio.sleep(0.01)


def test_batches_reports_questions_confirms_and_values_go_where_they_belong(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first, second = fleet.agents
            confirmed: list[bytes] = []
            values: list[tuple[str, str, bytes]] = []
            others: list[tuple[str, str, bytes]] = []
            await hub.put("bundles", first.host_id, b"before")
            async with (
                AgentTransport(
                    first.host_id,
                    fleet.endpoint(first),
                    fleet.counters,
                    on_confirm=confirmed.append,
                    on_value=lambda *value: values.append(value),
                ) as agent,
                AgentTransport(
                    second.host_id,
                    fleet.endpoint(second),
                    fleet.counters,
                    on_confirm=lambda _: None,
                    on_value=lambda *value: others.append(value),
                ) as other,
            ):
                for number in range(1, 6):
                    await agent.publish(BatchKey(first.host_id, "journal", number), Lane.BULK, b"%d" % number, BOUND)
                await other.publish(BatchKey(second.host_id, "journal", 1), Lane.SECURITY, b"other", BOUND)
                found = await asyncio.wait_for(taken(hub, 6), BOUND)
                assert [(one.host_id, one.lane, one.packed) for one in found] == [
                    *((first.host_id, Lane.BULK, b"%d" % number) for number in range(1, 6)),
                    (second.host_id, Lane.SECURITY, b"other"),
                ]
                await agent.report(b"well", BOUND)
                await until(lambda: fleet.reports == [(first.host_id, b"well")])
                assert await agent.ask(b"what", BOUND) == first.host_id.encode() + b" asked what"
                await hub.confirm(first.host_id, b"through 5", BOUND)
                await until(lambda: confirmed == [b"through 5"])
                await hub.put("bundles", first.host_id, b"now")
                await hub.put("decisions", subjects.ALL, b"everybody")
                await until(lambda: len(values) == 3 and len(others) == 1)
                assert values == [
                    ("bundles", first.host_id, b"before"),
                    ("bundles", first.host_id, b"now"),
                    ("decisions", "all", b"everybody"),
                ]
                assert others == [("decisions", "all", b"everybody")]

    asyncio.run(scenario())


def test_what_a_hub_was_handed_and_did_not_store_is_handed_to_the_next_at_once(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, killed):
            first, _ = fleet.agents
            async with AgentTransport(
                first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
            ) as agent:
                await agent.publish(BatchKey(first.host_id, "journal", 1), Lane.BULK, b"1", BOUND)
            arrivals = killed.arrivals()
            lost = await asyncio.wait_for(anext(arrivals), BOUND)
            await arrivals.aclose()
            async with fleet.hub() as hub:
                found = await asyncio.wait_for(taken(hub, 1), BOUND)
                assert [one.packed for one in found] == [lost.packed]

    asyncio.run(scenario())


def test_a_revoked_agent_is_cut_at_once_and_others_go_on(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, _):
            first, second = fleet.agents
            async with fleet.raw(first) as (revoked, _errors), fleet.raw(second) as (other, others):
                await fleet.broker.allow([second])
                await until(lambda: revoked.is_closed)
                await other.flush(int(BOUND))
                assert other.is_connected
                assert not others
            async with AgentTransport(
                first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
            ) as agent:
                await until(lambda: agent.link.trouble is LinkReason.UNAUTHORIZED)

    asyncio.run(scenario())


def test_the_next_identity_is_up_before_the_old_one_goes(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first, _ = fleet.agents
            async with AgentTransport(
                first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
            ) as agent:
                numbers = iter(range(1, 10_000))
                stop = asyncio.Event()

                async def ship() -> int:
                    shipped = 0
                    while not stop.is_set():
                        await agent.publish(BatchKey(first.host_id, "file", next(numbers)), Lane.BULK, b"x", BOUND)
                        shipped += 1
                    return shipped

                shipping = asyncio.create_task(ship())
                for _ in range(3):
                    await asyncio.sleep(0.05)
                    await agent.link.exchange(fleet.endpoint(first))
                stop.set()
                shipped = await shipping
                assert shipped > 0
                assert len(await asyncio.wait_for(taken(hub, shipped), BOUND)) == shipped
                assert fleet.counters.value("link_cut") == 0

    asyncio.run(scenario())


def test_an_agent_cannot_do_what_is_not_its_own(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first, victim = fleet.agents
            await hub.put("bundles", victim.host_id, b"the victim's")
            await hub.put("bundles", first.host_id, b"its own")
            async with fleet.raw(first) as (rogue, errors), hub.link.use(BOUND) as own:
                heard: list[str] = []

                async def listen(message) -> None:
                    heard.append(message.subject)

                for subject in (
                    ">",
                    "v1.>",
                    "$KV.>",
                    "$JS.>",
                    "_INBOX_hub.>",
                    "_R_.>",
                    subjects.confirms(victim.host_id),
                    subjects.events(victim.host_id, Lane.BULK),
                    subjects.value("bundles", victim.host_id),
                    f"{subjects.inbox(victim.host_id)}.>",
                ):
                    errors.clear()
                    await rogue.subscribe(subject, cb=listen)
                    await rogue.flush()
                    await until(lambda: any("permissions violation for subscription" in error for error in errors))
                api = "$JS.API."
                for subject in (
                    subjects.events(victim.host_id, Lane.BULK),
                    subjects.reports(victim.host_id),
                    subjects.asks(victim.host_id),
                    subjects.renewals(victim.host_id),
                    subjects.confirms(victim.host_id),
                    subjects.value("bundles", victim.host_id),
                    subjects.value("bundles", first.host_id),
                    subjects.direct_get("bundles", victim.host_id),
                    f"{api}DIRECT.GET.KV_bundles",
                    f"{api}STREAM.DELETE.{subjects.EVENTS}",
                    f"{api}STREAM.PURGE.{subjects.EVENTS}",
                    f"{api}STREAM.MSG.GET.{subjects.EVENTS}",
                    f"{api}STREAM.NAMES",
                    f"{api}CONSUMER.CREATE.KV_bundles.mine.{subjects.value('bundles', victim.host_id)}",
                    f"{api}CONSUMER.MSG.NEXT.{subjects.EVENTS}.{subjects.CONSUMER}",
                    f"$JS.ACK.{subjects.EVENTS}.{subjects.CONSUMER}.1.1.1.1.1",
                    "$SYS.REQ.SERVER.PING",
                ):
                    errors.clear()
                    await rogue.publish(subject, b"{}", reply=rogue.new_inbox())
                    await rogue.flush()
                    await until(lambda: any("permissions violation for publish" in error for error in errors))
                # The broker writes answers with its own rights; it must not write them where the agent may not.
                mine = subjects.events(first.host_id, Lane.BULK)
                for number, reply in enumerate(
                    (
                        f"{api}STREAM.PURGE.{subjects.EVENTS}",
                        f"{api}STREAM.DELETE.{subjects.EVENTS}",
                        subjects.confirms(victim.host_id),
                        subjects.value("bundles", victim.host_id),
                        subjects.events(victim.host_id, Lane.BULK),
                        subjects.reports(victim.host_id),
                    ),
                    1,
                ):
                    await rogue.publish(mine, b"%d" % number, reply=reply)
                    await rogue.publish(subjects.direct_get("bundles", first.host_id), b"", reply=reply)
                    await rogue.publish(subjects.asks(first.host_id), b"", reply=reply)
                # Nor do headers reach further than its own messages.
                await rogue.publish(mine, b"7", headers={"Nats-Rollup": "all"})
                await rogue.publish(mine, b"7", headers={"Nats-Expected-Last-Sequence": "1"})
                answer = json.loads((await rogue.request(mine, b"7", BOUND)).data)
                assert answer["stream"] == subjects.EVENTS
                info = await own.jetstream().stream_info(subjects.EVENTS)
                assert info.state.messages == 7
                found = await asyncio.wait_for(taken(hub, 7), BOUND)
                assert {one.host_id for one in found} == {first.host_id}
                assert [one.packed for one in found] == [b"%d" % number for number in range(1, 8)]
                assert await hub.get("bundles", victim.host_id) == b"the victim's"
                assert not fleet.reports
                assert not heard

    asyncio.run(scenario())


def test_certificates_that_are_none_of_ours_are_refused(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, _):
            first, _second = fleet.agents
            stranger = Authority.open(tmp_path / "stranger", SystemClock())
            foreign = identity_of(first, stranger)
            foreign = Identity(foreign.key, foreign.certificate, fleet.authority.certificate)
            expired = identity_of(first, fleet.authority, life=-60_000_000)
            before = Agent(first.host_id, first.name, "web", AgentState.ACTIVE, "an enrolment before", "", "", 0, 0)
            broker = fleet.authority.identity("broker", server=True)
            for wrong in (foreign, expired, identity_of(before, fleet.authority), broker):
                client = Client()
                with pytest.raises((nats.errors.Error, OSError)):  # noqa: PT012 (refused at either)
                    await client.connect(
                        [fleet.broker.url],
                        tls=wrong.client_context(),
                        tls_hostname=HUB_NAME,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        error_cb=_quiet,
                    )
                    await client.flush()
                await client.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", fleet.broker.port)
            writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            said = b""
            async with asyncio.timeout(BOUND):
                while more := await reader.read(4096):
                    said += more
            assert b"PONG" not in said
            writer.close()

    asyncio.run(scenario())


def test_agents_do_not_take_another_agent_for_the_hub(tmp_path: Path):
    authority = Authority.open(tmp_path / "ca", SystemClock())
    rogue = identity_of(enrolled("rogue"), authority)
    victim = identity_of(enrolled("victim"), authority)

    async def scenario() -> None:
        async def serve(_reader, writer) -> None:
            writer.close()

        context = rogue.server_context(clients=False)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=victim.client_context(), server_hostname=HUB_NAME)

    asyncio.run(scenario())


def test_a_broker_that_dies_comes_back_where_it_was_with_what_it_held(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first, _ = fleet.agents
            async with AgentTransport(
                first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
            ) as agent:
                await agent.publish(BatchKey(first.host_id, "file", 1), Lane.BULK, b"one", BOUND)
                port, pid = fleet.broker.port, fleet.broker.pid
                os.kill(pid, signal.SIGKILL)
                await until(lambda: fleet.broker.pid not in (0, pid) and fleet.counters.value("link_cut") > 0)
                async with asyncio.timeout(BOUND):
                    while not await tried(agent, BatchKey(first.host_id, "file", 2)):
                        continue
                assert fleet.broker.port == port
                found = await asyncio.wait_for(taken(hub, 2), BOUND)
                assert [one.packed for one in found] == [b"one", b"again"]
                assert fleet.counters.value("broker_died") == 1

    asyncio.run(scenario())


def test_streams_that_somebody_took_away_are_made_again(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first, _ = fleet.agents
            async with AgentTransport(
                first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
            ) as agent:
                await agent.publish(BatchKey(first.host_id, "file", 1), Lane.BULK, b"one", BOUND)
                assert len(await asyncio.wait_for(taken(hub, 1), BOUND)) == 1
                taking = asyncio.create_task(taken(hub, 1))
                async with hub.link.use(BOUND) as client:
                    assert await client.jetstream().delete_stream(subjects.EVENTS)
                await until(lambda: fleet.counters.value("streams_made_again") > 0)
                await agent.publish(BatchKey(first.host_id, "file", 2), Lane.BULK, b"two", BOUND)
                found = await asyncio.wait_for(taking, BOUND)
                assert [one.packed for one in found] == [b"two"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "part",
    ["", "jetstream", STORED, f"{STORED}/msgs", f"{STORED}/obs/{subjects.CONSUMER}"],
    ids=["all", "jetstream", "a stream", "its messages", "its consumer"],
)
def test_a_store_of_which_a_part_was_deleted_is_begun_anew(tmp_path: Path, part: str):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, hub):
            first = fleet.agents[0]
            made = AgentTransport(first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None)
            async with made as agent:
                await agent.publish(BatchKey(first.host_id, "file", 1), Lane.BULK, b"one", BOUND)
                assert [one.packed for one in await taken(hub, 1)] == [b"one"]
                # It is seen to be there at its next look, a second later.
                store = tmp_path / "broker" / "streams"
                await until(lambda: store / STORED / "obs" / subjects.CONSUMER / "meta.inf" in fleet.broker.store.parts)
                # Whoever deletes it may be at it for a while: what is there again is there again.
                shutil.rmtree(store / part, ignore_errors=True)
                await until(lambda: fleet.counters.value("broker_store_taken") == 1)
                key = BatchKey(first.host_id, "file", 2)
                while not await tried(agent, key, 1.0):  # noqa: ASYNC110 (it comes back when it does)
                    await asyncio.sleep(0.05)
                async with asyncio.timeout(BOUND):
                    assert [one.packed for one in await taken(hub, 1)] == [b"again"]
            assert fleet.counters.value("broker_store_taken") == 1

    asyncio.run(scenario())


def test_a_full_broker_makes_agents_wait_and_throws_nothing_away(tmp_path: Path):
    async def scenario() -> None:
        async with running(tmp_path) as (fleet, _):
            first, second = fleet.agents
            limited = fleet.hub()
            limited._limits = StreamLimits(share=3)
            async with limited as hub:
                async with hub.link.use(BOUND):
                    pass
                async with (
                    AgentTransport(
                        first.host_id, fleet.endpoint(first), fleet.counters, on_confirm=lambda _: None
                    ) as agent,
                    AgentTransport(
                        second.host_id, fleet.endpoint(second), fleet.counters, on_confirm=lambda _: None
                    ) as other,
                ):
                    for number in range(1, 4):
                        await agent.publish(BatchKey(first.host_id, "file", number), Lane.BULK, b"%d" % number, BOUND)
                    with pytest.raises(LinkError) as refused:
                        await agent.publish(BatchKey(first.host_id, "file", 4), Lane.BULK, b"4", BOUND)
                    assert refused.value.reason is LinkReason.FULL
                    # Neither another lane nor another host has to wait for it.
                    await agent.publish(BatchKey(first.host_id, "auth", 1), Lane.SECURITY, b"auth", BOUND)
                    await other.publish(BatchKey(second.host_id, "file", 1), Lane.BULK, b"other", BOUND)
                    found = await asyncio.wait_for(taken(hub, 5), BOUND)
                    assert [one.packed for one in found] == [b"1", b"2", b"3", b"auth", b"other"]
                    async with asyncio.timeout(BOUND):
                        # What was acknowledged is gone a moment later.
                        while not await tried(agent, BatchKey(first.host_id, "file", 4)):
                            continue
                    assert [one.packed for one in await asyncio.wait_for(taken(hub, 1), BOUND)] == [b"again"]

    asyncio.run(scenario())


def test_a_host_joins_ships_renews_and_is_revoked_from_the_command_line(tmp_path: Path):
    async def scenario(state: State) -> None:
        fleet, roll, folder = Fleet(tmp_path), Agents(state), tmp_path / "agent"
        folder.mkdir()
        now = SystemClock().now()
        text, token = new_token(fleet.authority.fingerprint, "web", uses=1, expires_at=now + DAY, by="anna", now=now)
        roll.add_token(token)
        admission = Admission(roll, fleet.broker)
        async with fleet.broker:
            registrar = Registrar(
                fleet.authority,
                roll,
                fleet.broker.told,
                clock=SystemClock(),
                counter=fleet.counters,
                changed=admission.admit,
            )

            async def on_renew(host_id: str, csr: bytes) -> bytes:
                return await asyncio.to_thread(registrar.renew, host_id, csr)

            settings = HubSettings(enrol="127.0.0.1:-1")
            door = Door(registrar, settings, clock=SystemClock(), counter=fleet.counters)
            keeper = asyncio.create_task(admission.keep(state.foreign_version, 0.02))
            async with door, fleet.hub(on_renew) as hub:
                host_id = str(uuid.uuid4())
                url = f"https://127.0.0.1:{door.port}"
                member = await enrol(url, text, folder, host_id=host_id, name="web01")
                transport = AgentTransport(host_id, member.endpoint(), fleet.counters, on_confirm=lambda _: None)
                async with transport as agent:
                    await agent.publish(BatchKey(host_id, "file", 1), Lane.BULK, b"one", BOUND)
                    renewed = await renew(agent, member, folder)
                    assert renewed.identity.key != member.identity.key
                    assert Membership.load(folder) == renewed
                    known = roll.agent(host_id)
                    assert known is not None
                    assert known.serial == renewed.certificate.serial
                    await agent.publish(BatchKey(host_id, "file", 2), Lane.BULK, b"two", BOUND)
                    assert fleet.counters.value("link_cut") == 0
                    assert len(await asyncio.wait_for(taken(hub, 2), BOUND)) == 2
                    # Another process, as the command line is one.
                    other = State(tmp_path / "state.db")
                    Agents(other).change(host_id, AgentState.REVOKED, by="anna", note="stolen", now=now)
                    other.close()
                    await until(lambda: agent.link.trouble is LinkReason.UNAUTHORIZED)
                    assert fleet.counters.value("link_cut") == 1
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    state = State(tmp_path / "state.db")
    try:
        asyncio.run(scenario(state))
    finally:
        state.close()


async def _quiet(_error: Exception) -> None:
    return

"""An existing cluster of three brokers: its leader dies in the middle of traffic, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from pathlib import Path

import pytest
from tests.scenarios.parts.faults import Faults
from tests.scenarios.parts.fleet import PATIENCE, Fleet
from tests.scenarios.parts.nats import NatsCluster
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import Processes, wait_until

from vedette.app.counters import Counters
from vedette.fleet import subjects
from vedette.fleet.authority import HUB_NAME, Authority, Identity, new_key, request, subject_text
from vedette.fleet.broker import HUB_USER, user_of
from vedette.fleet.cluster import Cluster
from vedette.fleet.hub_settings import BrokerSettings
from vedette.fleet.link import Endpoint, LinkError
from vedette.fleet.transport import AgentTransport, HubTransport, StreamLimits
from vedette.model.clock import DAY, SystemClock
from vedette.model.fleet import Agent, AgentState
from vedette.model.shipping import BatchKey, Lane

pytestmark = pytest.mark.slow

BATCHES = 400
BOUND = 60.0


@pytest.mark.timeout(120)
def test_the_leader_is_killed_in_the_middle_of_traffic(tmp_path: Path):
    authority = Authority.open(tmp_path / "ca", SystemClock())
    agent = Agent(str(uuid.uuid4()), "web01", "web", AgentState.ACTIVE, "e1", "", "", 0, 0)
    key = new_key()
    issued = authority.issue_agent(request(key, agent.host_id), agent.host_id, "e1", DAY)
    identity = Identity(key, issued.pem, authority.certificate)
    server = authority.identity("broker", server=True, names=("localhost",))
    processes = Processes(tmp_path / "output")
    accounts = subjects.accounts([agent], subject_text(HUB_USER, HUB_NAME), user_of)
    cluster = NatsCluster(
        tmp_path,
        processes,
        pair=server.key + server.certificate,
        authority=authority.certificate,
        accounts=accounts,
    )
    counters = Counters()
    arrived: dict[bytes, int] = {}

    async def scenario() -> None:
        urls = tuple(url.replace("127.0.0.1", "localhost") for url in cluster.urls)
        settings = BrokerSettings(urls=urls, replicas=3)

        async def answer(_host_id: str, _asked: bytes) -> bytes:
            return b""

        async with Cluster(tmp_path / "broker", authority, settings) as other:
            await other.allow([agent])
            assert agent.host_id in (tmp_path / "broker" / "accounts.conf").read_text()
            hub = HubTransport(
                other.hub_endpoint(),
                counters,
                on_report=lambda *_: None,
                on_ask=answer,
                on_renew=answer,
                limits=StreamLimits(replicas=3, wait=5.0),
            )
            endpoint = Endpoint(urls, identity.client_context(), subjects.inbox(agent.host_id), "")
            transport = AgentTransport(agent.host_id, endpoint, counters, on_confirm=lambda _: None)
            async with hub, transport:
                taking = asyncio.create_task(take(hub))
                async with hub.link.use(BOUND) as client:
                    info = await client.jetstream().stream_info(subjects.EVENTS)
                assert info.config.num_replicas == 3
                assert info.cluster is not None
                leader = str(info.cluster.leader)
                window = asyncio.Semaphore(20)

                async def ship(number: int) -> None:
                    async with window:
                        if number == BATCHES // 2:
                            cluster.running[leader].kill()
                        while True:
                            with contextlib.suppress(LinkError):
                                packed = b"%d" % number
                                await transport.publish(BatchKey(agent.host_id, "file", number), Lane.BULK, packed, 3)
                                return

                async with asyncio.timeout(BOUND):
                    await asyncio.gather(*(ship(number) for number in range(BATCHES)))
                    while len(arrived) < BATCHES:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)

    async def take(hub: HubTransport) -> None:
        async for arrival in hub.arrivals():
            assert arrival.host_id == agent.host_id
            arrived[arrival.packed] = arrived.get(arrival.packed, 0) + 1
            await arrival.ack()

    try:
        cluster.start()
        asyncio.run(scenario())
    finally:
        processes.close()
    assert set(arrived) == {b"%d" % number for number in range(BATCHES)}


@pytest.mark.root
@pytest.mark.timeout(240)
def test_the_leader_dies_under_hub_and_agents_and_comes_back(lab: NetLab, scratch: Path, faults: Faults):
    """Agent, hub and lake as processes: the leader of the stream is killed in traffic, and later the one after it."""
    fleet = Fleet(lab.namespace(), scratch / "fleet", ["web"], clustered=True)
    try:
        web, cluster = fleet.agents["web"], fleet.cluster
        assert cluster is not None
        with web.traffic() as written:
            fleet.wait_for_flow(web, written)
            killed = []
            for _ in range(2):
                leader = cluster.wait_for_leader(subjects.EVENTS)
                cluster.running[leader].kill()
                others = [name for name in cluster.names if name != leader]
                wait_until("another leader", lambda o=others: cluster.led_by(subjects.EVENTS, *o), PATIENCE)  # type: ignore[misc]
                fleet.wait_for_flow(web, written)
                cluster.start(leader)
                killed.append(leader)
            cluster.wait_for_leader(subjects.EVENTS)
            fleet.wait_for_flow(web, written)
        fleet.wait_for(web, written)
        assert not fleet.dropped(web)
        assert fleet.hub.command("ledger", "verify").splitlines()[-1].startswith("intact:")
        # The hub started no server of its own.
        assert not (fleet.hub.data / "broker" / "server.pid").exists()
        sent = sum(map(len, written))
        faults.record("a cluster's leader killed, back, and the next one killed", sent, sent)
    finally:
        fleet.close()

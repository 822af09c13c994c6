"""From what hosts log to findings of login chains, through the parsers, the engine and the commit.
Counterpart: src/vedette/app/login_chains.py, src/vedette/sources/addresses.py."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address

import pytest

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.app.login_chains import NOBODY, PERSON, UNKNOWN, WATCHED, ChainWatch
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.fleet.login_chains import LoginChains
from vedette.model.batch import Batch, Origin, Trust
from vedette.model.clock import MINUTE
from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.sources.addresses import AddressesSource
from vedette.testing.clock import FakeClock
from vedette.text.times import rfc3339

GW, DB = "0b0c9f5e-0000-4000-8000-000000000001", "0b0c9f5e-0000-4000-8000-000000000003"


class Fleet:
    """A gateway and a database behind it, heard for two days."""

    def __init__(self) -> None:
        counters = Counters()
        matcher = matcher_of(WATCHED, counter=counters)
        self.missing: set[str] = set()
        self.watch = ChainWatch(LoginChains(counters), matcher.rules, own.Self("hub", "hub1"), lambda: self.missing)
        self.engine = Engine(matcher, Correlator(matcher.rules, counter=counters), counters, watch=self.watch.see)
        self.clock = FakeClock()

    async def begin(self) -> None:
        for host_id, name, address in ((GW, "gw1", "10.0.0.1"), (DB, "db3", "10.0.0.3")):
            await self.tell(host_id, name, [address, "127.0.0.1"])
        self.clock.advance(2 * 24 * 60 * MINUTE)

    async def tell(self, host_id: str, name: str, addresses: Collection[str]) -> None:
        told: list[Batch] = []

        async def emit(batch: Batch) -> None:
            told.append(batch)

        source = AddressesSource(
            host_id=host_id, host_name=name, clock=self.clock, look=lambda: [ip_address(one) for one in addresses]
        )
        task = asyncio.create_task(source.run(emit))
        while not told:  # noqa: ASYNC110 (the source tells nobody that it told)
            await asyncio.sleep(0.001)
        task.cancel()
        self.engine.process(told[0])

    def log(self, host_id: str, name: str, *messages: str, trust: Trust = Trust.ATTESTED) -> None:
        lines = [f"{rfc3339(self.clock.now())} {name} {message}".encode() for message in messages]
        batch = batch_of_lines(lines, year=2026)
        now = self.clock.now()
        self.engine.process(replace(batch, origin=Origin(host_id, "journal"), read_at=now, trust=trust))

    def found(self) -> list[Finding]:
        self.clock.advance(2 * MINUTE)
        return self.watch.findings(self.clock.now())


@pytest.fixture
async def fleet() -> Fleet:
    made = Fleet()
    await made.begin()
    return made


LOGIN = "sshd[9]: Accepted publickey for root from 10.0.0.1 port 40000 ssh2: ED25519 SHA256:aaaa"


async def test_a_login_from_a_gateway_on_which_nobody_is_is_critical(fleet: Fleet):
    fleet.log(GW, "gw1", "CRON[5]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)")
    fleet.log(GW, "gw1", "sudo[6]: pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)")
    fleet.log(DB, "db3", LOGIN)
    (finding,) = fleet.found()
    assert (finding.rule_id, finding.level, finding.host_id) == (NOBODY.id, Level.CRITICAL, DB)
    assert finding.key == {"host.name": "db3", "source.ip": "10.0.0.1", "user.name": "root"}
    assert finding.sample == "root logged in on db3 from gw1 (10.0.0.1) while nobody was logged in there"
    assert finding.records[0].record_id.startswith(f"{DB}/journal/")


async def test_behind_a_gateway_the_person_is_named(fleet: Fleet):
    fleet.log(GW, "gw1", "sshd[7]: pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)")
    fleet.log(DB, "db3", LOGIN)
    (finding,) = fleet.found()
    assert (finding.rule_id, finding.level) == (PERSON.id, Level.INFORMATIONAL)
    assert finding.sample == "root logged in on db3 from gw1 (10.0.0.1), where alice had a session"
    fleet.log(GW, "gw1", "sshd[7]: pam_unix(sshd:session): session closed for user alice")
    fleet.clock.advance(MINUTE)
    fleet.log(DB, "db3", LOGIN)
    assert [one.rule_id for one in fleet.found()] == [NOBODY.id]


async def test_what_anybody_could_have_written_is_not_believed(fleet: Fleet):
    opened = "sshd[7]: pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)"
    fleet.log(GW, "gw1", opened, trust=Trust.FORGEABLE)
    fleet.log(DB, "db3", LOGIN, trust=Trust.NETWORK)
    assert fleet.found() == []
    fleet.log(DB, "db3", LOGIN)
    assert [one.rule_id for one in fleet.found()] == [NOBODY.id]


async def test_of_a_host_of_which_something_is_missing_nothing_is_claimed(fleet: Fleet):
    fleet.missing = {GW}
    fleet.log(DB, "db3", LOGIN)
    assert fleet.found() == []
    fleet.clock.advance(60 * MINUTE)
    (finding,) = fleet.found()
    assert (finding.rule_id, finding.key) == (UNKNOWN.id, {"host.name": "db3", "source.ip": "10.0.0.1"})


async def test_addresses_are_told_when_they_change_and_no_others_than_those_one_is_reached_by(fleet: Fleet):
    told: list[bytes] = []
    looks = [["10.0.0.1", "127.0.0.1", "fe80::1", "::1"], ["10.0.0.1"], ["10.0.0.9", "2001:db8::9"]]

    async def emit(batch: Batch) -> None:
        told.append(batch.raw(0))

    source = AddressesSource(
        host_id=GW,
        host_name="gw1",
        clock=fleet.clock,
        look=lambda: [ip_address(one) for one in (looks.pop(0) if len(looks) > 1 else looks[0])],
        every=0.001,
    )
    task = asyncio.create_task(source.run(emit))
    while len(told) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    assert b'"gw1 has 10.0.0.1"' in told[0]
    assert b'"gw1 has 10.0.0.9, 2001:db8::9"' in told[1]

"""What a real rsyslogd forwards and logger sends: it makes alerts and no blocks, for nobody vouches for who sent it.
Counterpart: src/vedette/sources/syslog.py."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from tests.scenarios.conftest import ALICE, StartSshd, StartVedette
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker
from tests.scenarios.parts.job import RULE, blocked, guesses
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, Wire
from tests.scenarios.parts.processes import run
from tests.scenarios.parts.syslogs import Forwarder
from tests.sources.collecting import Counts, running

from vedette.model.batch import Trust
from vedette.model.clock import SystemClock
from vedette.parsers.columns import Block
from vedette.parsers.headers import read_headers
from vedette.sources.settings import SyslogSettings
from vedette.sources.syslog import SyslogSource
from vedette.sources.syslog_sockets import Listeners

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    "options",
    [
        ["--udp", "--rfc3164"],
        ["--udp", "--rfc5424"],
        ["--tcp", "--rfc3164"],
        ["--tcp", "--octet-count", "--rfc5424", "--msgid", "M", "--sd-id", "ex@32473", "--sd-param", 'k="v"'],
    ],
    ids=" ".join,
)
async def test_what_logger_sends_is_read(options: list[str]):
    settings = SyslogSettings.model_validate({"listen": [{options[0].strip("-"): "127.0.0.1:0"}]})
    with closing(Listeners()) as listeners:
        source = SyslogSource(settings, listeners, host_id="h", clock=SystemClock(), counter=Counts())
        async with running(source) as got:
            await source.begun.wait()
            port = listeners.open(settings.places[0]).getsockname()[1]
            for message in ("first", "zweite: äöü"):
                command = ["logger", "-n", "127.0.0.1", "-P", str(port), *options, "-t", "sshd", "--id=812", message]
                await asyncio.to_thread(run, command)
            await got.count(2)
    headers = [(batch, read_headers(batch, Block(batch.block))) for batch in got.batches]
    rows = [(batch, header, row) for batch, header in headers for row in range(len(batch))]
    assert [batch.block[header.start[row] : header.end[row]].decode() for batch, header, row in rows] == [
        "first",
        "zweite: äöü",
    ]
    for batch, header, row in rows:
        assert header.ok[row]
        assert header.pid[row] == 812
        assert batch.block[header.program_start[row] : header.program_end[row]] == b"sshd"
        assert batch.trust_of(row) is Trust.NETWORK


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_an_attack_that_was_forwarded_is_told_and_blocks_nobody(
    wire: Wire,
    start_sshd: StartSshd,
    start_vedette: StartVedette,
    attacker: Attacker,
    scratch: Path,
    protocol: Literal["udp", "tcp"],
):
    vedette = start_vedette(
        {
            "sources": {"syslog": {"listen": [{protocol: f"{netns.SERVER}:0"}, {protocol: f"{netns.SERVER}:514"}]}},
            "respond": {RULE: "enforce"},
        }
    )
    # A port below 1024 is had before privileges are dropped.
    assert f"listens: {protocol} {netns.SERVER}:514 (syslog)" in vedette.life
    said = re.search(rf"listens: {protocol} {re.escape(netns.SERVER)}:(?!514 )(\d+) ", vedette.life)
    assert said is not None
    sender = Forwarder(wire.world, scratch / "sender", protocol, netns.SERVER, int(said[1]))
    try:
        start_sshd([ALICE], devlog=sender.devlog)
        attacker.guess("alice", guesses(6), timeout=5.0)
        alert = vedette.wait_for_alert(RULE, source__ip=ATTACKER)
        assert alert["count"] >= 5
        assert "blame source-network" in vedette.command("alerts", "show", alert["alert.id"])
        assert vedette.decisions() == []
        # Another one, so that the first would have been enforced by now.
        Attacker(wire.world, ATTACKERS[0]).guess("alice", guesses(6), timeout=5.0)
        vedette.wait_for_alert(RULE, source__ip=ATTACKERS[0])
        assert vedette.decisions() == []
        assert not blocked(wire.server)
    finally:
        sender.close()

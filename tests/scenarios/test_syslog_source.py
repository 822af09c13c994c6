"""What a real rsyslogd forwards makes alerts and no blocks: nobody vouches for who sent it.
Counterpart: src/vedette/sources/syslog.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
from tests.scenarios.conftest import ALICE, StartSshd, StartVedette
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker
from tests.scenarios.parts.job import RULE, blocked, guesses
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, Wire
from tests.scenarios.parts.syslogs import Forwarder

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(120)]


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

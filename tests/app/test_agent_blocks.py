"""Blocks of the hub on an agent: what is enforced, what the host refuses, what is lifted again.
Counterpart: src/vedette/app/agent_blocks.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.app.agent_blocks import KEPT, LIFTED_HERE, AgentBlocks
from vedette.app.counters import Counters
from vedette.config.settings import Settings
from vedette.fleet.authority import Authority
from vedette.fleet.blocks import Wanted, WantedBlock, wanted_bytes
from vedette.fleet.signing import HubSigner, SignedKind
from vedette.model.clock import HOUR, SystemClock
from vedette.model.findings import key_text
from vedette.respond.allowlist import Guard
from vedette.respond.known_logins import OWNER, KnownLogins
from vedette.respond.policy import Policy
from vedette.store.state import State
from vedette.testing.clock import FakeClock

HOST = "6f0c2c1e-1f0b-4d53-9a53-0a5d6a0f1c11"
NOW = 1_700_000_000_000_000
TARGET = "203.0.113.7"


class Host:
    def __init__(self, folder: Path, keys: Path) -> None:
        self.authority = Authority.open(keys / "authority", SystemClock())
        self.signer = HubSigner.open(keys, self.authority)
        self.clock = FakeClock(NOW)
        self.folder = folder
        self.state = State(folder / "state.db")
        self.said: list[tuple[str, str, str]] = []
        self.enforces = True
        self.counters = Counters()
        self.settings = Settings.model_validate(
            {"data": folder, "blocking": {"allowlist": [{"network": "198.51.100.0/24"}], "enforcers": []}}
        )
        self.start()

    def start(self) -> None:
        self.blocks = AgentBlocks(
            self.settings,
            HOST,
            self.authority.certificate,
            clock=self.clock,
            counter=self.counters,
            say=self._say,
            enforces=lambda: self.enforces,
        )

    def _say(self, action: str, _words: str, about: Any) -> None:
        self.said.append((action, about["decision"], about["reason"]))

    def wants(self, serial: int, *targets: str, target: str = "all", lease: int = HOUR) -> bool:
        blocks = tuple(
            WantedBlock(f"id-{one}", one, "operator:eve", "r", NOW, self.clock.now() + lease) for one in targets
        )
        said = Wanted(serial, target, NOW, blocks)
        new = self.blocks.told(self.signer.sign(SignedKind.DECISIONS, wanted_bytes(said)))
        self.blocks.apply(self.state)
        return new

    def active(self) -> set[str]:
        return {one.target.value for one in self.state.active_decisions(self.clock.now())}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def host(tmp_path: Path, keys: Path) -> Iterator[Host]:
    made = Host(tmp_path, keys)
    yield made
    made.state.close()


def test_what_is_wanted_is_enforced_and_lifted_when_it_is_not_any_more(host: Host):
    assert host.wants(1, TARGET, "203.0.113.8")
    assert host.active() == {TARGET, "203.0.113.8"}
    assert host.said[0] == ("decision-enforced", f"id-{TARGET}", "")
    host.wants(2, TARGET)
    assert host.active() == {TARGET}
    assert host.said[-1] == ("decision-ended", "id-203.0.113.8", "")


def test_what_is_older_than_what_is_known_changes_nothing(host: Host):
    host.wants(5, TARGET)
    assert not host.wants(4)
    assert not host.wants(5)
    assert host.active() == {TARGET}


def test_the_floor_and_the_allowlist_of_this_host_win(host: Host):
    host.wants(1, "198.51.100.9", "127.0.0.1", TARGET)
    assert host.active() == {TARGET}
    assert {one for one in host.said if one[0] == "decision-refused"} == {
        ("decision-refused", "id-198.51.100.9", "allowlisted"),
        ("decision-refused", "id-127.0.0.1", "hard-floor"),
    }


def test_who_logged_in_here_lately_is_not_blocked(host: Host):
    known = KnownLogins(host.settings.blocking.known_logins, ())
    known.succeeded("eve", TARGET, NOW)
    with host.state.transaction() as tx:
        tx.save_correlation(known.changes())
    assert (OWNER, key_text({"source.ip": TARGET})) in {row[:2] for row in host.state.correlation()}
    host.wants(1, TARGET)
    assert host.active() == set()
    assert host.said == [("decision-refused", f"id-{TARGET}", "known-login")]


def test_what_a_person_lifted_here_stays_lifted(host: Host):
    host.wants(1, TARGET)
    with host.state.transaction() as tx:
        Policy(host.settings.responding, (), Guard(), HOST).unblock(tx, TARGET, "bob", NOW)
    host.blocks.apply(host.state)
    assert host.active() == set()
    assert host.said[-1] == ("decision-refused", f"id-{TARGET}", LIFTED_HERE)


def test_what_moves_from_one_key_to_the_other_is_blocked_again(host: Host):
    host.wants(1, TARGET, target=HOST)
    host.wants(2, target=HOST)
    assert host.active() == set()
    host.wants(3, TARGET)
    assert host.active() == {TARGET}


def test_with_the_hub_away_it_stays_over_a_restart_and_ends_with_its_lease(host: Host):
    host.wants(1, TARGET)
    host.start()
    host.blocks.apply(host.state)
    assert host.active() == {TARGET}
    host.clock.advance(HOUR)
    host.blocks.apply(host.state)
    assert host.active() == set()


def test_a_host_that_cannot_enforce_says_so(host: Host):
    host.enforces = False
    host.wants(1, TARGET)
    assert host.said == [("decision-refused", f"id-{TARGET}", "no-enforcer")]


def test_what_is_for_another_host_or_damaged_is_counted(host: Host):
    other = Wanted(1, "6f0c2c1e-1f0b-4d53-9a53-0a5d6a0f1c12", NOW)
    assert not host.blocks.told(host.signer.sign(SignedKind.DECISIONS, wanted_bytes(other)))
    assert not host.blocks.told(b"\x00nonsense")
    (host.folder / KEPT).write_bytes(b"\xff")
    host.start()
    host.blocks.apply(host.state)
    assert host.active() == set()
    refused = {reason for name, reason in host.counters.snapshot() if name == "fleet_blocks_refused"}
    assert refused == {"of-another-host", "unreadable"}

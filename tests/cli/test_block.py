"""Blocks from the command line: what is decided, what is in force afterwards, and what is refused.
Counterpart: vedette.cli.block and vedette.app.operating."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.cli.parts import HOSTILE, Place

from vedette.app import operating
from vedette.app.host import ALLOWLIST_FILE, Lock
from vedette.model.clock import HOUR, SystemClock
from vedette.model.decisions import Decision, Refusal, Target, TargetKind
from vedette.model.ids import uuid7
from vedette.model.reasons import RefusalReason


def test_a_block_is_kept_enforced_here_listed_and_lifted(place: Place):
    ran = place.run("block", "add", "203.0.113.7", "--for", "2h", "--reason", "scans us")
    assert ran.code == 0, ran.err
    assert "carried out here, by hosts_deny: no `vedette up` runs on" in ran.err
    assert "sshd: 203.0.113.7\n" in place.hosts_deny.read_text()
    (row,) = place.run("block", "list", "--output", "json").records
    assert (row["target"], row["reason"], row["decision.state"]) == ("203.0.113.7", "scans us", "active")
    assert row["owner"].startswith("operator:")
    text = place.run("block", "list").out
    assert "1h59m" in text
    lifted = place.run("block", "remove", "203.0.113.7")
    assert lifted.code == 0, lifted.err
    assert lifted.out == "lifted: 203.0.113.7\n"
    assert place.hosts_deny.read_text() == ""
    assert place.run("block", "list", "--output", "json").records == []
    (past,) = place.run("block", "list", "--history", "--output", "json").records
    assert (past["decision.state"], past["lift_reason"]) == ("lifted", "operator")


def test_one_command_undoes_everything_also_what_the_state_does_not_know(place: Place):
    place.hosts_deny.write_text("sshd: 192.0.2.1\n")
    for address in ("203.0.113.7", "203.0.113.8", "2001:db8::7"):
        assert place.run("block", "add", address).code == 0
    ours = place.hosts_deny.read_text()
    assert "[2001:db8::7]" in ours
    place.hosts_deny.write_text(ours.replace("# END vedette", "sshd: 203.0.113.99\n# END vedette"))
    ran = place.run("block", "remove", "--all")
    assert ran.code == 0, ran.err
    assert "3 blocks lifted; nothing is blocked any more" in ran.out
    assert "carried out here" in ran.err
    assert place.hosts_deny.read_text() == "sshd: 192.0.2.1\n"
    again = place.run("block", "remove", "--all")
    assert again.code == 0
    assert "no enforcer held anything of it" in again.err


def test_a_running_up_is_left_to_do_it(place: Place):
    place.data.mkdir()
    lock = Lock(place.data)
    lock.take()
    try:
        ran = place.run("block", "add", "203.0.113.7")
    finally:
        lock.close()
    assert ran.code == 0
    assert "the running `vedette up` carries it out" in ran.err
    assert not place.hosts_deny.exists()


def test_a_running_up_without_a_table_in_the_kernel_blocks_nobody(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.config.write_text(f"version: 1\ndata: {place.data}\n")
    place.data.mkdir()
    absent = True
    monkeypatch.setattr(operating, "table_is_absent", lambda: absent)
    lock = Lock(place.data)
    lock.take()
    try:
        without = place.run("block", "add", "203.0.113.7")
        absent = False
        with_table = place.run("block", "add", "203.0.113.8")
    finally:
        lock.close()
    assert without.code == 2
    assert "NOT IN FORCE" in without.err
    assert with_table.code == 0


def test_what_is_kept_but_not_in_force_is_said_and_is_no_success(place: Place):
    place.hosts_deny.mkdir()
    ran = place.run("block", "add", "203.0.113.7")
    assert ran.code == 2
    assert "NOT IN FORCE: hosts_deny:" in ran.err
    assert len(place.run("block", "list", "--output", "json").records) == 1


def test_nothing_is_loaded_into_a_kernel_that_holds_nothing_of_ours(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.config.write_text(f"version: 1\ndata: {place.data}\n")
    monkeypatch.setattr(operating, "table_is_absent", lambda: True)
    monkeypatch.setitem(operating.ENFORCERS, "nftables", lambda _: pytest.fail("the table was made"))
    place.state().close()
    ran = place.run("block", "remove", "--all")
    assert ran.code == 0
    assert "no enforcer held anything of it" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "127.0.0.1"), "hard floor"),
        (("add", "attacker.example.org"), "not an address or network"),
        (("add", "0.0.0.0/0"), "hard floor"),
        (("add", "198.51.100.7"), "on the allowlist (office)"),
        (("add", "198.51.100.7", "--override"), "--reason"),
        (("add", "198.51.100.7", "--override", "--reason", "he asked", "--for", "1d"), "at most 1h"),
        (("add", "203.0.113.7", "--for", "-1h"), "--for"),
        (("remove", "203.0.113.7"), "is not blocked"),
        (("remove",), "--all"),
        (("remove", "203.0.113.7", "--all"), "--all"),
        (("stats", "--since", "never"), "--since"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_help(place: Place, words: tuple[str, ...], said: str):
    place.state().close()
    ran = place.run("block", *words)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""
    assert not place.hosts_deny.exists()


def test_an_override_passes_the_allowlist_for_a_short_time(place: Place):
    ran = place.run("block", "add", "198.51.100.7", "--override", "--reason", "his laptop is rooted", "--for", "30m")
    assert ran.code == 0, ran.err
    assert place.run("block", "list", "--output", "json").records[0]["override"] is True


def test_several_are_lifted_all_or_none(place: Place):
    for address in ("203.0.113.7", "203.0.113.8"):
        place.run("block", "add", address)
    assert place.run("block", "remove", "203.0.113.7", "203.0.113.99").code == 2
    assert len(place.run("block", "list", "--output", "json").records) == 2
    assert place.run("block", "remove", "203.0.113.7", "203.0.113.8").code == 0
    assert place.run("block", "list", "--output", "json").records == []


def test_allowing_a_network_lifts_the_blocks_on_it_and_lasts(place: Place):
    place.run("block", "add", "203.0.113.7")
    ran = place.run("block", "allow", "203.0.113.0/28", "--comment", "our\nnew office")
    assert ran.code == 0, ran.err
    assert "lifted: 203.0.113.7" in ran.out
    assert "203.0.113.7" not in place.hosts_deny.read_text()
    file = place.data / ALLOWLIST_FILE
    assert file.read_text() == "203.0.113.0/28  # our new office\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert place.run("block", "add", "203.0.113.9").code == 2
    place.run("block", "allow", "203.0.113.0/28", "--comment", "office")
    place.run("block", "allow", "2001:db8::/48", "--comment", "office")
    assert file.read_text() == "203.0.113.0/28  # office\n2001:db8::/48  # office\n"
    assert place.run("block", "allow", "office.example.org", "--comment", "x").code == 2


def test_a_broken_allowlist_is_said_with_its_line(place: Place):
    place.data.mkdir()
    (place.data / ALLOWLIST_FILE).write_text("203.0.113.0/28\nnonsense\n")
    ran = place.run("block", "add", "192.0.2.99")
    assert ran.code == 2
    assert f"{place.data / ALLOWLIST_FILE}:2" in ran.err


@pytest.mark.root
def test_what_root_makes_belongs_to_whom_the_folder_belongs(place: Place):
    place.data.mkdir()
    os.chown(place.data, 65_534, 65_534)
    assert place.run("block", "allow", "203.0.113.0/28", "--comment", "office").code == 0
    assert {(one.stat().st_uid, one.stat().st_gid) for one in place.data.iterdir()} == {(65_534, 65_534)}
    assert len(list(place.data.iterdir())) >= 3


def test_stats_count_unique_addresses_decisions_by_owner_and_refusals_by_reason(place: Place):
    now = SystemClock().now()

    def decided(value: str, owner: str, since: int) -> Decision:
        return Decision(
            uuid7(since), Target(TargetKind.ADDRESS, value), "h1", owner, "r", since, since + HOUR, offence=1
        )

    state = place.state()
    with state.transaction() as tx:
        for value, owner, age in (
            ("203.0.113.7", "rule:ssh-guess-much", 0),
            ("203.0.113.7", "rule:ssh-guess-much", 50),
            ("203.0.113.8", "operator:alice", 0),
            ("203.0.113.9", "rule:ssh-guess-much", 24 * 40),
        ):
            tx.save_decision(decided(value, owner, now - age * HOUR))
        tx.save_refusals([Refusal("ssh-guess-much", HOSTILE, RefusalReason.ALLOWLISTED)] * 2, now)
        tx.save_refusals([Refusal("ssh-guess-much", "x", RefusalReason.HARD_FLOOR)], now - 24 * 40 * HOUR)
    state.close()
    (record,) = place.run("block", "stats", "--output", "json").records
    assert (record["addresses"], record["decisions"], record["active"]) == (2, 3, 2)
    assert record["by_owner"]["rule:ssh-guess-much"] == {"decisions": 2, "targets": 1}
    assert record["refusals"] == [{"rule.id": "ssh-guess-much", "reason": "allowlisted", "count": 2}]
    text = place.run("block", "stats", "--since", "60d").out
    assert "3 unique addresses" in text
    assert "hard-floor" in text


# ---------------------------------------------------------------------------------------------------- DenyHosts
@pytest.fixture
def denyhosts(tmp_path: Path) -> Path:
    """An installation that blocks one address for a year of its own and allows two."""
    from datetime import UTC, datetime

    work = tmp_path / "work"
    work.mkdir()
    (work / "allowed-hosts").write_text("192.0.2.*\noffice.example.org\n")
    date = datetime.fromtimestamp(SystemClock().now() / 1e6 - 3600, UTC).strftime("%a %b %d %H:%M:%S %Y")
    deny = tmp_path / "deny"
    deny.write_text(
        f"# DenyHosts: {date} | sshd: 203.0.113.7\nsshd: 203.0.113.7\n"
        f"# DenyHosts: {date} | sshd: 192.0.2.5\nsshd: 192.0.2.5\n"
    )
    conf = tmp_path / "denyhosts.conf"
    conf.write_text(
        f"SECURE_LOG = /var/log/auth.log\nHOSTS_DENY = {deny}\nWORK_DIR = {work}\nPURGE_DENY = 1w\n"
        "DENY_THRESHOLD_INVALID = 5\nPLUGIN_DENY = /bin/evil\x1b[2J\nSMTP_PASSWORD = hunter2\n"
        "ADMIN_EMAIL = a@example.org\n"
    )
    return conf


def test_a_dry_run_reports_and_makes_nothing(place: Place, denyhosts: Path):
    ran = place.run("block", "import", "denyhosts", denyhosts, "--dry-run", "--timezone", "UTC")
    assert ran.code == 0, ran.err
    assert f"{denyhosts}:6: no-equal: PLUGIN_DENY" in ran.out
    assert "unknown_user: 5" in ran.out
    assert "/var/log/auth.log" in ran.out
    assert "a@example.org" in ran.out
    assert "would take over 2 blocks and 1 allowlist entries" in ran.out
    assert "\x1b" not in ran.out
    assert "hunter2" not in ran.out
    assert not place.data.exists()


def test_blocks_that_run_and_allowed_hosts_are_taken_over(place: Place, denyhosts: Path):
    ran = place.run("block", "import", "denyhosts", denyhosts, "--timezone", "UTC")
    assert ran.code == 0, ran.err
    assert "taken over: 1 blocks, 1 allowlist entries" in ran.out
    assert "not taken over: 1, allowlisted" in ran.out
    (row,) = place.run("block", "list", "--output", "json").records
    assert (row["target"], row["owner"]) == ("203.0.113.7", "import:denyhosts")
    assert "192.0.2.0/24" in (place.data / ALLOWLIST_FILE).read_text()
    assert "203.0.113.7" in place.hosts_deny.read_text()
    assert place.run("block", "import", "denyhosts", denyhosts.parent / "none").code == 2
    assert place.run("block", "import", "denyhosts", denyhosts, "--timezone", "Nowhere/Town").code == 2

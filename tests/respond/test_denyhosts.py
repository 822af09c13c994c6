from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.respond.parts import HOUR, Bench

from vedette.model.clock import DAY, SECOND
from vedette.model.decisions import DecisionState
from vedette.model.errors import ConfigError
from vedette.model.reasons import RefusalReason
from vedette.respond.allowlist import Entry, Guard
from vedette.respond.denyhosts import NEVER, NoteKind, parse_allowed, parse_span, read_installation
from vedette.respond.settings import RespondSettings
from vedette.text.times import parse_rfc3339

SINCE = parse_rfc3339("2014-12-16T11:24:15Z")


class Installation:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.conf = folder / "denyhosts.conf"
        self.conf.write_text("PURGE_DENY = 1w\n")
        (folder / "hosts.deny").write_text("")

    def state(self, name: str, text: str) -> None:
        (self.work / name).write_text(text)

    def read(self, now: int = SINCE + DAY, **options):
        options = {"work_dir": self.work, "hosts_deny": self.folder / "hosts.deny", **options}
        return read_installation(self.conf, now, host_id="h", **options)


@pytest.fixture
def installation(tmp_path):
    return Installation(tmp_path)


def notes(found, kind=None):
    return [str(note) for note in found.notes if kind in (None, note.kind)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5d", 432_000), ("1w", 604_800), ("30s", 30), ("2m", 120), ("1y", 31_536_000), ("90", 90), ("", 0), ("1M", 0)],
)
def test_spans(text, seconds):
    assert parse_span(text) == seconds * SECOND


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_range_allows_exactly_its_addresses(first, last):
    text = f"192.0.2.[{first}-{last}]"
    if first > last:
        with pytest.raises(ValueError):
            parse_allowed(text)
        return
    addresses = [address for network in parse_allowed(text) for address in network]
    assert addresses == [ip_address(f"192.0.2.{n}") for n in range(first, last + 1)]


@pytest.mark.parametrize("text", ["localhost", "192.0.2.[1-300]", "192.0.*.*", "192.0.2.[20]", "*", "1.2.3.*x"])
def test_what_is_no_allowed_host(text):
    with pytest.raises(ValueError):
        parse_allowed(text)


def test_allowed_hosts(installation):
    installation.state("allowed-hosts", "# ours\n192.0.2.1\n198.51.100.*\n203.0.113.[4-7]\noffice.example\n\n")
    found = installation.read()
    assert [str(entry.network) for entry in found.allowlist] == ["192.0.2.1/32", "198.51.100.0/24", "203.0.113.4/30"]
    assert found.allowlist[1].comment == "DenyHosts allowed-hosts: 198.51.100.*"
    assert any("allowed-hosts:5: no-equal: office.example" in note for note in notes(found))


def test_settings(installation):
    installation.conf.write_text(
        "# DenyHosts\nSECURE_LOG = /var/log/auth.log\nHOSTS_DENY=/etc/hosts.deny\nPURGE_DENY = 5d\n"
        "BLOCK_SERVICE  = sshd\nDENY_THRESHOLD_INVALID = 3\nDENY_THRESHOLD_VALID = 7\nDENY_THRESHOLD_ROOT = 2\n"
        "ADMIN_EMAIL = root@localhost\nSMTP_PASSWORD = hunter2\nAGE_RESET_VALID=5d\nSYNC_DOWNLOAD = yes\n"
        "SYNC_UPLOAD = no\nPLUGIN_DENY=/usr/bin/evil\nLOCK_FILE = /run/x\nTYPO_KEY = 1\nnonsense\n"
    )
    found = installation.read()
    assert found.settings["rules"] == {"ssh": {"attempts": {"unknown_user": 3, "known_user": 7, "root": 2}}}
    blocking = RespondSettings.model_validate(found.settings["blocking"])
    assert blocking.enforcers == ("nftables", "hosts_deny")
    assert (blocking.hosts_deny.path, blocking.hosts_deny.service) == ("/etc/hosts.deny", "sshd")
    assert found.lease == 5 * DAY
    assert found.mail == {"to": "root@localhost"}
    assert found.log_files == ["/var/log/auth.log"]
    said = "\n".join(notes(found))
    for text in (
        ":11: no-equal: AGE_RESET_VALID",
        ":12: no-equal: SYNC_DOWNLOAD",
        ":14: no-equal: PLUGIN_DENY",
        ":15: not-needed: LOCK_FILE",
        ":16: unreadable: TYPO_KEY",
        ":17: unreadable: no NAME = value: nonsense",
    ):
        assert f"denyhosts.conf{text}" in said
    assert "hunter2" not in said + repr(found)
    assert "SYNC_UPLOAD" not in said


@pytest.mark.parametrize(("value", "kind"), [("", NoteKind.CHANGED), ("soon", NoteKind.UNREADABLE)])
def test_a_block_that_never_ended_ends_now(installation, value, kind):
    installation.conf.write_text(f"PURGE_DENY = {value}\nHOSTS_DENY=/dev/null\nDENY_THRESHOLD_ROOT = x\n")
    found = installation.read()
    assert found.lease == NEVER
    assert any("PURGE_DENY" in note for note in notes(found, kind))
    assert any("DENY_THRESHOLD_ROOT" in note for note in notes(found, NoteKind.UNREADABLE))
    assert found.settings == {"blocking": {"enforcers": ["nftables"]}}


HOSTS_DENY = """\
# a comment
ALL: 192.0.2.200
# DenyHosts: Tue Dec 16 11:24:15 2014 | sshd: 198.51.100.7
sshd: 198.51.100.7
# DenyHosts: Tue Dec 16 11:24:16 2014 | sshd: 198.51.100.7
# DenyHosts: Tue Dec  9 11:24:15 2014 | sshd: 198.51.100.8
sshd: 198.51.100.8
# DenyHosts: Tue Dec 16 11:24:15 2014 | 198.51.100.9
198.51.100.9
# DenyHosts: Tue Dec 16 11:24:15 2014 | ALL: [2001:db8::7]
ALL: [2001:db8::7]
# DenyHosts: Tue Dec 16 11:24:15 2014 | sshd: \x1b[2Jevil.example
# DenyHosts: yesterday | sshd: 198.51.100.10
# DenyHosts: Tue Feb 31 11:24:15 2014 | sshd: 198.51.100.11
"""


def test_blocks_keep_what_is_left_of_their_lease(installation):
    (installation.folder / "hosts.deny").write_text(HOSTS_DENY)
    installation.state("purge-history", "198.51.100.9:2:Tue Dec 16 11:24:15 2014\nbad\nhost:1:x\n")
    found = installation.read()
    by_target = {one.target.value: one for one in found.decisions}
    assert by_target.keys() == {"198.51.100.7", "198.51.100.9", "2001:db8::7"}
    # Marked twice: the longer lease wins.
    assert by_target["198.51.100.7"].expires_at == SINCE + 7 * DAY + SECOND
    assert by_target["198.51.100.9"].offence == 3
    assert {one.owner for one in found.decisions} == {"import:denyhosts"}
    assert by_target["2001:db8::7"].starts_at == SINCE
    assert found.ended == 1
    said = "\n".join(notes(found))
    assert "\x1b" not in said
    for text in ("hosts.deny:12: unreadable", "hosts.deny:13: unreadable", "hosts.deny:14: unreadable"):
        assert text in said
    assert "1 lines are not DenyHosts'" in said
    assert "purge-history:2: unreadable" in said
    assert "purge-history:3: unreadable: not an address: host" in said


def test_dates_are_read_in_the_host_s_zone_and_never_lengthen_a_lease(installation):
    (installation.folder / "hosts.deny").write_text("# DenyHosts: Tue Dec 16 11:24:15 2014 | sshd: 198.51.100.7\n")
    (there,) = installation.read(timezone="Europe/Berlin").decisions
    assert there.starts_at == SINCE - HOUR
    (early,) = installation.read(now=SINCE - HOUR).decisions
    assert early.expires_at == SINCE - HOUR + 7 * DAY


def test_state_is_told_by_number(installation):
    installation.state("hosts", "198.51.100.7:3:Tue Dec 16 11:24:15 2014\n198.51.100.8:0:Tue Dec 16 11:24:15 2014\n")
    installation.state("users-invalid", "admin:3:Tue Dec 16 11:24:15 2014\n")
    installation.state("restricted-usernames", "# comment\nhost1\n host2\t\n")
    said = "\n".join(notes(installation.read(), NoteKind.NO_EQUAL))
    assert "hosts: no-equal: 1 entries: failures counted" in said
    assert "users-invalid: no-equal: 1 entries" in said
    assert "host1, host2" in said


def test_no_installation_is_an_error_and_a_missing_hosts_deny_is_told(installation):
    (installation.folder / "hosts.deny").unlink()
    assert any("hosts.deny: unreadable" in note for note in notes(installation.read()))
    installation.conf.unlink()
    with pytest.raises(ConfigError, match=r"denyhosts\.conf: cannot read"):
        installation.read()


def test_adopting_keeps_floor_allowlist_and_the_longer_lease(installation):
    (installation.folder / "hosts.deny").write_text(
        "".join(
            f"# DenyHosts: Tue Dec 16 11:24:15 2014 | sshd: {one}\n"
            for one in ("198.51.100.7", "198.51.100.8", "198.51.100.9", "127.0.0.1", "192.0.2.1")
        )
    )
    now = SINCE + DAY
    bench = Bench(guard=Guard([ip_network("192.0.2.1")], [Entry(ip_network("198.51.100.9"))]))
    bench.run("block", "198.51.100.8", HOUR, "why", "alice", now=now)
    outcome = bench.run("adopt", installation.read().decisions, now=now)
    active = bench.store.active
    assert active.keys() == {"198.51.100.7", "198.51.100.8"}
    assert active["198.51.100.8"].owner == "operator:alice"
    assert active["198.51.100.8"].expires_at == SINCE + 7 * DAY
    assert {one.target.value for one in outcome.enforce} == active.keys()
    assert [one.reason for one in outcome.refusals] == [
        RefusalReason.ALREADY_ACTIVE,
        RefusalReason.ALLOWLISTED,
        RefusalReason.HARD_FLOOR,
        RefusalReason.HARD_FLOOR,
    ]
    bench.run("expire", now=SINCE + 7 * DAY)
    assert bench.store.of(DecisionState.EXPIRED).keys() == active.keys()


@pytest.mark.corpus
def test_the_configuration_and_state_people_have(corpus, tmp_path):
    folder = corpus / "denyhosts"
    samples = folder / "state-samples"
    found = read_installation(
        folder / "denyhosts.conf",
        SINCE,
        host_id="h",
        work_dir=samples,
        hosts_deny=samples / "migrate" / "hosts.deny.template",
    )
    assert found.settings["rules"] == {"ssh": {"attempts": {"unknown_user": 5, "known_user": 10, "root": 1}}}
    RespondSettings.model_validate(found.settings["blocking"])
    assert found.mail["to"] == "root@localhost"
    # 127.0.0.1, 172.16.0.1, 192.168.1.*, 1.1.1.[20-40]; the rest are names and a comment.
    networks = {str(entry.network) for entry in found.allowlist}
    assert {"127.0.0.1/32", "172.16.0.1/32", "192.168.1.0/24"} <= networks
    inside = {str(address) for entry in found.allowlist for address in entry.network if str(address)[:6] == "1.1.1."}
    assert inside == {f"1.1.1.{n}" for n in range(20, 41)}
    unresolved = [note for note in found.notes if "names are never resolved" in note.text and note.location.line]
    assert [note.text.split(":")[0] for note in unresolved if "allowed-hosts" in note.location.file] == [
        "hostname",
        "localhost",
    ]
    assert not found.decisions
    assert any("1 lines are not DenyHosts'" in note.text for note in found.notes)
    assert not [note for note in found.notes if note.kind is NoteKind.UNREADABLE]

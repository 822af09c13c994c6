from __future__ import annotations

import os
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.respond.parts import HOUR, NOW

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.model.errors import EnforcementError
from vedette.respond import hosts_deny
from vedette.respond.hosts_deny import HostsDenyEnforcer, Parts, parse_pattern, pattern, put_together, take_apart

NETWORKS = [ip_network(text) for text in ("198.51.100.7", "203.0.113.0/24", "2001:db8::7", "2001:db8:1::/64")]


def block(text: str, lease: int = HOUR) -> Decision:
    kind = TargetKind.PREFIX if "/" in text else TargetKind.ADDRESS
    return Decision(text, Target(kind, text), "h", "operator:test", "test", NOW, NOW + lease)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "hosts.deny"


@pytest.fixture
def enforcer(file):
    return HostsDenyEnforcer(file)


@pytest.mark.parametrize(
    ("network", "written"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.0/24", "203.0.113.0/255.255.255.0"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("2001:db8:1::/64", "[2001:db8:1::]/64"),
    ],
)
def test_patterns_of_hosts_access(network, written):
    assert pattern(ip_network(network)) == written
    assert parse_pattern(written) == ip_network(network)


foreign = st.lists(
    st.sampled_from(
        [b"ALL: PARANOID", b"# note", b"", b"sshd: 192.0.2.9", b"in.ftpd: ALL \\", b"\xff\x00", b"x\r", b" ", b"\\"]
    )
).map(b"\n".join)


@given(foreign, st.sampled_from([b"", b"\n", b"\r\n", b"\\", b"\\\n", b"\n\n"]), st.sets(st.sampled_from(NETWORKS)))
def test_others_bytes_come_back_and_ours_stand_on_lines_of_their_own(text, tail, networks):
    before = text + tail
    made = put_together(take_apart(before, "f"), networks, "sshd")
    again = take_apart(made, "f")
    assert set(again.ours or ()) == networks
    assert put_together(again, networks, "sshd") == made
    # Lifting all gives back exactly the file that was there.
    assert put_together(again, [], "sshd") == before
    if networks:
        # libwrap joins a line that ends in a backslash with the next: ours must not be swallowed.
        joined = made.replace(b"\\\n", b"")
        for network in networks:
            assert f"\nsshd: {pattern(network)}\n".encode() in joined
        assert b"\n# BEGIN vedette" in b"\n" + joined


@given(foreign)
def test_lines_added_after_ours_stay_there(text):
    made = put_together(take_apart(b"ALL: PARANOID\n", "f"), NETWORKS, "sshd") + text
    parts = take_apart(made, "f")
    assert parts == Parts(b"ALL: PARANOID\n", tuple(sorted(NETWORKS, key=hosts_deny._order)), text)
    assert put_together(parts, [], "sshd") == b"ALL: PARANOID\n" + text


def test_add_remove_and_sync(file, enforcer):
    file.write_bytes(b"# old\nALL: 192.0.2.9")
    enforcer.add([block("2001:db8::7"), block("198.51.100.7"), block("203.0.113.0/24"), block("192.0.2.1", 0)], NOW)
    assert file.read_text() == (
        "# old\nALL: 192.0.2.9\n"
        "# BEGIN vedette: written by vedette, changes up to END are lost (1)\n"
        "sshd: 198.51.100.7\nsshd: 203.0.113.0/255.255.255.0\nsshd: [2001:db8::7]\n"
        "# END vedette\n"
    )
    enforcer.remove([block("198.51.100.7").target, block("192.0.2.9").target])
    assert b"198.51.100.7" not in file.read_bytes()
    assert b"ALL: 192.0.2.9\n" in file.read_bytes()
    # Expiry: what has ended is not active any more.
    assert enforcer.sync([block("203.0.113.0/24"), block("2001:db8::7", -1)], NOW) == 1
    assert enforcer.sync([block("203.0.113.0/24")], NOW) == 0
    assert enforcer.sync([], NOW) == 1
    assert file.read_bytes() == b"# old\nALL: 192.0.2.9"


def test_a_file_that_is_not_there_is_made_readable_for_all(file, enforcer):
    enforcer.remove([block("198.51.100.7").target])
    assert not file.exists()
    enforcer.add([block("198.51.100.7")], NOW)
    assert file.stat().st_mode & 0o7777 == 0o644


def test_crlf_of_others_stays_and_ours_has_none(file, enforcer):
    file.write_bytes(b"ALL: PARANOID\r\n")
    enforcer.add([block("198.51.100.7")], NOW)
    assert file.read_bytes().startswith(b"ALL: PARANOID\r\n# BEGIN")
    assert b"sshd: 198.51.100.7\n" in file.read_bytes()


def test_mode_and_link_are_kept(tmp_path, enforcer, file):
    target = tmp_path / "real"
    target.write_bytes(b"# x\n")
    target.chmod(0o640)
    file.symlink_to("real")
    enforcer.add([block("198.51.100.7")], NOW)
    assert file.is_symlink()
    assert target.stat().st_mode & 0o7777 == 0o640
    assert b"198.51.100.7" in target.read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hosts.deny", "real"]


@pytest.mark.root
def test_owner_is_kept(file, enforcer):
    file.write_bytes(b"")
    os.chown(file, 65_534, 65_533)
    enforcer.add([block("198.51.100.7")], NOW)
    assert (file.stat().st_uid, file.stat().st_gid) == (65_534, 65_533)


@pytest.mark.parametrize(
    "damaged",
    [
        b"a\n# BEGIN vedette: (0)\nsshd: 1.2.3.4\n",
        b"a\n# END vedette\n",
        b"a\n# END vedette\n# BEGIN vedette (0)\n",
        b"a\n# BEGIN vedette (0)\n# END vedette\n# BEGIN vedette (0)\n# END vedette\n",
    ],
)
def test_damaged_marks_are_an_error_with_a_place_and_nothing_is_written(file, enforcer, damaged):
    file.write_bytes(damaged)
    with pytest.raises(EnforcementError, match=r"hosts\.deny:2: .*hint"):
        enforcer.add([block("198.51.100.7")], NOW)
    assert file.read_bytes() == damaged


def test_a_person_s_edits_inside_ours_do_not_stop_us(file, enforcer):
    file.write_bytes(b"# BEGIN vedette (0)\nsshd: 198.51.100.7\nsshd: bad.example\ngarbage\n# END vedette\n")
    enforcer.add([block("198.51.100.8")], NOW)
    assert b"sshd: 198.51.100.7\nsshd: 198.51.100.8\n# END" in file.read_bytes()
    assert b"bad.example" not in file.read_bytes()


def test_what_somebody_writes_meanwhile_is_not_lost(file, enforcer, monkeypatch):
    file.write_bytes(b"# old\n")
    calls = []

    def interrupted(parts, networks, service):
        if not calls:
            file.write_bytes(b"# old and new\n")
        calls.append(1)
        return put_together(parts, networks, service)

    monkeypatch.setattr(hosts_deny, "put_together", interrupted)
    enforcer.add([block("198.51.100.7")], NOW)
    assert len(calls) == 2
    assert file.read_bytes().startswith(b"# old and new\n# BEGIN")


def test_trouble_with_the_disk_names_the_file(tmp_path):
    enforcer = HostsDenyEnforcer(tmp_path / "none" / "hosts.deny")
    with pytest.raises(EnforcementError, match=r"hosts\.deny: cannot write: No such file.*hint"):
        enforcer.add([block("198.51.100.7")], NOW)
    with pytest.raises(EnforcementError, match="Is a directory"):
        HostsDenyEnforcer(tmp_path).sync([], NOW)

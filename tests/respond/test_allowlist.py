from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.model.errors import ConfigError
from vedette.model.reasons import RefusalReason
from vedette.respond.allowlist import (
    Entry,
    Guard,
    Networks,
    host_floor,
    parse_allowlist,
    read_allowlist,
    write_allowlist,
)


@st.composite
def networks(draw):
    # A small world, so that networks meet.
    version = draw(st.sampled_from([4, 6]))
    base = 0xC6336400 if version == 4 else 0x20010DB8 << 96
    number = base + draw(st.integers(0, 255))
    bits = 32 if version == 4 else 128
    return ip_network((number, bits - draw(st.integers(0, 9))), strict=False)


@given(st.lists(networks(), max_size=12), networks())
def test_overlaps_is_what_the_obvious_walk_says(members, asked):
    def obvious():
        return any(one.version == asked.version and one.overlaps(asked) for one in members)

    assert Networks(members).overlaps(asked) == obvious()
    grown = Networks()
    for one in members:
        grown.add(one)
    assert grown.overlaps(asked) == obvious()
    assert len(grown) == len(set(members))


def test_contains_takes_any_spelling_and_no_nonsense():
    networks = Networks([ip_network("198.51.100.0/24")])
    assert networks.contains("::ffff:198.51.100.9")
    assert not networks.contains("198.51.101.9")
    assert not networks.contains("web01.example")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "0.0.0.0/0",
        "::/0",
        "8.0.0.0/7",
        "2001::/31",
        "169.254.169.254",
        "224.0.0.251",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "192.0.2.1",
        "192.0.2.0/24",
        "192.0.0.0/8",
    ],
)
def test_floor_refuses(text):
    guard = Guard([ip_network("192.0.2.1/32")], [Entry(ip_network(text))] if text == "127.0.0.1" else [])
    assert guard.refuses(ip_network(text)) is RefusalReason.HARD_FLOOR


@pytest.mark.parametrize("text", ["198.51.100.7", "8.0.0.0/8", "2001:db8::/32", "2001:db8::7"])
def test_floor_lets_pass(text):
    assert Guard([ip_network("192.0.2.1/32")]).refuses(ip_network(text)) is None


def test_allowlist_refuses_what_lies_in_it_and_what_it_lies_in():
    guard = Guard(allowlist=[Entry(ip_network("198.51.100.0/28"), "office")])
    for text in ("198.51.100.7", "198.51.100.0/24", "198.51.100.8/29"):
        assert guard.refuses(ip_network(text)) is RefusalReason.ALLOWLISTED
    assert guard.refuses(ip_network("198.51.100.16")) is None
    assert guard.comment_for(ip_network("198.51.100.7")) == "office"


def test_floor_says_whether_it_changed():
    guard = Guard([ip_network("192.0.2.1")])
    assert not guard.set_floor({ip_network("192.0.2.1")})
    assert guard.set_floor({ip_network("192.0.2.2")})
    assert guard.refuses(ip_network("192.0.2.1")) is None


def fake_proc(root: Path) -> Path:
    net = root / "net"
    net.mkdir(parents=True)
    (net / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "     +-- 192.0.2.0/24 2 0 2\n        |-- 192.0.2.0\n           /24 link UNICAST\n"
        "        |-- 192.0.2.9\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n"
    )
    (net / "if_inet6").write_text("20010db8000000000000000000000009 02 40 00 80     eth0\nbad\n")
    (net / "route").write_text(
        "Iface\tDestination\tGateway \tFlags\n"
        "eth0\t00000000\tFE0200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    zero = "0" * 32
    (net / "ipv6_route").write_text(
        f"{zero} 00 {zero} 00 fe80000000000000000000000000abcd 00000400 00000001 00000000 00000003 eth0\n"
        f"20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n"
    )
    return root


def test_host_floor_reads_addresses_gateways_and_resolvers(tmp_path):
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("# c\nnameserver 198.51.100.53\nnameserver fe80::53%eth0\nnameserver ns.example\noptions x\n")
    assert host_floor(fake_proc(tmp_path / "proc"), resolv) == {
        ip_network(text)
        for text in ("192.0.2.9", "2001:db8::9", "192.0.2.254", "fe80::abcd", "198.51.100.53", "fe80::53")
    }


def test_host_floor_without_any_of_the_files_is_empty(tmp_path):
    assert host_floor(tmp_path, tmp_path / "none") == frozenset()


def test_host_floor_of_this_machine_has_its_loopback():
    assert any(ip_address("127.0.0.1") in one for one in host_floor() if one.version == 4)


def test_allowlist_file_round_trip(tmp_path):
    path = tmp_path / "allowlist"
    assert read_allowlist(path) == []
    entries = [Entry(ip_network("198.51.100.0/28"), "office  of\nours"), Entry(ip_network("2001:db8::1/128"))]
    write_allowlist(path, entries)
    assert read_allowlist(path) == [Entry(entries[0].network, "office of ours"), entries[1]]
    assert path.read_text() == "198.51.100.0/28  # office of ours\n2001:db8::1/128\n"


@pytest.mark.parametrize("line", ["office.example", "198.51.100.0/33", "010.0.0.1", "1.2.3.*"])
def test_allowlist_file_names_the_line(line):
    with pytest.raises(ConfigError, match=r"allowlist:3: .*hint"):
        parse_allowlist(f"# ours\n198.51.100.1\n{line}\n", "allowlist")

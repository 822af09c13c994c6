from __future__ import annotations

import errno
import struct
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.respond.parts import HOUR, NOW

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.respond import netlink
from vedette.respond.nftables import KernelSets, set_name, structure, wanted_of


def test_structure_masks_every_shorter_prefix():
    script = structure({(4, 32), (4, 24), (6, 56)}, 100)
    assert "add rule inet vedette prerouting ip saddr @v4_32 counter name dropped drop\n" in script
    assert "ip saddr & 255.255.255.0 @v4_24" in script
    assert "ip6 saddr & ffff:ffff:ffff:ff00:: @v6_56" in script
    assert "hook prerouting priority -300" in script
    assert script.count("size 100;") == 3


def test_wanted_takes_the_longest_lease_and_leaves_users_out():
    def decision(kind, value, end):
        return Decision(value, Target(kind, value), "h", "o", "r", NOW, end)

    assert wanted_of(
        [
            decision(TargetKind.ADDRESS, "198.51.100.7", NOW + HOUR),
            decision(TargetKind.ADDRESS, "198.51.100.7", NOW + 2 * HOUR),
            decision(TargetKind.ADDRESS, "198.51.100.8", NOW),
            decision(TargetKind.USER, "root", NOW + HOUR),
        ],
        NOW,
    ) == {ip_network("198.51.100.7"): NOW + 2 * HOUR}


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=10))
def test_attributes_read_what_was_written(pairs):
    assert list(netlink.attributes(b"".join(netlink._attribute(*pair) for pair in pairs))) == pairs


@given(st.binary(max_size=200))
def test_attributes_and_messages_end_on_any_bytes(data):
    assert len(list(netlink.attributes(data))) <= len(data) // 4
    assert len(list(netlink.messages(data))) <= len(data) // 16


class FakeSocket:
    """Takes what is sent and answers each message that wants an acknowledgement with the next code."""

    def __init__(self, codes):
        self.codes, self.sent, self.waiting = codes, [], b""

    def sendto(self, data, address):
        self.sent.append(data)
        for kind, flags, sequence, _, _ in netlink.messages(data):
            if flags & netlink.NLM_F_ACK:
                body = struct.pack("=i", -self.codes.pop(0)) + struct.pack("=IHHII", 16, kind, flags, sequence, 0)
                self.waiting += netlink._HEADER.pack(16 + len(body), netlink.NLMSG_ERROR, 0, sequence, 0) + body

    def recv(self, size):
        answer, self.waiting = self.waiting, b""
        return answer


@pytest.fixture
def netfilter():
    made = netlink.Netfilter("vedette")
    made.close()
    return made


def test_ten_thousand_elements_are_one_transaction(netfilter):
    fake = netfilter._socket = FakeSocket([0] * 10)
    keys = [(struct.pack(">I", 0x0A000000 + n), 60_000) for n in range(10_000)]
    netfilter.change([netlink.Change(netlink.NEWSETELEM, "v4_32", keys)])
    (data,) = fake.sent
    kinds = [kind for kind, *_ in netlink.messages(data)]
    assert kinds == [netlink.BATCH_BEGIN, *[netlink.NFNL_SUBSYS_NFTABLES << 8 | 12] * 10, netlink.BATCH_END]
    found = []
    for _, _, _, _, body in list(netlink.messages(data))[1:-1]:
        listed = dict(netlink.attributes(body[4:]))[3]
        found += [dict(netlink.attributes(one)) for _, one in netlink.attributes(listed)]
    assert [next(iter(netlink.attributes(one[1])))[1] for one in found] == [key for key, _ in keys]
    assert {one[netlink.NFTA_ELEM_TIMEOUT] for one in found} == {struct.pack(">Q", 60_000)}


@pytest.mark.parametrize("codes", [[errno.ENFILE, 0, 0], [0, 0, errno.ENOENT], [0, errno.EPERM, errno.ENOENT]])
def test_the_first_error_of_a_batch_is_raised(netfilter, codes):
    netfilter._socket = FakeSocket(list(codes))
    change = netlink.Change(netlink.NEWSETELEM, "v4_32", [(b"\1\2\3\4", 1)])
    with pytest.raises(OSError) as raised:
        netfilter.change([change] * 3)
    assert raised.value.errno == next(code for code in codes if code)


def test_nothing_to_change_sends_nothing(netfilter):
    fake = netfilter._socket = FakeSocket([])
    netfilter.change([])
    assert fake.sent == []


def test_a_longer_lease_there_is_left_alone():
    sets = KernelSets.__new__(KernelSets)  # no kernel: reaching for it would be an AttributeError
    sets.known = {ip_network("198.51.100.7"): NOW + HOUR}
    sets.add({ip_network("198.51.100.7"): NOW + HOUR - 1, ip_network("198.51.100.8"): NOW}, NOW)
    assert sets.known == {ip_network("198.51.100.7"): NOW + HOUR}


def test_set_names():
    assert set_name((6, 64)) == "v6_64"

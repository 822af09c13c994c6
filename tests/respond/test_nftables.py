"""Real nftables and TCP in network namespaces.
Counterpart: test_netlink.py, which needs no kernel."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
from tests.respond.parts import HOUR
from tests.scenarios.parts.netns import ATTACKER, ATTACKER6, LEGITIMATE, LEGITIMATE6, SERVER, SERVER6, NetLab
from tests.scenarios.parts.processes import PartError

from vedette.model.decisions import Decision, Target, TargetKind
from vedette.model.errors import EnforcementError
from vedette.respond.frames import Add, List, Sync
from vedette.respond.helper_enforcer import HelperEnforcer
from vedette.respond.nftables import KernelSets, NftablesEnforcer, length_of, set_name

pytestmark = pytest.mark.root
SECOND = 1_000_000
CLONE_NEWNET = 0x40000000


def now() -> int:
    return time.time_ns() // 1000


def block(text: str, lease: int = HOUR) -> Decision:
    network = ip_network(text)
    kind = TargetKind.ADDRESS if network.prefixlen == network.max_prefixlen else TargetKind.PREFIX
    return Decision(text, Target(kind, text), "h", "operator:test", "test", now(), now() + lease)


def until(what: str, holds: Callable[[], bool], limit: float = 15.0) -> None:
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread in another network namespace: sockets made here stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{name}").open() as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


class Net:
    """The usual pair of namespaces with a TCP service in one of them."""

    def __init__(self, folder: Path) -> None:
        self.lab = NetLab(folder)
        self.wire = self.lab.wire()
        self.sockets = contextlib.ExitStack()
        self.enforcers: list[HelperEnforcer] = []
        self.port = 2222
        with inside(self.wire.server.name):
            self.service = self.listen("::", self.port)
        # All these people share one neighbour entry: it must not be resolved for the first time by a blocked one.
        for source in (LEGITIMATE, LEGITIMATE6):
            self.connect(source).close()
            self.service.accept()[0].close()

    def listen(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        service = self.sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind((address, port))
        service.listen(100)
        return service

    def connect(self, source: str, *, port: int = 0, wait: float = 5.0) -> socket.socket:
        """A connection from `source`, or TimeoutError."""
        server = SERVER6 if ":" in source else SERVER
        with inside(self.wire.world.name):
            client = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM)
        self.sockets.enter_context(client)
        client.settimeout(wait)
        client.bind((source, 0))
        client.connect((server, port or self.port))
        return client

    def reaches(self, source: str, *, port: int = 0) -> bool:
        try:
            self.connect(source, port=port, wait=0.4).close()
        except TimeoutError:
            return False
        return True

    def helper(self, **settings) -> HelperEnforcer:
        made = HelperEnforcer(prefix=["ip", "netns", "exec", self.wire.server.name], **settings)
        self.enforcers.append(made)
        return made

    def nft(self, *arguments: str) -> str:
        return self.wire.server.run(["nft", *arguments])

    def elements(self, name: str = "v4_32") -> dict[str, dict]:
        """What the kernel has, asked with another program than ours."""
        try:
            listed = json.loads(self.nft("-j", "list", "set", "inet", "vedette", name))
        except PartError:
            return {}
        found = listed["nftables"][1]["set"].get("elem", [])
        return {one["elem"]["val"]: one["elem"] for one in found}

    def close(self) -> None:
        for enforcer in self.enforcers:
            enforcer.close()
        self.sockets.close()
        self.lab.close()


@pytest.fixture
def net(tmp_path) -> Iterator[Net]:
    made = Net(tmp_path)
    try:
        yield made
    finally:
        made.close()


# ---------------------------------------------------------------------------------------------- drops
def test_blocked_is_refused_and_counted_and_others_are_unharmed(net):
    helper = net.helper()
    assert net.reaches(ATTACKER)
    helper.add([block(ATTACKER), block(ATTACKER6)], now())
    assert not net.reaches(ATTACKER)
    assert not net.reaches(ATTACKER6)
    assert net.reaches(LEGITIMATE)
    assert net.reaches(LEGITIMATE6)
    counters = helper.counters()
    assert counters.targets.keys() == {ATTACKER, ATTACKER6}
    assert counters.targets[ATTACKER][0] > 0
    assert counters.packets == sum(packets for packets, _ in counters.targets.values()) > 0
    assert counters.bytes >= 40 * counters.packets
    helper.remove([block(ATTACKER).target, block("203.0.113.1").target])
    assert net.reaches(ATTACKER)
    assert not net.reaches(ATTACKER6)


@pytest.mark.parametrize("crowd", [0, 20], ids=["filtered by the kernel", "listed once"])
def test_an_established_connection_is_dropped_and_ended(net, crowd):
    helper = net.helper()
    clients = {source: net.connect(source) for source in (ATTACKER, ATTACKER6, LEGITIMATE)}
    peers = {}
    for _ in clients:
        peer, address = net.service.accept()
        net.sockets.enter_context(peer)
        peers[address[0].removeprefix("::ffff:")] = peer
    helper.add([block(ATTACKER), block("2001:db8:7::/64"), *(block(f"203.0.113.{n}") for n in range(crowd))], now())
    for source in (ATTACKER, ATTACKER6):
        with pytest.raises(ConnectionAbortedError):
            peers[source].recv(1)
        # The peer is told (what we send is not dropped), so nothing resumes when the lease ends.
        with pytest.raises(ConnectionResetError):
            clients[source].recv(1)
    peers[LEGITIMATE].sendall(b"still here")
    assert clients[LEGITIMATE].recv(10) == b"still here"


def test_without_ending_a_connection_stalls_and_resumes(net):
    helper = net.helper(end_connections=False)
    client = net.connect(ATTACKER)
    peer, _ = net.service.accept()
    net.sockets.enter_context(peer)
    helper.add([block(ATTACKER)], now())
    before = helper.counters().packets
    client.sendall(b"x")
    until("the packet was counted", lambda: helper.counters().packets > before)
    assert select.select([peer], [], [], 0)[0] == []
    helper.remove([block(ATTACKER).target])
    peer.settimeout(15)
    assert peer.recv(1) == b"x"


def test_a_published_port_is_dropped_before_dnat(net):
    container = net.lab.namespace()
    net.lab.link(net.wire.server, container, ["10.88.0.1/24"], ["10.88.0.2/24"])
    container.ip("route", "add", "default", "via", "10.88.0.1")
    net.wire.server.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    net.wire.server.run(
        ["nft", "-f", "-"],
        stdin="table ip published {\n chain pre { type nat hook prerouting priority dstnat;\n"
        "  tcp dport 8080 dnat to 10.88.0.2:80\n }\n}\n",
    )
    with inside(container.name):
        net.listen("10.88.0.2", 80)
    assert net.reaches(ATTACKER, port=8080)
    helper = net.helper()
    helper.add([block(ATTACKER)], now())
    assert not net.reaches(ATTACKER, port=8080)
    assert net.reaches(LEGITIMATE, port=8080)
    assert helper.counters().targets[ATTACKER][0] > 0


def test_prefixes_drop_all_in_them_and_nothing_beside_them(net):
    other = ATTACKER6.rsplit(":", 1)[0] + ":abcd"
    net.wire.world.ip("address", "add", f"{other}/128", "dev", net.wire.world_device, "nodad")
    helper = net.helper()
    helper.add([block("2001:db8:7::/64"), block("198.51.0.0/16"), block("2001:db8:7700::/40")], now())
    assert not net.reaches(ATTACKER6)
    assert not net.reaches(other)
    assert not net.reaches(ATTACKER)
    assert net.reaches(LEGITIMATE)
    assert net.reaches(LEGITIMATE6)
    assert set(helper.blocked()) == {"2001:db8:7::/64", "198.51.0.0/16", "2001:db8:7700::/40"}
    assert list(net.elements("v4_16")) == ["198.51.0.0"]
    assert list(net.elements("v6_40")) == ["2001:db8:7700::"]


def test_a_lease_ends_by_itself_and_a_longer_one_wins(net):
    helper = net.helper()
    helper.add([block(ATTACKER, SECOND // 2), block(LEGITIMATE, SECOND // 2)], now())
    helper.add([block(LEGITIMATE, HOUR)], now())
    helper.add([block(LEGITIMATE, SECOND)], now())
    until("the short lease ended", lambda: ATTACKER not in net.elements())
    assert net.reaches(ATTACKER)
    assert not net.reaches(LEGITIMATE)
    assert 3500 < net.elements()[LEGITIMATE]["expires"] <= 3600
    # Both of what ended by itself and what is there: no error, nothing left.
    helper.remove([block(ATTACKER).target, block(LEGITIMATE).target])
    assert net.elements() == {}
    helper.add([block(ATTACKER)], now())
    assert list(net.elements()) == [ATTACKER]


# ---------------------------------------------------------------------------------------------- keeping it so
BREAKAGES = {
    "flush ruleset": ["flush", "ruleset"],
    "delete table": ["delete", "table", "inet", "vedette"],
    "flush chain": ["flush", "chain", "inet", "vedette", "prerouting"],
    "flush set": ["flush", "set", "inet", "vedette", "v4_32"],
    "delete element": ["delete", "element", "inet", "vedette", "v4_32", "{", ATTACKER, "}"],
    "accept first": ["insert", "rule", "inet", "vedette", "prerouting", "accept"],
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_somebody_breaks_is_remade(net, breakage):
    helper = net.helper()
    helper.add([block(ATTACKER), block("2001:db8:7::/64"), block("203.0.113.0/24")], now())
    rules = net.nft("list", "chain", "inet", "vedette", "prerouting")
    net.nft(*BREAKAGES[breakage])

    def whole() -> bool:
        with contextlib.suppress(PartError):
            return (
                net.nft("list", "chain", "inet", "vedette", "prerouting") == rules
                and list(net.elements()) == [ATTACKER]
                and list(net.elements("v6_64")) == ["2001:db8:7::"]
                and list(net.elements("v4_24")) == ["203.0.113.0"]
            )
        return False

    until("the table is whole again", whole)
    assert not net.reaches(ATTACKER)
    helper.ping()


def test_sync_makes_the_kernel_exactly_what_is_active(net):
    helper = net.helper()
    kept, gone, shorter = block(ATTACKER), block("203.0.113.1"), block("203.0.113.2", 3 * HOUR)
    helper.add([kept, gone, shorter], now())
    net.nft("add", "element", "inet", "vedette", "v4_32", "{ 203.0.113.77 timeout 1h }")
    shorter.expires_at = now() + HOUR
    assert helper.sync([kept, shorter, block("2001:db8::1")], now()) >= 3
    assert set(net.elements()) == {ATTACKER, "203.0.113.2"}
    assert net.elements()["203.0.113.2"]["expires"] <= 3600
    assert list(net.elements("v6_128")) == ["2001:db8::1"]
    assert helper.sync([kept, shorter, block("2001:db8::1")], now()) == 0
    assert helper.sync([], now()) == 3
    assert helper.blocked() == {}


def test_a_new_helper_takes_over_what_the_last_one_left(net):
    first = net.helper()
    first.add([block(ATTACKER), block("203.0.113.0/24")], now())
    first.close()
    assert not net.reaches(ATTACKER)
    second = net.helper()
    found = second.blocked()
    assert found.keys() == {ATTACKER, "203.0.113.0/24"}
    assert all(abs(end - now() - HOUR) < 60 * SECOND for end in found.values())
    # Another size: the table is made anew, with nothing lost after the sync.
    second.close()
    third = net.helper(size=32)
    third.sync([block(ATTACKER)], now())
    assert list(net.elements()) == [ATTACKER]
    assert "size 32" in net.nft("list", "set", "inet", "vedette", "v4_32")


def test_a_full_set_takes_what_fits_and_says_what_to_do(net):
    helper = net.helper(size=16)
    with pytest.raises(EnforcementError, match=r"nftables\.size"):
        helper.add([block(f"203.0.113.{n}") for n in range(20)], now())
    there = net.elements()
    assert len(there) == 16
    helper.remove([block(one).target for one in list(there)[:4]])
    rest = [one for one in (f"203.0.113.{n}" for n in range(20)) if one not in there]
    helper.add([block(one) for one in rest], now())
    assert set(rest) <= net.elements().keys()


def test_ten_thousand_adds_are_one_message_each(net, monkeypatch):
    with inside(net.wire.server.name):
        sets = KernelSets()
        try:
            sets.open(now())
            sent, programs = [], []
            change = sets._netfilter.change
            monkeypatch.setattr(sets._netfilter, "change", lambda changes: (sent.append(changes), change(changes)))
            monkeypatch.setattr(sets._netfilter, "_dump", lambda *_: pytest.fail("the set is read back on an add"))
            monkeypatch.setattr("vedette.respond.nftables.run", lambda *_, **__: programs.append(1))
            for n in range(10_000):
                sets.add({ip_network(0x0A000000 + n): now() + HOUR}, now())
            assert {sum(len(one.elements) for one in changes) for changes in sent} == {1}
            assert len(sent) == 10_000
            assert programs == []
            monkeypatch.undo()
            assert len(sets._netfilter.elements(set_name(length_of(ip_network("10.0.0.0"))))) == 10_000
            assert sets.mend(now()) == 0
        finally:
            sets.close()


def test_in_one_process_with_the_privilege(net):
    with inside(net.wire.server.name):
        enforcer = NftablesEnforcer(now())
        try:
            client = net.connect(ATTACKER)
            enforcer.add([block(ATTACKER)], now())
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            enforcer.watch(now())
            assert enforcer.watch(now()) == 0
            net.nft("flush", "ruleset")
            assert enforcer.watch(now()) > 0
            assert list(net.elements()) == [ATTACKER]
            assert enforcer.sync([], now()) == 1
            enforcer.add([block(ATTACKER)], now())
            enforcer.remove([block(ATTACKER).target])
            assert enforcer.counters().targets == {}
        finally:
            enforcer.close()


# ---------------------------------------------------------------------------------------------- the helper
def worker_of(helper: HelperEnforcer) -> int:
    children = Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def test_the_helper_holds_one_capability_and_nothing_else(net):
    helper = net.helper(uid=65_533, gid=65_532)
    until("a worker", lambda: worker_of(helper) != 0)
    for pid in (helper.pid, worker_of(helper)):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 1 << 12, name
        assert status["Uid"].split() == ["65533"] * 4
        assert status["Gid"].split() == ["65532"] * 4
        assert status["Groups"].split() == []
        assert status["NoNewPrivs"] == "1"


def test_the_helper_gets_no_secret_from_the_environment(net, monkeypatch):
    monkeypatch.setenv("PAGER_KEY", "hunter2")
    helper = net.helper()
    assert b"hunter2" not in Path(f"/proc/{helper.pid}/environ").read_bytes()


def test_a_killed_worker_is_an_error_once_and_then_all_is_as_before(net):
    helper = net.helper()
    helper.add([block(ATTACKER)], now())
    killed = worker_of(helper)
    os.kill(killed, signal.SIGKILL)
    until("another worker", lambda: worker_of(helper) not in (0, killed))
    with pytest.raises(EnforcementError, match="died and was started again"):
        helper.add([block("203.0.113.1")], now())
    assert helper.sync([block(ATTACKER), block("203.0.113.1")], now()) <= 1
    assert set(helper.blocked()) == {ATTACKER, "203.0.113.1"}
    assert not net.reaches(ATTACKER)


def test_a_killed_helper_is_an_error_and_then_started_anew(net):
    helper = net.helper()
    helper.add([block(ATTACKER)], now())
    worker, first = worker_of(helper), helper.pid
    os.kill(first, signal.SIGKILL)
    until("its worker ends too", lambda: not alive(worker))
    with pytest.raises(EnforcementError, match="hint"):
        helper.add([block("203.0.113.1")], now())
    until("a new helper", lambda: pings(helper))
    assert helper.pid not in (0, first)
    assert list(helper.blocked()) == [ATTACKER]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def pings(helper: HelperEnforcer) -> bool:
    try:
        helper.ping()
    except EnforcementError:
        return False
    return True


def test_the_helper_dies_with_its_parent(net):
    program = (
        "import sys, time\nfrom vedette.respond.helper_enforcer import HelperEnforcer\n"
        "h = HelperEnforcer()\nprint(h.pid, flush=True)\ntime.sleep(100)\n"
    )
    argv = net.wire.server.argv([sys.executable, "-c", program])
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        helper = int(parent.stdout.readline())
        assert alive(helper)
        parent.kill()
    until("the helper ends", lambda: not alive(helper))


def test_a_hung_helper_is_not_waited_for(net, monkeypatch):
    monkeypatch.setattr("vedette.respond.helper_enforcer._TIMEOUT", 0.05)
    monkeypatch.setattr("vedette.respond.helper_enforcer._END_TIMEOUT", 0.05)
    helper = net.helper()
    hung = (helper.pid, worker_of(helper))
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    helper.close()
    assert helper.pid == 0
    os.kill(hung[1], signal.SIGCONT)
    until("both are gone", lambda: not any(alive(pid) for pid in hung))


def test_the_helper_checks_every_address_itself(net):
    helper = net.helper(floor=["198.18.0.0/15"])
    refused = ["127.0.0.1", SERVER, SERVER6, LEGITIMATE, "192.0.0.0/16", "0.0.0.0/0"]
    with pytest.raises(EnforcementError, match="hard floor"):
        helper.add([block(one) for one in [*refused, ATTACKER]], now())
    assert list(helper.blocked()) == [ATTACKER]
    with pytest.raises(EnforcementError, match="hard floor"):
        helper.sync([block(LEGITIMATE), block(ATTACKER)], now())
    assert list(helper.blocked()) == [ATTACKER]
    for text in ("::ffff:198.51.100.8", "198.51.100.8/32", "198.051.100.8", "x; flush ruleset", ""):
        with pytest.raises(EnforcementError, match="refused by the kernel helper"):
            helper._ask(Add, now(), [(text, now() + HOUR)])
    assert list(helper.blocked()) == [ATTACKER]


def test_the_helper_knows_the_allowlist_and_keeps_it_when_its_worker_dies(net):
    helper = net.helper(override_longest=HOUR)
    customers = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
    helper.allow([*customers, "203.0.113.0/24"])
    for _ in range(2):
        with pytest.raises(EnforcementError, match=r"10\.1\.3\.250 is on the allowlist"):
            helper.add([block(customers[-1]), block(ATTACKER)], now())
        with pytest.raises(EnforcementError, match="on the allowlist"):
            helper.sync([block("203.0.113.9"), block(ATTACKER)], now())
        assert list(helper.blocked()) == [ATTACKER]
        killed = worker_of(helper)
        os.kill(killed, signal.SIGKILL)
        until("another worker", lambda killed=killed: worker_of(helper) not in (0, killed))
        with pytest.raises(EnforcementError, match="started again"):
            helper.ping()
    # A person's override passes, for a short time.
    own = replace(block("203.0.113.9"), override=True)
    helper.add([replace(own, expires_at=now() + HOUR)], now())
    with pytest.raises(EnforcementError, match="on the allowlist"):
        helper.add([replace(own, expires_at=now() + 2 * HOUR)], now())
    assert sorted(helper.blocked()) == [ATTACKER, "203.0.113.9"]
    helper.allow([])
    helper.add([block(customers[-1])], now())
    assert customers[-1] in helper.blocked()


@pytest.mark.parametrize("frame", [b"x" * 70_000, msgspec.msgpack.encode({"verb": "run", "id": 1, "argv": ["sh"]})])
def test_what_is_no_verb_ends_the_helper(net, frame):
    helper = net.helper()
    helper.add([block(ATTACKER)], now())
    worker, first = worker_of(helper), helper.pid
    assert helper._connection is not None
    helper._connection.send(frame)
    until("the worker ends", lambda: not alive(worker))
    until("and is not started again", lambda: not alive(first))
    assert list(net.elements()) == [ATTACKER]


def test_pages_of_many_targets(net):
    helper = net.helper()
    many = [block(f"10.0.{n // 250}.{n % 250 + 1}") for n in range(2000)]
    helper.add(many, now())
    assert len(helper.blocked()) == 2000
    assert len(helper.counters().targets) == 2000
    assert helper.sync(many, now()) == 0
    # A list that was begun and never ended is forgotten.
    helper._ask(Sync, now(), [("203.0.113.1", now() + HOUR)], more=True)
    assert helper.sync(many, now()) == 0
    helper.remove([one.target for one in many])
    assert helper.blocked() == {}


def test_without_the_privilege_the_helper_says_so(net):
    with pytest.raises(EnforcementError, match=r"CAP_NET_ADMIN.*hint: start as root"):
        HelperEnforcer(prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    with pytest.raises(EnforcementError, match=r"cannot start the kernel helper"):
        HelperEnforcer(prefix=["/nonexistent/program"])


def test_a_reply_that_is_too_late_is_not_taken_for_the_next_one(net, monkeypatch):
    helper = net.helper()
    monkeypatch.setattr("vedette.respond.helper_enforcer._TIMEOUT", 0.05)
    worker = worker_of(helper)
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(EnforcementError, match="no answer"):
        helper._ask(List, 0, timeout=0.05)
    os.kill(worker, signal.SIGCONT)
    helper.add([block(ATTACKER)], now())
    assert helper._ask(List, 0, timeout=5).entries[0][0] == ATTACKER


def test_without_permission_the_hint_names_the_capability():
    program = (
        "from vedette.respond.nftables import KernelSets\n"
        "try:\n    KernelSets()\nexcept Exception as error:\n    print(error)\n"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", program]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert os.strerror(errno.EPERM) in said
    assert "CAP_NET_ADMIN" in said

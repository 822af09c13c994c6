"""The inside view against the kernel itself: real listeners, real rules, real connections of strangers.
Counterpart: `app.port_inside`; the outside of the same truth is in test_port_watch.py."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from tests.scenarios.parts.netns import (
    ATTACKER,
    ATTACKER6,
    LEGITIMATE,
    LEGITIMATE6,
    SERVER,
    SERVER6,
    VICTIM,
    Namespace,
    Wire,
)
from tests.scenarios.parts.nft import CONTAINER, PublishedPort, load
from tests.scenarios.parts.processes import Process, wait_until

from vedette.app.inside_helper import InsideHelper
from vedette.app.port_inside import inside_view
from vedette.app.ports import check_ports
from vedette.inventory.firewall import claims, live_ruleset
from vedette.inventory.yaml import parse_policy
from vedette.model.clock import SystemClock
from vedette.model.levels import Level
from vedette.model.ports import Drift, DriftKind, FirewallVerdict, InsideView, Listener, Protocol, UnreadWhy
from vedette.sources.ports.listeners import story
from vedette.system.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
)
from vedette.text.addresses import contains, parse_network

pytestmark = pytest.mark.root

LISTENER = """
import socket, sys, time
held = []
for place in sys.argv[1:]:
    kind, address, port, only = place.split(",")
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                         socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
    made.bind((address, int(port)))
    if kind == "tcp":
        made.listen(64)
    held.append(made)
print("up", flush=True)
time.sleep(600)
"""
ACCEPTED, DROPPED, REJECTED = FirewallVerdict.ACCEPTED, FirewallVerdict.DROPPED, FirewallVerdict.REJECTED
LIMITED, UNKNOWN = FirewallVerdict.LIMITED_TO_SOURCES, FirewallVerdict.UNKNOWN


def listen(space: Namespace, *places: str) -> Process:
    """A process that holds sockets: `tcp,::,80,0` is kind, address, port, IPV6_V6ONLY."""
    started = space.start([sys.executable, "-c", LISTENER, *places], name="listener")
    wait_until("the listeners", lambda: started.stdout == "up\n")
    return started


def look(space: Namespace) -> InsideView:
    return space.inside(lambda: inside_view("server", SystemClock()))


def own(view: InsideView) -> list[Listener]:
    """What stands in the namespace looked from: other tests may have some of their own."""
    return [one for one in view.listeners if not one.namespace or one.published]


def reached(space: Namespace, source: str, target: str, ports: Sequence[int]) -> dict[int, str]:
    """What each of many connections begun at once comes to, from `source`: open, refused, or silent."""

    def connect() -> dict[int, str]:
        waiting: dict[int, tuple[int, socket.socket]] = {}
        out = dict.fromkeys(ports, "silent")
        for port in ports:
            made = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET)
            made.setblocking(False)
            made.bind((source, 0))
            made.connect_ex((target, port))
            waiting[made.fileno()] = (port, made)
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, select.POLLOUT)
        end = time.monotonic() + 1.5  # IPv6 hears of a refusal by ICMP at its second attempt
        while waiting and (left := end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                port, made = waiting.pop(descriptor)
                poll.unregister(descriptor)
                out[port] = "refused" if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else "open"
                made.close()
        for _, made in waiting.values():
            made.close()
        return out

    return space.inside(connect)


def test_every_socket_of_two_namespaces_is_listed_with_its_process(wire: Wire):
    server = listen(wire.server, "tcp,0.0.0.0,22,0", "tcp,::,80,0", "tcp,::,81,1", "udp,127.0.0.1,53,0")
    world = listen(wire.world, "tcp,::,443,0")
    before = SystemClock().now()
    view = look(wire.server)
    found = [one for one in view.listeners if one.pid in (server.pid, world.pid)]
    assert [(one.namespace, one.address, one.port, one.protocol.value, one.dual) for one in found] == [
        ("", "0.0.0.0", 22, "tcp", False),
        ("", "127.0.0.1", 53, "udp", False),
        ("", "::", 80, "tcp", True),
        ("", "::", 81, "tcp", False),
        (wire.world.name, "::", 443, "tcp", True),
    ]
    assert {one.user for one in found} == {"root"}
    assert {one.process for one in found} <= {Path(sys.executable).name[:15], Path(sys.executable).resolve().name[:15]}
    assert all(0 < one.since <= before for one in found)
    assert {SERVER, SERVER6} <= view.addresses
    assert UnreadWhy.SOCKETS not in view.unread
    assert view.knows_own_ports
    assert [one.firewall for one in found] == [ACCEPTED, DROPPED, ACCEPTED, ACCEPTED, ACCEPTED]
    assert [one.namespace for one in look(wire.world).listeners if one.pid == world.pid] == [""]


RULES = {
    5000: [],
    5001: ["tcp dport 5001 drop"],
    5002: ["tcp dport 5002 reject with tcp reset"],
    5003: [f"ip saddr != {LEGITIMATE} tcp dport 5003 drop", f"ip6 saddr != {LEGITIMATE6} tcp dport 5003 drop"],
    5004: ["tcp dport 5004 limit rate 100/second burst 50 packets accept", "tcp dport 5004 drop"],
    5005: ['iifname "@DEVICE" tcp dport 5005 drop'],
    5006: ['iifname "lo" tcp dport 5006 accept', "tcp dport 5006 drop"],
    5007: ["ct state established,related accept", "meta nfproto ipv4 tcp dport 5007 drop"],
    5008: [f"ip saddr . tcp dport {{ {LEGITIMATE} . 5008 }} accept", "tcp dport 5008 reject"],
    5009: ["tcp dport 5000-5020 goto own"],
    5010: ["tcp dport vmap { 5010 : jump sub, 5011 : drop }"],
    5012: [f"ip daddr {SERVER} tcp dport 5012 drop"],
    5013: ["tcp flags & (fin|syn|rst|ack) == syn tcp dport 5013 counter drop"],
    5014: ["ip saddr @friends tcp dport 5014 accept", "tcp dport 5014 drop"],
    5015: ["fib daddr type local tcp dport 5015 drop"],
    5016: ["meta mark 7 tcp dport 5016 drop"],
    5017: ["tcp sport 1024-65535 tcp dport 5017 drop"],
}
SOURCES = {4: (ATTACKER, LEGITIMATE, SERVER), 6: (ATTACKER6, LEGITIMATE6, SERVER6)}


def expected_reach(verdict: FirewallVerdict, rule: str, source: str) -> set[str]:
    match verdict:
        case FirewallVerdict.ACCEPTED:
            return {"open"}
        case FirewallVerdict.DROPPED:
            return {"silent"}
        case FirewallVerdict.REJECTED:
            return {"refused"}
        case FirewallVerdict.LIMITED_TO_SOURCES:
            named = [parse_network(one) for one in rule.partition(" [from ")[2].rstrip("]").split(", ") if "/" in one]
            return {"open"} if contains(named, source) else {"silent", "refused"}
        case _:
            return {"open", "silent", "refused"}


def test_what_the_view_says_of_the_firewall_is_what_the_kernel_does(wire: Wire):
    ports = [*range(5000, 5018)]
    listen(wire.server, *(f"tcp,0.0.0.0,{port},0" for port in ports), *(f"tcp,::,{port},1" for port in ports))
    lines = "\n".join(line for rules in RULES.values() for line in rules).replace("@DEVICE", wire.server_device)
    load(
        wire.server,
        f"""table inet filter {{
            set friends {{ type ipv4_addr; flags interval; elements = {{ 198.18.0.0/24 }} }}
            chain own {{
                tcp dport != 5009 return
                tcp dport 5009 drop
            }}
            chain sub {{ meta nfproto ipv6 return; tcp dport 5010 reject with tcp reset; }}
            chain input {{
                type filter hook input priority filter; policy accept;
                {lines.replace("goto own", "jump own")}
            }}
        }}""",
    )
    view = look(wire.server)
    said = {(one.address, one.port): one for one in own(view) if 5000 <= one.port < 5018}
    assert len(said) == 36
    wrong = []
    for version, (stranger, friend, target) in SOURCES.items():
        for source in (stranger, friend):
            seen = reached(wire.world, source, target, ports)
            for port in ports:
                one = said["0.0.0.0" if version == 4 else "::", port]
                if seen[port] not in expected_reach(one.firewall, one.firewall_rule, source):
                    wrong.append((port, version, source, one.firewall, one.firewall_rule, seen[port]))
    assert not wrong
    # 5017 depends on the port of the stranger; all else is decided.
    assert {port for (_, port), one in said.items() if one.firewall is UNKNOWN} == {5017}
    assert {one.firewall for one in said.values()} == set(FirewallVerdict)


IPTABLES = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:own - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p @ICMP -j ACCEPT
-A INPUT -p tcp -m multiport --dports 5000,5001:5002 -m comment --comment "a \\"b\\" -j DROP" -j own
-A INPUT -s @FRIEND -p tcp -m tcp --dport 5003 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 5004 -j REJECT --reject-with tcp-reset
-A INPUT ! -i lo -p tcp -m tcp --dport 5005 --tcp-flags FIN,SYN,RST,ACK SYN -m limit --limit 50/sec -j ACCEPT
-A INPUT -p tcp -m mark --mark 0x1 -j ACCEPT
-A own -p tcp -m tcp --dport 5001 -j DROP
-A own -p tcp -m tcp --dport 5002 -j RETURN
-A own -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_iptables_wrote_is_understood_too(wire: Wire, variant: str):
    ports = [*range(5000, 5007)]
    listen(wire.server, *(f"tcp,::,{port},0" for port in ports))
    for family, protocol, friend in (("ip", "icmp", f"{LEGITIMATE}/32"), ("ip6", "ipv6-icmp", f"{LEGITIMATE6}/128")):
        rules = IPTABLES.replace("@FRIEND", friend).replace("@ICMP", protocol)
        wire.server.run([f"{family}tables-{variant}-restore"], stdin=rules)
    apart = listen(wire.world, "tcp,0.0.0.0,5001,0")
    view = look(wire.server)
    # Every namespace has rules of its own.
    assert [one.firewall for one in view.listeners if one.pid == apart.pid] == [ACCEPTED]
    said = {(one.dual, one.port): one for one in own(view) if one.port in ports}
    assert {port: one.firewall for (_, port), one in said.items()} == {
        5000: ACCEPTED, 5001: DROPPED, 5002: DROPPED, 5003: LIMITED, 5004: REJECTED, 5005: ACCEPTED, 5006: DROPPED,
    }  # fmt: skip
    for stranger, friend, target in SOURCES.values():
        for source in (stranger, friend):
            wanted = {5000: "open", 5004: "refused", 5005: "open"} | ({5003: "open"} if source == friend else {})
            assert reached(wire.world, source, target, ports) == dict.fromkeys(ports, "silent") | wanted
    claimed = wire.server.inside(lambda: claims(live_ruleset(), "fw")).openings
    assert [(str(one.ports), one.sources) for one in claimed] == [
        ("5000", ("world",)),
        ("5003", (f"fw:{LEGITIMATE}-32+1",)),
        ("5005", ("world",)),
    ]


def test_a_port_published_into_a_container_stands_for_the_listener_behind_it(wire: Wire, published: PublishedPort):
    listen(wire.server, "tcp,0.0.0.0,8080,0")
    view = look(wire.server)
    found = [one for one in own(view) if one.port == 8080 and one.published]
    assert [(one.address, one.namespace, one.pid) for one in found] == [
        ("0.0.0.0", published.container.name, published.service.pid),
        ("::", published.container.name, published.service.pid),
    ]
    assert {one.firewall for one in found} == {ACCEPTED}
    assert f"dnat to {CONTAINER}:80" in found[0].firewall_rule
    assert reached(wire.world, ATTACKER, SERVER, [8080]) == {8080: "open"}
    lines = list(story(view, SERVER, 8080, Protocol.TCP))
    assert "published as 0.0.0.0:8080/tcp" in lines[0]
    assert published.container.name in lines[0]

    # What drops before routing, and what drops in the forward chain, shuts it; what drops in the input chain does not.
    load(wire.server, "table inet f {\n chain in { type filter hook input priority 0; policy drop; }\n}\n")
    assert {one.firewall for one in own(look(wire.server)) if one.published} == {ACCEPTED}
    load(
        wire.server,
        """table inet f {
            chain forwarded {
                type filter hook forward priority 0; policy drop;
                ct state established,related accept
                ct status dnat ip saddr 198.18.0.0/24 accept
            }
        }""",
    )
    assert [one.firewall for one in own(look(wire.server)) if one.published] == [LIMITED, DROPPED]
    assert reached(wire.world, ATTACKER, SERVER, [8080]) == {8080: "silent"}
    assert reached(wire.world, LEGITIMATE, SERVER, [8080]) == {8080: "open"}
    published.service.close()
    assert [one for one in own(look(wire.server)) if one.published] == []


POLICY = f"""
version: 1
own_networks: [{SERVER}/32]
probe: {{tcp: [5000-5012]}}
hosts:
  server:
    addresses: [{SERVER}]
    ports:
      5001/tcp: {{from: world, must_answer: true, owner: shop}}
      5002/tcp: world
      5003/tcp: {{from: world, must_answer: true}}
      5004/tcp: {{from: world, must_answer: true}}
      5005/tcp: {{from: world, must_answer: true}}
      5006/tcp: world
      5007/tcp: world
      5008/tcp: {{from: world, until: 2020-01-01}}
      5010/tcp: world
      5011/tcp: {{from: world, must_answer: true}}
"""


def of_kind(drifts: Iterable[Drift]) -> dict[int, Drift]:
    return {one.port: one for one in drifts}


def test_policy_inside_and_outside_together_say_what_is_wrong(wire: Wire):
    held = listen(
        wire.server,
        *(f"tcp,0.0.0.0,{port},0" for port in (5000, 5001, 5002, 5006, 5008, 5010, 5011)),
        "tcp,127.0.0.1,5003,0",
        "tcp,::,5005,1",
    )
    load(
        wire.server,
        f"""table inet filter {{
            chain input {{
                type filter hook input priority filter; policy accept;
                tcp dport 5001 drop comment "for the night"
                tcp dport 5002 reject with tcp reset
                ip saddr != {LEGITIMATE} tcp dport 5010 drop
            }}
        }}
        table ip nat {{
            chain pre {{
                type nat hook prerouting priority dstnat; policy accept;
                tcp dport 5007 dnat to {VICTIM}:7777
            }}
        }}""",
    )
    wire.server.set_knob("net/ipv4/ip_forward", "1")
    view = look(wire.server)
    policy = parse_policy(POLICY.encode(), "p.yml")
    checked = wire.world.inside(lambda: check_ports(policy, SystemClock(), inside=(view,)))
    found = of_kind(checked.drifts)
    name = next(one.process for one in view.listeners if one.pid == held.pid)
    who = f"{name} (pid {held.pid}, user root"

    def said(port: int) -> tuple[DriftKind, Level]:
        return found[port].kind, found[port].level

    assert said(5000) == (DriftKind.OPEN_NOT_ALLOWED, Level.HIGH)
    assert who in found[5000].advice
    assert said(5001) == (DriftKind.LISTENING_BUT_FILTERED, Level.HIGH)
    assert f"{who}" in found[5001].advice
    assert 'inet filter input: tcp dport 5001 drop comment "for the night"' in found[5001].advice
    assert said(5002) == (DriftKind.LISTENING_BUT_FILTERED, Level.LOW)
    assert "reject with tcp reset" in found[5002].advice
    assert said(5003) == (DriftKind.MUST_ANSWER, Level.HIGH)
    assert "listens, but it is bound to 127.0.0.1 alone" in found[5003].advice
    assert said(5004) == (DriftKind.MUST_ANSWER, Level.HIGH)
    assert "nothing listens on the host: start the service" in found[5004].advice
    assert "it takes IPv6 alone" in found[5005].advice
    assert said(5008) == (DriftKind.OPENING_EXPIRED, Level.HIGH)
    assert said(5010) == (DriftKind.LISTENING_BUT_FILTERED, Level.LOW)
    assert "lets only some sources in" in found[5010].advice
    assert set(found) - {5007} == {5000, 5001, 5002, 5003, 5004, 5005, 5008, 5010}
    (listener,) = [one for one in own(view) if one.port == 5007]
    assert (listener.published, listener.process) == (True, "")
    assert f"dnat to {VICTIM}:7777" in listener.firewall_rule

    held.close()
    gone = wire.world.inside(lambda: check_ports(policy, SystemClock(), inside=(look(wire.server),)))
    found = of_kind(gone.drifts)
    assert said(5011) == (DriftKind.MUST_ANSWER, Level.HIGH)


def test_what_answers_in_front_of_the_host_is_told_from_what_listens_on_it(wire: Wire):
    listen(wire.server, "tcp,0.0.0.0,5006,0", "tcp,0.0.0.0,5001,0")
    policy = parse_policy(POLICY.encode(), "p.yml")
    view = look(wire.server)
    # The one in front: a port that is open from outside, of which the host itself knows nothing.
    without = InsideView("server", view.at, (), view.complete, view.addresses, view.unread)
    found = of_kind(wire.world.inside(lambda: check_ports(policy, SystemClock(), inside=(without,))).drifts)
    assert (found[5006].kind, found[5006].level) == (DriftKind.OPEN_WITHOUT_LISTENER, Level.MEDIUM)
    both = of_kind(wire.world.inside(lambda: check_ports(policy, SystemClock(), inside=(view,))).drifts)
    assert 5006 not in both


def test_without_privileges_what_can_be_read_is_listed_and_the_rest_counted(wire: Wire, scratch: Path):
    listen(wire.server, "tcp,0.0.0.0,5000,0")
    script = scratch / "look.py"
    script.write_text(
        "from vedette.app.port_inside import inside_view\n"
        "from vedette.model.clock import SystemClock\n"
        "view = inside_view('server', SystemClock())\n"
        "(one,) = [one for one in view.listeners if one.port == 5000]\n"
        "print(view.complete, view.knows_own_ports, one.process == '', one.user, one.firewall.value)\n"
        "print(*sorted(why.value for why in view.unread))\n"
    )
    said = wire.server.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
         sys.executable, str(script)]
    )  # fmt: skip
    first, second = said.splitlines()
    assert first == "False False True root unknown"
    assert {"namespace", "process", "holder", "firewall", "translation"} <= set(second.split())


def test_the_helper_sees_as_nobody_what_root_sees_and_holds_what_that_takes(wire: Wire):
    started = wire.server.start([sys.executable, "-c", LISTENER, "tcp,0.0.0.0,80,0"])
    wait_until("a listener", lambda: "up" in started.stdout)
    words = f"version: 1\nown_networks: [{SERVER}/32]\nhosts: {{web: {{addresses: [{SERVER}]}}}}\n"
    policy = parse_policy(words.encode(), "p")
    helper = wire.server.inside(lambda: InsideHelper(65_534, 65_534))
    try:
        (view,) = wire.server.inside(lambda: helper.view(policy))
        (listener,) = [one for one in view.listeners if one.port == 80 and not one.namespace]
        assert (listener.host, listener.pid, listener.user) == ("web", started.pid, "root")
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{helper.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert set(status["Uid"].split()) == {"65534"}
        held = {bit for bit in range(64) if int(status["CapEff"], 16) >> bit & 1}
        assert held == {CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN}
        assert (status["CapBnd"], status["NoNewPrivs"]) == (status["CapEff"], "1")
        pid = helper.pid
    finally:
        helper.close()
    assert not Path(f"/proc/{pid}").exists()
    assert wire.server.inside(lambda: helper.view(policy)) == ()

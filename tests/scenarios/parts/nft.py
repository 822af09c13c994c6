"""Reads nftables back inside a namespace, and publishes a port of a second namespace by DNAT as containers do.
Counterpart: the enforcer that writes the sets; netns.py makes the namespaces."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .netns import Namespace, NetLab
from .processes import Process, wait_until

CONTAINER = "198.18.9.2"
CONTAINER6 = "2001:db8:9::2"
_GATEWAY = "198.18.9.1"
_GATEWAY6 = "2001:db8:9::1"

# Answers each connection with its peer's address and closes: shows who got through, and with which address.
_GREETER = """
import contextlib, socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
while True:
    peer, address = listener.accept()
    with peer, contextlib.suppress(OSError):
        peer.sendall(address[0].removeprefix("::ffff:").encode())
"""


@dataclass(frozen=True)
class Element:
    """One element of a set. timeout and expires in whole seconds (None: for ever); packets and bytes need `counter`."""

    value: str
    timeout: int | None
    expires: int | None
    packets: int | None
    bytes: int | None


@dataclass(frozen=True)
class Table:
    """A table as the kernel holds it: sets and maps by name, named counters (packets), chains as listed by nft."""

    sets: Mapping[str, list[Element]] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    chains: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] = ()

    def find(self, address: str) -> list[Element]:
        """Elements with that value, in any set (`address` as nft prints it; a prefix as ADDR/LEN)."""
        return [element for elements in self.sets.values() for element in elements if element.value == address]

    def counted(self) -> int:
        """Packets of all anonymous counters in rules: what was dropped, where only drop rules count."""
        total = 0
        for rule in self.rules:
            for expression in rule.get("expr", []):
                counter = expression.get("counter")
                if isinstance(counter, Mapping):
                    total += int(counter["packets"])
        return total


def tables(namespace: Namespace) -> list[tuple[str, str]]:
    """(family, name) of every table."""
    listed = json.loads(namespace.run(["nft", "-j", "list", "tables"]))
    return [(one["table"]["family"], one["table"]["name"]) for one in listed["nftables"] if "table" in one]


def read_table(namespace: Namespace, family: str, name: str) -> Table | None:
    """The table, None where there is none."""
    if (family, name) not in tables(namespace):
        return None
    listed = json.loads(namespace.run(["nft", "-j", "list", "table", family, name]))["nftables"]
    sets = {one[kind]["name"]: _elements(one[kind]) for one in listed for kind in ("set", "map") if kind in one}
    counters = {one["counter"]["name"]: int(one["counter"]["packets"]) for one in listed if "counter" in one}
    chains = {one["chain"]["name"]: one["chain"] for one in listed if "chain" in one}
    return Table(sets, counters, chains, tuple(one["rule"] for one in listed if "rule" in one))


def _elements(listed: Mapping[str, Any]) -> list[Element]:
    found = []
    for one in listed.get("elem", []):
        body = one["elem"] if isinstance(one, Mapping) and "elem" in one else {"val": one}
        counter = body.get("counter") or {}
        found.append(
            Element(
                _value(body["val"]),
                body.get("timeout"),
                body.get("expires"),
                counter.get("packets"),
                counter.get("bytes"),
            )
        )
    return found


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, Mapping) and "range" in value:
        return "-".join(value["range"])
    return str(value)


class PublishedPort:
    """A service on port 80 of a container namespace behind `gateway`, published there as `port` by DNAT (v4 and v6).

    Such packets pass no input chain of the gateway: only what drops before routing stops them. The service answers
    with the address it saw, so a test knows who got through.
    """

    def __init__(self, lab: NetLab, gateway: Namespace, port: int = 8080) -> None:
        self.port = port
        self.container = lab.namespace()
        lab.link(
            gateway,
            self.container,
            [f"{_GATEWAY}/24", f"{_GATEWAY6}/64"],
            [f"{CONTAINER}/24", f"{CONTAINER6}/64"],
        )
        self.container.ip("route", "add", "default", "via", _GATEWAY)
        self.container.ip("-6", "route", "add", "default", "via", _GATEWAY6)
        for knob in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            gateway.set_knob(knob, "1")
        gateway.run(
            ["nft", "-f", "-"],
            stdin=(
                "table inet published {\n"
                "  chain prerouting {\n"
                "    type nat hook prerouting priority dstnat; policy accept;\n"
                f"    meta nfproto ipv4 tcp dport {port} dnat ip to {CONTAINER}:80\n"
                f"    meta nfproto ipv6 tcp dport {port} dnat ip6 to [{CONTAINER6}]:80\n"
                "  }\n"
                "}\n"
            ),
        )
        self.service: Process = self.container.start([sys.executable, "-c", _GREETER, "80"], name="service")
        wait_until("the published service", lambda: ":80 " in self.container.run(["ss", "-Hltn"]))


def greeting(namespace: Namespace, source: str, host: str, port: int, *, timeout: float = 2.0) -> str:
    """What a client at `source` gets from `host`:`port`: its first bytes, or `timeout`, or `refused`."""
    script = (
        "import socket, sys\n"
        "try:\n"
        "    target, own = (sys.argv[2], int(sys.argv[3])), (sys.argv[1], 0)\n"
        "    with socket.create_connection(target, float(sys.argv[4]), own) as s:\n"
        "        print(s.recv(200).decode('latin-1').strip())\n"
        "except TimeoutError:\n"
        "    print('timeout')\n"
        "except ConnectionRefusedError:\n"
        "    print('refused')\n"
    )
    return namespace.run([sys.executable, "-c", script, source, host, str(port), str(timeout)]).strip()


def load(namespace: Namespace, rules: Path | str) -> None:
    """`nft -f`: rules as text, or a file of them."""
    if isinstance(rules, Path):
        namespace.run(["nft", "-f", str(rules)])
    else:
        namespace.run(["nft", "-f", "-"], stdin=rules)

"""What is looked at from outside: listeners of TCP and UDP, a tarpit, and a link with delay and a bottleneck.
Counterpart: netns.py makes the namespaces; test_ports_outside.py and bench/ports.py look."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from . import nft
from .netns import Namespace, NetLab
from .processes import Process, wait_until

_LISTEN = """
import contextlib, selectors, socket, sys
selector = selectors.DefaultSelector()
for one in sys.argv[1:]:
    port, _, protocol = one.partition("/")
    if protocol == "udp":
        server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", int(port)))
    else:
        server = socket.create_server(
            ("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1_024
        )
    server.setblocking(False)
    selector.register(server, selectors.EVENT_READ, protocol)
print("listens", flush=True)
while True:
    for key, _ in selector.select():
        with contextlib.suppress(OSError):
            while True:
                if key.data == "udp":
                    data, peer = key.fileobj.recvfrom(2_000)
                    key.fileobj.sendto(b"heard " + data, peer)
                else:
                    peer, _ = key.fileobj.accept()
                    with peer:
                        peer.sendall(b"SSH-2.0-OpenSSH_9.2p1 \\x1b[31mred\\r\\n")
"""

# Hands packets from one TUN device to the other after a delay, no more than so many a second; the rest waits in a queue
# that is bounded, and is dropped where that is full: what a router with a slow link does.
_LINK = """
import asyncio, collections, ctypes, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def tun(space, name):
    with open(f"/run/netns/{space}") as file:
        assert libc.setns(file.fileno(), 0x40000000) == 0
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
    return device

left, right = tun(sys.argv[1], sys.argv[3]), tun(sys.argv[2], sys.argv[3])
delay, rate, most = float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])

def send(out, packet):
    try:
        os.write(out, packet)
    except OSError:
        pass

async def main():
    loop = asyncio.get_running_loop()
    free = {left: 0.0, right: 0.0}
    def take(device, out):
        while True:
            try:
                packet = os.read(device, 2_000)
            except OSError:
                return
            now = loop.time()
            at = max(now, free[out])
            if rate:
                if (at - now) * rate >= most:
                    continue
                free[out] = at + 1 / rate
            loop.call_at(at + delay, send, out, packet)
    loop.add_reader(left, take, left, right)
    loop.add_reader(right, take, right, left)
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def listen(space: Namespace, ports: Iterable[str]) -> Process:
    """One process in `space` that serves each of `PORT/tcp` or `PORT/udp`, over both families, once this returns.

    TCP greets like an ssh server with a colour in its name; UDP answers whatever it is sent.
    """
    process = space.start([sys.executable, "-c", _LISTEN, *ports], name="listeners")
    wait_until("the listeners", lambda: "listens" in process.stdout)
    return process


def accept_everything(space: Namespace) -> None:
    """Make `space` a tarpit: whatever TCP port is asked, a listener accepts."""
    listen(space, ["4444/tcp"])
    nft.load(
        space,
        "table inet tarpit {\n chain prerouting {\n  type nat hook prerouting priority dstnat;\n"
        "  meta l4proto tcp redirect to :4444\n }\n}\n",
    )


def lose(space: Namespace, percent: int) -> None:
    """Drop that share of the packets that `space` gets, and of those it sends (netem is not in every kernel)."""
    rule = f"numgen random mod 100 < {percent} drop"
    nft.load(
        space,
        "table inet lossy {\n"
        f" chain in {{\n  type filter hook prerouting priority raw;\n  iifname != lo {rule}\n }}\n"
        f" chain out {{\n  type filter hook output priority raw;\n  oifname != lo {rule}\n }}\n"
        "}\n",
    )


def filter_input(space: Namespace, *rules: str) -> None:
    """Replace the firewall of `space` by these rules of an input chain that accepts what they leave over."""
    body = "".join(f"  {rule}\n" for rule in rules)
    nft.load(
        space,
        "table inet guard { }\nflush table inet guard\n"
        f"table inet guard {{\n chain input {{\n  type filter hook input priority 0;\n{body} }}\n}}\n",
    )


def far_link(
    lab: NetLab, left: Namespace, right: Namespace, addresses: tuple[str, str], *, delay: float, rate: float = 0.0
) -> str:
    """Join two namespaces by a link of `delay` seconds each way; name of the device, the same on both sides.

    addresses: `ADDR/LEN` of left and right. rate: packets a second each way, of which a twentieth may wait; 0 = any.
    """
    device = "far0"
    argv = [sys.executable, "-c", _LINK, left.name, right.name, device, str(delay), str(rate), str(int(rate / 20) + 1)]
    process = lab.processes.start(argv, name="far-link")
    wait_until("the far link", lambda: "up" in process.stdout)
    for space, address in zip((left, right), addresses, strict=True):
        space.ip("address", "add", address, "dev", device)
        space.ip("link", "set", device, "up")
    return device

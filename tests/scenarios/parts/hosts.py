"""Hosts that are looked at: each a namespace on a link of its own to whoever watches, with ports one opens and shuts.
Counterpart: the source `ports` looks from the watcher's side; test_port_watch.py tells the story."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from .netns import Namespace, NetLab
from .processes import Process, wait_until

_LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listens", flush=True)
while True:
    server.accept()[0].close()
"""


class WatchedHost:
    """A machine at `address` behind a link of its own to `watcher`."""

    def __init__(self, lab: NetLab, watcher: Namespace, name: str, address: str, opposite: str) -> None:
        self.name, self.address = name, address
        self._watcher = watcher
        self._space = lab.namespace()
        self._device, _ = lab.link(watcher, self._space, [f"{opposite}/32"], [f"{address}/32"])
        watcher.ip("route", "add", f"{address}/32", "dev", self._device)
        self._space.ip("route", "add", "default", "dev", _)
        self._listeners: dict[int, Process] = {}

    def listen(self, port: int) -> None:
        """A process of its own listens at `port`, on every address, once this returns."""
        process = self._space.start([sys.executable, "-c", _LISTEN, "0.0.0.0", str(port)], name=f"listener-{port}")
        self._listeners[port] = process
        wait_until(f"a listener at {port}", self._answers(port))

    def shut(self, port: int) -> None:
        """End the listener at `port`."""
        self._listeners.pop(port).close()

    def go_down(self) -> None:
        """Unplug it."""
        self._watcher.ip("link", "set", self._device, "down")

    def come_back(self) -> None:
        """Plug it in again."""
        self._watcher.ip("link", "set", self._device, "up")
        self._watcher.ip("route", "replace", f"{self.address}/32", "dev", self._device)

    def _answers(self, port: int) -> Callable[[], bool]:
        def look() -> bool:
            try:
                socket.create_connection((self.address, port), timeout=1.0).close()
            except OSError:
                return False
            return True

        return lambda: self._watcher.inside(look)

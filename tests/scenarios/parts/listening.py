"""A listener in a process of its own, that says of itself how large it is and what it counted.
Counterpart: test_many_connections.py starts it in a namespace and asks it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from contextlib import closing
from pathlib import Path

from tests.sources.collecting import Collected, Counts

from vedette.model.clock import SystemClock
from vedette.sources.http import HttpSource
from vedette.sources.relp import RelpSource
from vedette.sources.settings import HttpSettings, RelpSettings, SyslogSettings
from vedette.sources.syslog import SyslogSource
from vedette.sources.syslog_sockets import Listeners

TOKEN = "a-token-of-the-first"
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
                "open": source._connections,
                "ends": {reason: n for (of, reason), n in counts.seen.items() if of == f"{name}_connections"},
                "lines": len(got.records),
            }
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

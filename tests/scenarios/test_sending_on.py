"""What is kept is sent on to a real rsyslogd that is away for a while, and to files, beside one that never answers.
Counterpart: src/vedette/app/forwarding.py, src/vedette/fleet/forward*.py."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.fleet.forwarding import until
from tests.scenarios.parts.processes import Processes
from tests.scenarios.parts.syslogs import SyslogReceiver

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.keeping import LakeKeeping
from vedette.config.settings import Settings
from vedette.model.batch import Batch, Origin
from vedette.model.clock import SystemClock

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HOST = "6f1c9f5e-0000-4000-8000-00000000a9e7"
RECORDS = 300


def read(first: int, count: int) -> Batch:
    lines = [
        b"Jan  1 00:00:01 web1 sshd[7]: Failed password for user%d" % number for number in range(first, first + count)
    ]
    positions = np.arange(first, first + count, dtype=np.int64)
    return replace(batch_of_lines(lines, year=2026), origin=Origin(HOST, "file:/var/log/auth.log"), positions=positions)


async def test_a_real_rsyslogd_gets_all_though_it_was_away(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    receiver = await asyncio.to_thread(SyslogReceiver, processes, tmp_path / "receiver")
    with socket.socket() as nobody:
        # Bound, and nobody listens.
        nobody.bind(("127.0.0.1", 0))
        settings = Settings.model_validate(
            {
                "data": tmp_path / "data",
                "forward": [
                    {"type": "http", "name": "never", "url": f"https://127.0.0.1:{nobody.getsockname()[1]}/x"},
                    {
                        "type": "syslog",
                        "name": "old-syslog",
                        "host": "127.0.0.1",
                        "port": receiver.port,
                        "protocol": "tcp",
                        "streams": ["file:*"],
                    },
                    {"type": "files", "name": "copy", "folder": str(tmp_path / "copy")},
                ],
            }
        )
        counters = Counters()
        keeping = LakeKeeping(settings, own.Self(HOST, "web1"), clock=SystemClock(), counter=counters)
        running = asyncio.create_task(keeping.run(None))  # type: ignore[arg-type]
        try:
            keeping.shelf.put(read(0, RECORDS))
            await until(lambda: len(receiver.lines()) == RECORDS, 20)
            await asyncio.to_thread(receiver.close)
            keeping.shelf.put(read(RECORDS, 1))
            await until(lambda: counters.value("forward_failed", "old-syslog:network-error"), 20)
            receiver = await asyncio.to_thread(SyslogReceiver, processes, tmp_path / "receiver", receiver.port)
            await until(lambda: len(receiver.lines()) > RECORDS, 20)
            await until(lambda: counters.value("forwarded", "copy") == RECORDS + 1, 20)
            assert not running.done()
            assert counters.value("forward_failed", "never:network-error") > 0
            assert counters.value("forwarded", "never") == 0
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await asyncio.to_thread(keeping.close)
            await asyncio.to_thread(receiver.close)
    wanted = [b"Failed password for user%d" % number for number in range(RECORDS + 1)]
    fields = [line.split(b"|") for line in receiver.lines()]
    assert [each[-1].strip() for each in fields] == wanted
    assert {tuple(each[:5]) for each in fields} == {(b"14", b"2026-01-01T00:00:01.000000Z", b"web1", b"sshd", b"7")}
    [copy] = (tmp_path / "copy").rglob("*.gz")
    assert copy.name == "file:%2Fvar%2Flog%2Fauth.log.log.gz" or copy.name.endswith("#security.log.gz")
    assert [line.split(b": ")[1] for line in gzip.decompress(copy.read_bytes()).splitlines()] == wanted

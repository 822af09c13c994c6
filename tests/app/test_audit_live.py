"""A growing log of Linux audit gives the findings that its replay gives, through any cuts and restarts.
Counterpart: src/vedette/text/audit_lines.py, sources/lines.py and follow.py; app/formats.py in replay."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.sources.collecting import Collected, running

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.app.replay import Replay, open_files
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.match import Matcher
from vedette.model.batch import REPLAY_HOST_ID, RecordFormat
from vedette.model.findings import Finding
from vedette.sources import lines as module
from vedette.sources.file import FileSource
from vedette.sources.settings import FileSettings
from vedette.testing.clock import FakeClock

RULES = """
title: A shell fetches something
id: 5a0a7a4e-7a0b-4c62-9f5c-0c1f5b0e0001
name: shell_fetches
status: test
logsource: {category: process_creation, product: linux}
detection:
  run: {Image|endswith: /dash, CommandLine|contains: curl, CurrentDirectory: /tmp}
  condition: run
level: high
---
title: And again
id: 5a0a7a4e-7a0b-4c62-9f5c-0c1f5b0e0002
correlation:
  type: event_count
  rules: [shell_fetches]
  group-by: [User]
  timespan: 5m
  generate: true
  condition: {gte: 3}
level: critical
"""
NOW = 1_795_132_900_000_000


def event(serial: int, command: str, folder: str, *, ended: bool = True) -> list[str]:
    head = f"msg=audit({1_795_132_800 + serial // 10}.{serial % 1000:03}:{serial}):"
    arguments = " ".join(f'a{n}="{word}"' for n, word in enumerate(command.split()))
    lines = [
        f"type=SYSCALL {head} arch=c000003e syscall=59 success=yes exit=0 a0=1 a1=2 a2=3 a3=4 ppid=7 pid=9 auid=1000 "
        f'uid={serial % 3} gid=0 euid=0 tty=pts0 ses=1 comm="sh" exe="/usr/bin/dash" key=(null)',
        f"type=EXECVE {head} argc={len(command.split())} {arguments}",
        f'type=CWD {head} cwd="{folder}"',
        f'type=PATH {head} item=0 name="/usr/bin/dash" inode=1 nametype=NORMAL',
    ]
    return [*lines, f"type=PROCTITLE {head} proctitle=7368002D63"] if ended else lines


def log_of(seed: int, events: int) -> bytes:
    """Events some of which lie in one another, with others that stand alone."""
    choose = random.Random(seed)
    out: list[str] = []
    for serial in range(events):
        lines = event(
            serial,
            choose.choice(["sh -c curl", "sh -c id"]),
            choose.choice(["/tmp", "/srv"]),
            ended=choose.random() < 0.8,
        )
        at = len(out) - choose.randrange(3) if choose.random() < 0.3 else len(out)
        for line in lines:
            out.insert(max(at, 0), line)
            at += 1 + (choose.random() < 0.3)
            at = min(at, len(out))
        if choose.random() < 0.2:
            out.append(f"type=USER_CMD msg=audit(1795132800.005:9{serial}): pid=1 uid=0 msg='op=x res=success'")
    return "".join(f"{line}\n" for line in out).encode()


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tmp_path_factory.mktemp("rules") / "audit.yml"
    path.write_text(RULES)
    return load_matcher([path], packs=False, counter=Counters())


def identity(finding: Finding) -> tuple[str, str, int, tuple[tuple[str, str], ...], int]:
    return finding.id, finding.rule_id, finding.time, tuple(finding.key.items()), finding.count


async def live(path: Path, data: bytes, cuts: list[int], restarts: set[int], matcher: Matcher) -> list[Finding]:
    """Written and read a piece at a time; at some places the source is begun anew."""
    config = FileSettings(paths=(str(path),), begin="beginning", format=RecordFormat.AUDIT, timezone="UTC")
    whole = data.count(b"type=SYSCALL") + data.count(b"type=USER_CMD")
    counters, got = Counters(), Collected()
    at = written = 0

    def source() -> FileSource:
        cursors = {batch.origin.source: batch.cursor for batch in got.batches}
        return FileSource(config, host_id=REPLAY_HOST_ID, clock=FakeClock(NOW), counter=counters, cursors=cursors)

    while written < len(data):
        async with running(source(), got) as seen:
            while written < len(data):
                size = cuts[at % len(cuts)]
                with path.open("ab") as file:
                    file.write(data[written : written + size])
                written += size
                at += 1
                # Time to be read.
                await asyncio.sleep(0.001)
                if at in restarts:
                    break
            if written >= len(data):
                await seen.until(lambda got: len(got.records) >= whole)
    assert counters.value("source_audit_split") == 0
    assert len(got.batches) > 3
    engine = Engine(matcher, Correlator(matcher.rules, counter=counters), counters)
    return [finding for batch in got.batches for finding in engine.process(batch).findings]


@pytest.mark.parametrize("seed", [1, 2])
async def test_live_finds_what_replay_finds(
    tmp_path: Path, matcher: Matcher, seed: int, monkeypatch: pytest.MonkeyPatch
):
    # Long enough for a machine that is busy with other things.
    monkeypatch.setattr(module, "AUDIT_WAIT", 0.3)
    data = log_of(seed, 60)
    (tmp_path / "audit.log").touch()
    kept = tmp_path / "kept.log"
    kept.write_bytes(data)
    correlator = Correlator(matcher.rules, counter=Counters())
    wanted = list(Replay(open_files([kept]), matcher, correlator, counter=Counters(), chunk=2000).run())
    assert {finding.rule_id for finding in wanted} == {
        "5a0a7a4e-7a0b-4c62-9f5c-0c1f5b0e0001",
        "5a0a7a4e-7a0b-4c62-9f5c-0c1f5b0e0002",
    }
    choose = random.Random(seed)
    cuts = [choose.choice([1, 40, 300, 900]) for _ in range(200)]
    found = await live(tmp_path / "audit.log", data, cuts, set(choose.sample(range(1, 40), 6)), matcher)
    assert [identity(one) for one in found] == [identity(one) for one in wanted]

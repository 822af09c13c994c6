"""Whatever an attacker makes a real sshd write, nobody but the attacker is blamed for it.
Counterpart: parts/sshd_fuzz.py makes the lines; src/vedette/parsers and src/vedette/detections judge them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.scenarios.parts.netns import ATTACKER, VICTIM, Wire
from tests.scenarios.parts.sshd_fuzz import FuzzRun, collect
from tests.scenarios.parts.syslogs import Header, Journald, Rsyslog, log_as
from tests.sources.collecting import Collected, Counts, running

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_rules, matcher_of, parser_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Batch, Trust
from vedette.model.clock import SystemClock
from vedette.model.findings import Finding
from vedette.model.reasons import BlameReason
from vedette.model.rules import LogSource
from vedette.sources.journal import JournalSource
from vedette.sources.settings import JournalSettings

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

SESSIONS = 240
_ABOUT_VICTIM = {VICTIM, "203.0.113.0/24"}
_HEADER = re.compile(rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d |\d{4}-\d\d-\d\dT|<\d+>")

# Packs count up to a threshold; this fires at every record that names an address at all.
EVERY_ADDRESS = """\
title: Any record with an address
id: test-any-address
status: test
description: For the test of blame.
level: medium
logsource: {product: linux, service: sshd}
detection:
  any:
    source.ip|exists: true
  condition: any
vedette:
  response: {target: source.ip, lease: 1h}
"""


@dataclass
class Verdict:
    """What became of some batches: addresses by how many records name them, and every finding."""

    addresses: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    records: int = 0

    def blamed(self) -> set[str]:
        """Whom a finding may cause to be blocked: what its key or its address says."""
        allowed = [finding for finding in self.findings if finding.blame is BlameReason.ALLOWED]
        return {
            str(value)
            for finding in allowed
            for name, value in [("source.ip", finding.source_ip), *finding.key.items()]
            if name in ("source.ip", "vedette.source.prefix") and value
        }


def judge(batches: Iterable[Batch], scratch: Path) -> Verdict:
    """All batches through the real parser and engine with all packs."""
    (scratch / "every.yml").write_text(EVERY_ADDRESS)
    counters = Counters()
    matcher = matcher_of(load_rules([scratch / "every.yml"]), counter=counters)
    engine = Engine(matcher, Correlator(matcher.rules, counter=counters), counters)
    parser = parser_of([LogSource()], counters)
    verdict = Verdict()
    for batch in batches:
        verdict.records += len(batch)
        column = parser.parse(batch).column("source.ip")
        for row in range(len(batch)):
            value = column.value(row)
            if value is not None:
                verdict.addresses[str(value)] = verdict.addresses.get(str(value), 0) + 1
        verdict.findings += engine.process(batch).findings
    return verdict


def batches_of(lines: Sequence[bytes], trust: Trust = Trust.ATTESTED) -> list[Batch]:
    """Lines in batches of several sizes: trusted fully, so that nothing but the parser stands before a block."""
    now, batches, at = time.time_ns() // 1000, [], 0
    for size in (1, 7, 200, *[1000] * (len(lines) // 1000 + 1)):
        part = lines[at : at + size]
        at += size
        if part:
            batches.append(replace(batch_of_lines(part, year=0, read_at=now), number=len(batches), trust=trust))
    return batches


def assert_nobody_else(verdict: Verdict) -> None:
    # The fuzzer's legitimate sessions come from the same address: there is no other.
    assert verdict.addresses.keys() == {ATTACKER}
    assert verdict.addresses[ATTACKER] > 200
    assert verdict.blamed() == {ATTACKER, "198.51.100.0/24"} & verdict.blamed()
    assert ATTACKER in verdict.blamed()
    assert "ssh-brute-force-address" in {finding.rule_id for finding in verdict.findings}
    for finding in verdict.findings:
        assert finding.source_ip in ("", ATTACKER)
        assert finding.key.get("source.ip", ATTACKER) == ATTACKER
        assert not _ABOUT_VICTIM & {str(value) for name, value in finding.key.items() if name != "user.name"}


def assert_headerless_blame_nobody(run: FuzzRun, scratch: Path) -> None:
    """Lines of an `sshd -E` file: newlines in a user name are newlines there, whole lines are the attacker's."""
    bare = [line for line in run.headerless if not _HEADER.match(line)]
    assert sum(VICTIM.encode() in line for line in bare) > 20
    verdict = judge(batches_of(bare), scratch)
    assert (verdict.addresses, verdict.findings) == ({}, [])
    # With a header in the name as well they look right; a file is never taken at its word unless the operator says so.
    assert not judge(batches_of(run.headerless, Trust.FORGEABLE), scratch).blamed()


@pytest.mark.parametrize(("header", "seed"), [("rfc3164", 11), ("rfc3339", 12)])
def test_through_rsyslog(wire: Wire, start_rsyslog: Callable[..., Rsyslog], scratch: Path, header: Header, seed: int):
    rsyslog = start_rsyslog(scratch / "auth.log", header=header)
    run = collect(wire, scratch / "fuzz", seed=seed, sessions=SESSIONS, devlog=rsyslog.devlog)
    rsyslog.close()
    lines = (scratch / "auth.log").read_bytes().split(b"\n")[:-1]
    assert sum(VICTIM.encode() in line for line in lines) > 200
    verdict = judge(batches_of(lines), scratch)
    assert verdict.records == len(lines)
    assert_nobody_else(verdict)
    assert_headerless_blame_nobody(run, scratch)


async def test_through_the_journal(wire: Wire, start_journald: Callable[..., Journald], scratch: Path):
    journal = start_journald(scratch / "journal")
    run = collect(wire, scratch / "fuzz", seed=13, sessions=SESSIONS, devlog=journal.devlog)
    log_as(journal.devlog, "that was all", tag="test")
    settings = JournalSettings.model_validate({"folder": str(scratch / "journal"), "begin": "beginning"})
    source = JournalSource(settings, host_id="h", clock=SystemClock(), counter=Counts())
    async with running(source, Collected()) as got:
        await got.until(lambda got: b"that was all" in got.records, 60)
    assert sum(VICTIM.encode() in record for record in got.records) > 200
    verdict = judge(got.batches, scratch)
    assert_nobody_else(verdict)
    assert_headerless_blame_nobody(run, scratch)


def test_through_a_socket_of_ours(wire: Wire, scratch: Path):
    # No daemon that escapes for us stands between: bytes beyond ASCII come as sshd wrote them.
    run = collect(wire, scratch / "fuzz", seed=14, sessions=SESSIONS)
    assert_nobody_else(judge(batches_of(run.lines), scratch))


def test_the_judge_would_see_it(scratch: Path):
    line = f"Nov 24 03:00:00 bastion sshd[1]: Failed password for root from {VICTIM} port 22 ssh2".encode()
    verdict = judge(batches_of([line]), scratch)
    assert verdict.addresses == {VICTIM: 1}
    assert verdict.blamed() == {VICTIM}
    with pytest.raises(AssertionError):
        assert_nobody_else(verdict)

"""What the source tells becomes alerts by the rules of its pack, and its cursor keeps what was said.
Counterpart: src/vedette/sources/liveness.py."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from tests.sources.collecting import Counts

from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.batch import Batch, Trust
from vedette.model.clock import SystemClock
from vedette.model.findings import Finding
from vedette.model.liveness import Fault, LivenessEvent
from vedette.sources.liveness import LivenessSource, words


class Judged:
    """Says what it is given, once."""

    def __init__(self, events: list[LivenessEvent], stands: list[LivenessEvent]) -> None:
        self.events, self.stands = events, stands

    def look(self, now: int) -> list[LivenessEvent]:
        said, self.events = self.events, []
        return said

    def standing(self, now: int) -> list[LivenessEvent]:
        return self.stands

    def cursor(self) -> str:
        return "kept"


def event(fault: Fault, over: bool) -> LivenessEvent:
    now = SystemClock().now()
    return LivenessEvent(fault, over, "6f0c", "web1", "journal", "disk\x1b[2J", now, now, 3)


def told(events: list[LivenessEvent], stands: list[LivenessEvent] | None = None) -> list[Batch]:
    batches: list[Batch] = []

    async def main() -> None:
        source = LivenessSource(
            Judged(events, stands or []), host_id="hub", clock=SystemClock(), counter=Counts(), every=0.001
        )
        enough = asyncio.Event()

        async def emit(batch: Batch) -> None:
            batches.append(batch)
            if batch.cursor:
                enough.set()

        task = asyncio.create_task(source.run(emit))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    return batches


def judged(batch: Batch) -> list[Finding]:
    counter = Counters()
    matcher = matcher_of(load_rules([], packs=True), counter=counter)
    return list(Engine(matcher, Correlator(matcher.rules, counter=counter), counter).process(batch).findings)


def test_every_fault_opens_an_alert_and_its_end_clears_that_one() -> None:
    [batch] = told([event(fault, over) for fault in Fault for over in (False, True)])
    assert (batch.trust, batch.cursor) == (Trust.ATTESTED, "kept")
    findings = judged(batch)
    assert len(findings) == 2 * len(Fault)
    for fault in Fault:
        begun, over = [one for one in findings if one.rule_id.removesuffix("-over") == f"liveness-{fault.value}"]
        assert over.clears == begun.rule_id
        assert over.key == begun.key
        assert begun.key["host.name"] == "web1"


def test_a_long_list_is_cut_and_only_its_end_has_the_cursor() -> None:
    batches = told([event(Fault.AGENT_ABSENT, over=False)] * 450)
    assert [(len(batch), batch.cursor) for batch in batches] == [(200, ""), (200, ""), (50, "kept")]
    assert [int(batch.positions[0]) for batch in batches] == [0, 200, 400]


def test_words_of_a_group_name_its_hosts() -> None:
    now = SystemClock().now()
    group = LivenessEvent(Fault.AGENTS_ABSENT, False, "", "", "", "no-report", now, now, 2, "1", ("web1", "web2"))
    assert words(group).startswith("2 hosts: agents absent: no-report since ")
    assert words(group).endswith(": web1, web2")


def test_what_stands_is_told_again_at_the_start_and_opens_no_alert():
    old, new = event(Fault.AGENT_ABSENT, False), event(Fault.SOURCE_STOPPED, False)
    [batch] = told([new], [old, new])
    actions = [orjson.loads(batch.raw(row))["event"]["action"] for row in range(len(batch))]
    assert actions == ["source-stopped", "agent-absent-stands"]
    assert [one.rule_id for one in judged(batch)] == ["liveness-source-stopped"]

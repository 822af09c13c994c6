from __future__ import annotations

from pathlib import Path

import pytest
from tests.app.parts import Rig
from tests.app.test_replay import replay, write

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.app.pipeline import QUIET_AFTER
from vedette.detections.correlate import LATENESS
from vedette.model.clock import HOUR, MINUTE, SECOND
from vedette.model.levels import Level
from vedette.model.rules import Comparison, Correlate, CorrelationKind, Op, Rule, Test, Threshold

BEAT = Rule("beat", "Heartbeat", Level.LOW, when=Test("event.action", Op.EQUALS, ("beat",)), silent=True)
MISSED = Rule(
    "missed",
    "Heartbeat missed",
    Level.HIGH,
    key=("host.name",),
    correlate=Correlate(
        CorrelationKind.EVENT_COUNT, ("beat",), ("host.name",), HOUR, (Threshold(Comparison.LT, 2),)
    ),
)  # fmt: skip


def findings_of(rig: Rig) -> list[tuple[str, int, int]]:
    found = [rig.state.finding(one) for alert in rig.alerts_of("missed") for one in alert.finding_ids]
    return [(one.rule_id, one.count, one.time) for one in found if one is not None]


def test_a_heartbeat_that_stops_is_told_although_no_record_comes() -> None:
    rig = Rig(rules=[BEAT, MISSED])
    begun = rig.clock.now()
    for _ in range(3):
        rig.take(rig.line("beat"))
        rig.wait(30 * MINUTE)
    last = begun + HOUR
    rig.wait(last + HOUR + LATENESS - rig.clock.now())
    assert findings_of(rig) == []
    rig.wait(SECOND)
    assert findings_of(rig) == [("missed", 1, last)]


def test_the_wall_clock_waits_while_records_come() -> None:
    rig = Rig(rules=[BEAT, MISSED])
    rig.take(rig.line("beat"))
    begun = rig.clock.now()
    rig.clock.advance(2 * HOUR)
    # Read late, as after a pause: its own times count.
    rig.take(rig.line("beat", at=begun + 20 * MINUTE))
    rig.wait(QUIET_AFTER - 1)
    assert findings_of(rig) == []
    rig.wait(1)
    assert [rule for rule, _, _ in findings_of(rig)] == ["missed"]


def test_what_waits_for_its_window_survives_a_restart() -> None:
    rig = Rig(rules=[BEAT, MISSED])
    begun = rig.clock.now()
    rig.take(rig.line("beat", more="user.name=bob"))
    rig.wait(2 * SECOND)
    rig.start()
    rig.wait(2 * HOUR)
    assert findings_of(rig) == [("missed", 1, begun)]
    rig.start()
    rig.wait(2 * HOUR)
    assert len(findings_of(rig)) == 1


RULES = """
title: Login
id: my-login
name: login
level: low
logsource: {product: linux, service: sshd}
detection: {s: {event.action: ssh-login-succeeded}, condition: s}
---
title: Nobody logs in
id: my-silence
level: high
correlation: {type: event_count, rules: login, group-by: user.name, timespan: 10m, condition: {eq: 0}}
"""


@pytest.mark.parametrize("chunk", [1, 60, 200, 1 << 20])
@pytest.mark.parametrize("files", [1, 2])
def test_a_replay_judges_up_to_its_last_record(tmp_path: Path, chunk: int, files: int) -> None:
    (tmp_path / "r.yml").write_text(RULES)
    matcher = load_matcher([tmp_path / "r.yml"], packs=False, counter=Counters())
    login = "Mar  1 {}:00 web1 sshd[8]: Accepted password for {} from 192.0.2.1 port 401 ssh2"
    other = "Mar  1 {}:00 web1 CRON[9]: (root) CMD (true)"
    lines = [login.format("10:00", "alice"), login.format("10:05", "alice"), other.format("10:15")]
    paths = [write(tmp_path / "a.log", lines)]
    more = [other.format("10:16"), login.format("10:17", "bob"), other.format("10:26")]
    if files == 1:
        write(tmp_path / "a.log", lines + more)
    else:
        paths.append(write(tmp_path / "b.log", more))
    for workers in (1, 2):
        found = replay(paths, matcher, chunk=chunk, workers=workers)
        assert [(one.key["user.name"], one.count, one.sample[7:12]) for one in found] == [("alice", 0, "10:05")]
    write(paths[-1], [*(lines if files == 1 else []), *more, other.format("10:28")])
    assert [one.key["user.name"] for one in replay(paths, matcher, chunk=chunk)] == ["alice", "bob"]

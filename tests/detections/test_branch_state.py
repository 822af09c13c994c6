"""What decision trees remember: as bytes that mean the same after a restart, and no more of it than is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.counters import Counters
from vedette.detections import branch_state
from vedette.detections.branch_state import BranchState, Seen
from vedette.detections.entries import Entry
from vedette.model.findings import key_text
from vedette.rules.ossec import Dialect, read_ossec

ORIGIN = ("h", "s", "g")
RULES = """
<decoder name="door"><program_name>^door</program_name></decoder>
<group name="door,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>
  <rule id="101" level="5"><if_sid>1</if_sid><match>x</match><description>x</description></rule>
  <rule id="102" level="10" frequency="2" timeframe="60"><if_matched_sid>101</if_matched_sid>
    <description>twice</description></rule>
  <rule id="103" level="9" frequency="2" timeframe="60"><if_matched_sid>101</if_matched_sid><same_user />
    <description>twice, one person</description></rule>
  <rule id="104" level="6"><if_sid>1</if_sid><match>y</match><ignore>srcip</ignore><description>y</description></rule>
</group>
"""


@pytest.fixture
def made(tmp_path: Path) -> tuple[BranchState, BranchState, dict[str, int]]:
    """Two states of the same rules, and the index of each rule."""
    path = tmp_path / "door.xml"
    path.write_text(RULES)
    rules = read_ossec([path], [], Dialect.OSSEC).rules
    one, other = (BranchState(rules, {}, Counters(), max_keys=100, track=True) for _ in range(2))
    return one, other, {rule.id: index for index, rule in enumerate(rules)}


def test_what_one_rule_fired_on_no_lesser_rule_counts_after_a_restart(
    made: tuple[BranchState, BranchState, dict[str, int]],
):
    before, after, index = made
    keys = {"102": ("h",), "103": ("h", "ann")}
    seen = [Seen(Entry(time, 1, 0, 0, time, 0, None), "", -1) for time in range(3)]
    for one in seen:
        for rule, key in keys.items():
            before.remember(index[rule], key, one, ())
    kept = before.changes([ORIGIN])
    assert before.before(index["102"], keys["102"], (), 3) is not None
    kept |= before.changes([ORIGIN])
    # In the order in which a store may give them: the lesser rule first.
    for (rule, _name), data in sorted(kept.items(), reverse=True):
        assert data is not None
        pairs = {"kind": "events", "host.id": "", **{str(n): one for n, one in enumerate(keys[rule])}}
        after.restore(rule, pairs, data, {ORIGIN: 0})
    assert before.before(index["103"], keys["103"], (), 3) is None
    assert after.before(index["103"], keys["103"], (), 3) is None


def test_what_is_no_longer_ignored_is_forgotten_by_the_store(
    made: tuple[BranchState, BranchState, dict[str, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(branch_state, "_MOST_SEEN", 2)
    state, _other, index = made
    fields = ("ossec.data.srcip",)
    for number in range(3):
        state.ignore(index["104"], "h", fields, (f"192.0.2.{number}",))
    kept = state.changes([ORIGIN])
    name = key_text({"kind": "ignored", "host.id": "h", "0": "192.0.2.0"})
    assert kept["104", name] is None
    assert sum(data is not None for data in kept.values()) == 2

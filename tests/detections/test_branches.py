"""Decision trees: one rule a record, what must have come before, and the same findings for any cut, worker and restart.
Counterpart: `detections.trees`, `detections.branches`, `detections.branch_state`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.detections.wire import pack, unpack
from vedette.model.findings import Finding
from vedette.rules.ossec import Dialect, read_ossec

RULES = r"""
<decoder name="door">
  <program_name>^door</program_name>
  <regex>^(\w+) (\w+) by (\S+)</regex>
  <order>action, user, srcip</order>
  <fts>name, user</fts>
</decoder>
<group name="door,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>
  <rule id="100" level="0"><decoded_as>door</decoded_as><description>door</description></rule>
  <rule id="101" level="5"><if_sid>100</if_sid><match>^refused</match><description>refused</description>
    <group>failed,</group></rule>
  <rule id="102" level="10" frequency="3" timeframe="60"><if_matched_sid>101</if_matched_sid><same_source_ip />
    <description>refused often</description></rule>
  <rule id="103" level="11" frequency="4" timeframe="600"><if_matched_group>failed</if_matched_group><same_user />
    <different_srcip /><description>one person from everywhere</description></rule>
  <rule id="104" level="3"><if_sid>100</if_sid><match>^opened</match><description>opened</description></rule>
  <rule id="105" level="4"><if_sid>104</if_sid><if_fts /><description>first time</description></rule>
  <rule id="106" level="7" ignore="30"><if_sid>100</if_sid><match>^jammed</match>
    <description>jammed</description></rule>
  <rule id="107" level="8"><if_sid>101</if_sid><user>root</user><description>root</description></rule>
  <rule id="108" level="6" noalert="1"><if_sid>100</if_sid><match>^closed</match>
    <description>passes</description></rule>
  <rule id="109" level="2"><if_sid>100</if_sid><match>closed</match><description>closed</description></rule>
  <rule id="110" level="9" frequency="2" timeframe="600"><if_matched_sid>102</if_matched_sid>
    <description>again</description></rule>
</group>
"""


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tmp_path_factory.mktemp("rules") / "door.xml"
    path.write_text(RULES)
    found = read_ossec([path], [], Dialect.WAZUH)
    assert found.problems == ()
    return matcher_of(found.rules, counter=Counters())


def line(second: int, what: str, user: str = "ann", address: int = 1) -> bytes:
    return b"Feb  9 11:%02d:%02d gw door[1]: %s %s by 192.0.2.%d" % (
        second // 60,
        second % 60,
        what.encode(),
        user.encode(),
        address,
    )


def run(
    matcher: Matcher, batches: Sequence[Sequence[bytes]], *, restart: bool = False, wire: bool = False
) -> list[Finding]:
    correlator = Correlator(matcher.rules, counter=Counters(), track=restart)
    stored: dict[tuple[str, str], bytes] = {}
    findings: list[Finding] = []
    done = 0
    for lines in batches:
        batch = batch_of_lines(lines, year=2026)
        batch.positions[:] += done
        done += len(lines)
        matches = matcher.match(batch)
        if wire:
            matches = unpack(pack(matches, batch.starts, batch.ends)).matches
        findings += correlator.process(stretch_of(batch, matches)).findings
        if restart:
            for key, value in correlator.changes().items():
                if value is None:
                    stored.pop(key, None)
                else:
                    stored[key] = value
            correlator = Correlator(matcher.rules, counter=Counters(), track=True)
            correlator.restore((rule_id, name, value) for (rule_id, name), value in stored.items())
    return findings


def ids(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule_id for finding in findings]


def test_the_deepest_rule_that_holds_has_the_record(matcher: Matcher):
    assert ids(run(matcher, [[line(1, "refused"), line(2, "refused", "root"), line(3, "other")]])) == ["101", "107"]


def test_a_rule_that_passes_is_never_the_outcome(matcher: Matcher):
    assert ids(run(matcher, [[line(1, "closed")]])) == ["109"]


def test_what_counts_fires_on_the_record_that_fills_it_and_begins_anew(matcher: Matcher):
    found = run(matcher, [[line(second, "refused") for second in range(7)]])
    assert ids(found) == ["101", "101", "102", "101", "101", "102", "101"]
    assert found[2].count == 3
    assert [evidence.record_id.rsplit("/", 1)[-1] for evidence in found[2].records] == ["0:1", "0:2", "0:3"]
    assert found[2].key == {"source.ip": "192.0.2.1"}


def test_records_of_another_address_or_too_long_ago_do_not_count(matcher: Matcher):
    assert "102" not in ids(run(matcher, [[line(second, "refused", address=second + 1) for second in range(2)]]))
    assert "102" not in ids(run(matcher, [[line(0, "refused"), line(1, "refused"), line(62, "refused")]]))
    assert "102" in ids(run(matcher, [[line(0, "refused"), line(1, "refused"), line(60, "refused")]]))


def test_different_values_are_asked_for(matcher: Matcher):
    found = run(matcher, [[line(second, "refused", address=second + 1) for second in range(4)]])
    assert ids(found) == ["101", "101", "101", "103"]
    assert found[3].key == {"user.name": "ann"}


def test_what_is_seen_first_is_told_once(matcher: Matcher):
    found = run(matcher, [[line(1, "opened"), line(2, "opened"), line(3, "opened", "bob")]])
    assert ids(found) == ["105", "104", "105"]


def test_a_quiet_time_follows_a_firing(matcher: Matcher):
    assert ids(run(matcher, [[line(0, "jammed"), line(29, "jammed"), line(30, "jammed")]])) == ["106", "106"]


LINES = st.lists(
    st.builds(
        line,
        st.integers(0, 90),
        st.sampled_from(["refused", "refused", "refused", "opened", "jammed", "closed", "other"]),
        st.sampled_from(["ann", "root"]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@given(lines=LINES, cuts=st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=25, deadline=None)
def test_the_same_findings_for_any_cut_worker_and_restart(matcher: Matcher, lines: list[bytes], cuts: list[int]):
    lines.sort()
    bounds = sorted({0, len(lines), *(cut for cut in cuts if cut < len(lines))})
    batches = [lines[begin:end] for begin, end in pairwise(bounds)]
    whole = run(matcher, [lines])
    told = [(one.id, one.rule_id, one.count, one.key, one.records) for one in whole]
    for other in (run(matcher, batches), run(matcher, batches, wire=True), run(matcher, batches, restart=True)):
        assert [(one.id, one.rule_id, one.count, one.key, one.records) for one in other] == told


def test_a_diamond_of_rules_that_pass_does_not_explode(tmp_path: Path):
    rules = ['<rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>']
    above = ["1"]
    for depth in range(30):
        names = [str(1000 + 2 * depth), str(1001 + 2 * depth)]
        rules += [
            f'<rule id="{name}" level="3" noalert="1"><if_sid>{",".join(above)}</if_sid><match>a</match></rule>'
            for name in names
        ]
        above = names
    path = tmp_path / "deep.xml"
    path.write_text(f'<decoder name="d"><prematch>zz</prematch></decoder><group name="g">{"".join(rules)}</group>')
    found = read_ossec([path], [])
    assert run(matcher_of(found.rules, counter=Counters()), [[line(1, "a")] * 3]) == []


def test_a_flood_of_keys_is_bounded_and_counted(matcher: Matcher):
    counters = Counters()
    correlator = Correlator(matcher.rules, counter=counters, max_keys=50)
    lines = [line(second // 10, "refused", address=second % 250) for second in range(500)]
    batch = batch_of_lines(lines, year=2026)
    correlator.process(stretch_of(batch, matcher.match(batch)))
    known = correlator._branches.state._counted
    assert max(map(len, known.values())) <= 51
    assert "state-evicted" in str(counters.snapshot() if hasattr(counters, "snapshot") else vars(counters))

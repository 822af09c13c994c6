"""The same change on many hosts is one alert that names them; another file, or the same one with other content, is not.
Counterpart: `vedette.integrity.change` of records.py, and the keys of rules/packs/integrity.yml."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from vedette.alerts import lifecycle
from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.findings import Finding
from vedette.model.integrity import Change, ChangeKind, Entry, FileType
from vedette.model.rules import Rule
from vedette.sources.integrity.compare import attributes_of
from vedette.sources.integrity.records import change_record
from vedette.sources.told import Teller
from vedette.testing.clock import FakeClock
from vedette.testing.state import MemoryState

HOSTS = [f"00000000-0000-4000-8000-{number:012}" for number in range(200)]


def found_on(hosts: list[str], path: bytes, content: bytes) -> tuple[list[Finding], dict[str, Rule]]:
    """What the pack finds where each host, at its own time, with inodes of its own, tells of the change."""
    pack = resources.files("vedette") / "rules" / "packs" / "integrity.yml"
    matcher = matcher_of(load_rules([Path(str(pack))], packs=False), counter=Counters())
    engine = Engine(matcher, Correlator(matcher.rules, counter=Counters()), Counters())
    clock, found = FakeClock(), []
    for number, host in enumerate(hosts):
        clock.advance(1_000_000)
        before = Entry(path, FileType.FILE, 0o755, 0, 0, 5, 1, 2 + number, 100 + number, 7, 1, sha256=bytes(32))
        after = replace(before, sha256=content * 32, mtime_ns=3 + number, ctime_ns=4 + number, inode=900 + number)
        change = Change(ChangeKind.CHANGED, path, attributes_of(before, after), before, after, at=clock.now())
        batch = Teller(host, "integrity", 0).batch([change_record(change)], 0, "", clock.now())
        found += engine.process(batch).findings
    return found, {rule.id: rule for rule in matcher.rules}


def opened(found: list[Finding], rules: dict[str, Rule]) -> list[tuple[str, int]]:
    store = MemoryState()
    with store.transaction() as tx:
        lifecycle.apply(found, [], tx, 1, rules, Counters(), host_id="hub")
    return [(alert.rule_id, alert.finding_count) for alert in store.alerts()]


def test_the_same_change_on_200_hosts_is_one_alert() -> None:
    found, rules = found_on(HOSTS, b"/usr/bin/ssh", b"\1")
    assert {one.host_id for one in found} == set(HOSTS)
    assert opened(found, rules) == [("integrity-program", 200)]


def test_one_that_has_other_content_is_an_alert_of_its_own() -> None:
    found, rules = found_on(HOSTS[:199], b"/usr/bin/ssh", b"\1")
    other, _ = found_on(HOSTS[199:], b"/usr/bin/ssh", b"\2")
    third, _ = found_on(HOSTS[:1], b"/usr/bin/scp", b"\1")
    assert sorted(opened([*found, *other, *third], rules)) == [
        ("integrity-program", 1),
        ("integrity-program", 1),
        ("integrity-program", 199),
    ]

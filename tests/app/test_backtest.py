"""A rule over the lake: whom it would have blocked, and who of them was a customer.
Counterpart: vedette.app.backtest."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.app.search_parts import lake_of, put
from tests.cli.parts import Place

from vedette.app.backtest import backtest
from vedette.app.counters import Counters
from vedette.app.detection import load_rules, matcher_of
from vedette.app.promotion import needed
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.model.errors import VedetteError
from vedette.model.reasons import RefusalReason
from vedette.respond.allowlist import Guard
from vedette.text.times import parse_rfc3339, rfc3339

RULE = "ssh-brute-force-address"
BASE = parse_rfc3339("2026-01-01T00:00:00Z")
CREATED = BASE + 40 * 86_400_000_000
EVER = 2**60
OTHER = "22222222-2222-4222-8222-222222222222"


def failed(second: int, address: str) -> bytes:
    time = rfc3339(BASE + second * 1_000_000)
    return f"{time} web01 sshd[1]: Failed password for root from {address} port 9 ssh2".encode()


def accepted(second: int, address: str, user: str) -> bytes:
    time = rfc3339(BASE + second * 1_000_000)
    return f"{time} web01 sshd[1]: Accepted password for {user} from {address} port 9 ssh2".encode()


BATCHES = [
    [accepted(0, "203.0.113.7", "carol")],
    [failed(86_400 * 30 + second, address) for second in range(6) for address in ("203.0.113.7", "203.0.113.8")],
    [failed(86_400 * 30 + 20 + second, "203.0.113.9") for second in range(3)],
    [accepted(86_400 * 30 + 60, "203.0.113.8", "dave")],
    [failed(86_400 * 30 + 70 + second, "203.0.113.10") for second in range(6)],
]


@pytest.fixture(scope="module")
def rules():
    return load_rules([])


@pytest.fixture
def lake(tmp_path):
    with lake_of(tmp_path / "lake", BATCHES, created=CREATED) as made:
        yield made


def run(lake, rules, **options):
    rule = next(rule for rule in rules if rule.id == RULE)
    return backtest(lake, rules, rule, **{"since": -EVER, "until": EVER, **options})


def test_it_finds_what_the_engine_finds_live(lake, rules):
    rule = next(rule for rule in rules if rule.id == RULE)
    matcher = matcher_of(needed(rules, rule), counter=Counters())
    engine = Engine(matcher, Correlator(matcher.rules, counter=Counters()), Counters())
    live = [finding for taken in lake.read(0, 100) for finding in engine.process(taken.batch).findings]
    report = run(lake, rules)
    assert report.findings == len([finding for finding in live if finding.rule_id == RULE]) == 3
    assert {block.at for block in report.blocks} == {finding.time for finding in live if finding.rule_id == RULE}
    assert report.records == sum(map(len, BATCHES))


def test_who_logged_in_before_or_after_was_a_customer(lake, rules):
    report = run(lake, rules)
    blocks = {block.target: block for block in report.blocks}
    assert set(blocks) == {"203.0.113.7", "203.0.113.8", "203.0.113.10"}
    assert [login.user for login in blocks["203.0.113.7"].before] == ["carol"]
    assert [login.user for login in blocks["203.0.113.8"].after] == ["dave"]
    assert {block.target for block in report.false_blocks} == {"203.0.113.7", "203.0.113.8"}
    assert blocks["203.0.113.10"].evidence[0].endswith("/auth/0:1")
    assert blocks["203.0.113.10"].until > blocks["203.0.113.10"].at


def test_who_logged_in_lately_weighs_less_and_is_not_blocked(tmp_path, rules):
    batches = [[accepted(0, "203.0.113.7", "root")], [failed(60 + second, "203.0.113.7") for second in range(6)]]
    with lake_of(tmp_path / "lake", batches, created=CREATED) as lake:
        report = run(lake, rules)
    assert report.blocks == []
    assert report.refused == {RefusalReason.KNOWN_LOGIN: 1}


def test_floor_and_allowlist_stand_above_it(lake, rules):
    report = run(lake, rules, guard=Guard(floor=[ip_network("203.0.113.0/28")]))
    assert report.blocks == []
    assert report.refused == {RefusalReason.HARD_FLOOR: 3}


def test_each_host_counts_for_itself(tmp_path, rules):
    with lake_of(tmp_path / "lake", []) as lake:
        put(lake, 1, [failed(second, "203.0.113.7") for second in range(3)])
        put(lake, 1, [failed(second, "203.0.113.7") for second in range(3, 6)], host_id=OTHER)
        lake.flush()
        assert run(lake, rules).blocks == []
        put(lake, 2, [failed(second, "203.0.113.7") for second in range(6, 9)], host_id=OTHER)
        lake.flush()
        (block,) = run(lake, rules).blocks
        assert block.host_id == OTHER
        assert run(lake, rules, hosts=frozenset({"none"})).records == 0


def test_a_second_finding_while_blocked_is_the_same_offence(tmp_path, rules):
    rule = next(rule for rule in rules if rule.id == RULE)
    assert rule.response is not None
    day = 86_400
    batches = [[failed(start + second, "203.0.113.7") for second in range(6)] for start in (0, 1800, 3 * day)]
    with lake_of(tmp_path / "lake", batches, created=CREATED) as lake:
        report = run(lake, rules)
    assert [(block.findings, block.offence) for block in report.blocks] == [(2, 1), (1, 2)]


def test_a_rule_that_asks_for_no_block_is_refused(lake, rules):
    rule = replace(next(rule for rule in rules if rule.id == RULE), response=None)
    with pytest.raises(VedetteError, match="asks for no block"):
        backtest(lake, rules, rule, since=0, until=EVER)


def test_the_command_says_it_and_exits_with_1_where_a_customer_was_hit(tmp_path):
    place = Place(tmp_path)
    with lake_of(place.data / "lake", BATCHES, created=CREATED):
        pass
    ran = place.run("block", "backtest", RULE, "--since", "1970-01-01", "--output", "json")
    assert ran.code == 1
    assert {row["target"] for row in ran.records if row["false"]} == {"203.0.113.7", "203.0.113.8"}
    assert "3 blocks of 23 records" in ran.err
    text = place.run("block", "backtest", RULE, "--since", "1970-01-01").out
    assert "FALSE BLOCKS" in text
    assert "carol" in text
    assert place.run("block", "backtest", "ssh-brute-force-addres").code == 2

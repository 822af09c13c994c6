from __future__ import annotations

from vedette.alerts.keys import alert_key, finding_fields
from vedette.app import own
from vedette.model.reasons import BlameReason
from vedette.model.rules import RuleKind

ME = own.Self("host-1", "web1")
NOW = 1_795_478_400_000_000


def test_it_speaks_of_this_host_and_blames_nobody():
    found = ME.finding(own.FUSE_BLOWN, {"rule.id": "brute"}, NOW, "more than allowed")
    assert (found.host_id, found.host_name, found.level, found.count) == ("host-1", "web1", own.FUSE_BLOWN.level, 1)
    assert (found.blame, found.source_ip) == (BlameReason.NO_ADDRESS, "")
    assert found.records[0].record_id == f"host-1/vedette/{NOW}"


def test_the_same_words_at_the_same_moment_are_one_finding_and_others_are_not():
    def identity(rule=own.CLOCK_SKEWED, source="journal", now=NOW, words="words"):
        return ME.finding(rule, {"vedette.source": source}, now, words).id

    assert identity() == identity()
    others = [identity(own.FUSE_BLOWN), identity(source="stdin"), identity(now=NOW + 1), identity(words="other words")]
    assert len({identity(), *others}) == 5


def test_words_of_others_reach_nobody_with_control_characters():
    found = ME.finding(own.ENFORCER_FAILED, {"vedette.enforcer": "nft"}, NOW, "nft says \x1b[2J\nno")
    assert found.sample.isprintable()
    assert "nft says" in found.sample


def test_what_clears_a_condition_has_its_key():
    for rule in own.RULES:
        assert rule.id.startswith("vedette-")
        assert rule.advice or rule.clears
    cleared = {rule.clears: rule for rule in own.RULES if rule.clears}
    conditions = {rule.id: rule for rule in own.RULES if rule.kind is RuleKind.CONDITION}
    # A condition nothing clears would stay for ever; of this one a person decides.
    del conditions[own.PAGE_BUDGET_SPENT.id]
    assert conditions.keys() == cleared.keys()
    for rule_id, condition in conditions.items():
        key = dict.fromkeys(condition.key, "x")
        failed = ME.finding(condition, key, NOW, "failed")
        mended = ME.finding(cleared[rule_id], key, NOW, "mended")
        assert mended.clears == rule_id
        assert alert_key(rule_id, finding_fields(failed, condition)) == alert_key(
            rule_id, finding_fields(mended, cleared[rule_id])
        )

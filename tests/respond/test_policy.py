from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.respond.parts import HOUR, MINUTE, NOW, RULE, Bench, finding, rule

from vedette.model.decisions import DecisionState, LiftReason, Target, TargetKind
from vedette.model.reasons import BlameReason, RefusalReason
from vedette.respond.allowlist import Entry, Guard
from vedette.respond.ladder import FuseLimit
from vedette.respond.policy import REFUSED_BY_BLAME, BlockRefusedError


def reasons(outcome):
    return [refusal.reason for refusal in outcome.refusals]


def address(text):
    return Target(TargetKind.ADDRESS, text)


def test_an_allowed_finding_of_an_enforcing_rule_blocks(bench):
    with bench.store.transaction() as tx:
        fired = finding()
        outcome = bench.policy.decide([fired], tx, NOW, {fired.id: "alert-1"})
    (decision,) = outcome.enforce
    assert decision == bench.store.active["198.51.100.7"]
    assert decision.target == address("198.51.100.7")
    assert (decision.owner, decision.reason, decision.alert_id) == (f"rule:{RULE}", RULE, "alert-1")
    assert (decision.starts_at, decision.expires_at, decision.offence) == (NOW, NOW + HOUR, 1)
    assert decision.evidence == tuple(f"h/journal/0:{n}" for n in range(5))
    assert decision.finding_id == fired.id
    assert not outcome.refusals


@pytest.mark.parametrize("blame", [one for one in BlameReason if one is not BlameReason.ALLOWED])
@pytest.mark.parametrize("rung", ["observe", "simulate", "enforce"])
def test_whoever_may_not_be_blamed_is_not_blocked(blame, rung):
    bench = Bench(rungs={RULE: rung})
    outcome = bench.decide(finding(blame=blame))
    assert not outcome.enforce
    assert not bench.store.active
    assert reasons(outcome) == [REFUSED_BY_BLAME[blame]]
    assert [one.reason for one in bench.store.refusals] == reasons(outcome)
    # Forgeable: simulated, so that a person sees what it would do.
    assert len(outcome.simulated) == (blame is BlameReason.SOURCE_FORGEABLE and rung != "observe")


def test_rungs():
    bench = Bench(rungs={"b": "simulate"}, rules=[rule("a"), rule("b")])
    outcome = bench.decide(finding(rule="a"), finding(rule="b"), finding(rule="without-response"))
    assert reasons(outcome) == [RefusalReason.RULE_OBSERVES, RefusalReason.RULE_SIMULATES]
    assert [one.state for one in outcome.simulated] == [DecisionState.SIMULATED]
    assert not outcome.enforce
    assert not bench.store.active
    assert reasons(bench.decide(finding(rule="b"))) == [RefusalReason.RULE_SIMULATES, RefusalReason.ALREADY_ACTIVE]


@pytest.mark.parametrize(("age", "refused"), [(HOUR, True), (HOUR - 1, False), (-HOUR, False)])
def test_a_record_older_than_its_lease_makes_no_decision(bench, age, refused):
    outcome = bench.decide(finding(time=NOW - age))
    assert reasons(outcome) == ([RefusalReason.RECORD_TOO_OLD] if refused else [])
    assert bool(outcome.enforce) != refused


@pytest.mark.parametrize("text", ["", "web01.example", "198.51.100.7:22", "$(reboot)", "1.2.3.4\n"])
def test_what_is_no_address_is_no_target(bench, text):
    outcome = bench.decide(finding(text, key={"source.ip": text}))
    expected = [] if text == "1.2.3.4\n" else [RefusalReason.NO_TARGET]
    assert reasons(outcome) == expected
    assert all(one.target.value == "1.2.3.4" for one in outcome.enforce)


def test_hostile_target_text_is_shown_escaped(bench):
    outcome = bench.decide(finding("\x1b[2J" + "x" * 500))
    assert "\x1b" not in outcome.refusals[0].target
    assert len(outcome.refusals[0].target) <= 100


def test_a_key_of_a_network_blocks_the_prefix():
    bench = Bench(rules=[rule(target="source.prefix")])
    (decision,) = bench.decide(finding(key={"source.prefix": "198.51.100.0/24"})).enforce
    assert decision.target == Target(TargetKind.PREFIX, "198.51.100.0/24")
    assert reasons(bench.decide(finding(key={"other": "198.51.100.0/24"}))) == [RefusalReason.NO_TARGET]


def test_mapped_addresses_are_one_target(bench):
    bench.decide(finding("::ffff:198.51.100.7"))
    assert reasons(bench.decide(finding("198.51.100.7"))) == [RefusalReason.ALREADY_ACTIVE]
    assert list(bench.store.active) == ["198.51.100.7"]


def test_active_already_the_longer_lease_wins(bench):
    first = bench.decide(finding()).enforce[0]
    outcome = bench.decide(finding(time=NOW + 5 * MINUTE), now=NOW + 5 * MINUTE)
    assert reasons(outcome) == [RefusalReason.ALREADY_ACTIVE]
    (longer,) = outcome.enforce
    assert (longer.id, longer.offence, longer.expires_at) == (first.id, 1, first.expires_at + 5 * MINUTE)
    assert len(bench.store.decisions) == 1
    # The same moment again: nothing to prolong, nothing to enforce.
    assert not bench.decide(finding(), now=NOW).enforce


def test_two_rules_in_one_call_make_one_decision():
    bench = Bench(rungs={"a": "enforce", "b": "enforce"}, rules=[rule("a", lease=HOUR), rule("b", lease=2 * HOUR)])
    outcome = bench.decide(finding(rule="a"), finding(rule="b"), finding(rule="a"))
    (decision,) = outcome.enforce
    assert (decision.owner, decision.expires_at) == ("rule:a", NOW + 2 * HOUR)
    assert reasons(outcome) == [RefusalReason.ALREADY_ACTIVE] * 2


def test_repeat_offenders_stay_longer_up_to_the_longest():
    bench = Bench(rules=[rule(lease=HOUR, factor=3, longest=10 * HOUR)])
    now, leases = NOW, []
    for offence in range(1, 6):
        (decision,) = bench.decide(finding(time=now), now=now).enforce
        assert decision.offence == offence
        leases.append(decision.expires_at - now)
        now = decision.expires_at
    assert leases == [HOUR, 3 * HOUR, 9 * HOUR, 10 * HOUR, 10 * HOUR]


def test_a_lease_that_ended_in_the_same_call_is_added_and_not_removed(bench):
    bench.decide(finding())
    outcome = bench.decide(finding(time=NOW + HOUR), now=NOW + HOUR)
    assert [one.target.value for one in outcome.enforce] == ["198.51.100.7"]
    assert outcome.remove == []
    assert sorted(one.state for one in bench.store.decisions.values()) == ["active", "expired"]


def test_simulated_blocks_do_not_make_a_real_one_longer():
    bench = Bench(rungs={RULE: "simulate"})
    bench.decide(finding())
    bench.policy.configure(Bench().settings, bench.rules)
    (decision,) = bench.decide(finding()).enforce
    assert decision.offence == 1


def test_expiry_sweep(bench):
    bench.decide(finding(), finding("198.51.100.8"))
    assert bench.run("expire", now=NOW + HOUR - 1).remove == []
    outcome = bench.run("expire", now=NOW + HOUR)
    assert {one.value for one in outcome.remove} == {"198.51.100.7", "198.51.100.8"}
    assert {one.state for one in bench.store.decisions.values()} == {DecisionState.EXPIRED}
    assert {one.ended_at for one in bench.store.decisions.values()} == {NOW + HOUR}


def test_what_ended_while_we_were_down_is_marked_too(bench):
    bench.decide(finding())
    later = Bench()
    later.store = bench.store
    assert len(later.run("expire", now=NOW + 9 * HOUR).remove) == 1
    assert bench.store.active == {}


# ---------------------------------------------------------------------------------------------- guard
def test_floor_and_allowlist_win_over_rules():
    guard = Guard([ip_network("192.0.2.1")], [Entry(ip_network("198.51.100.0/28"), "office")])
    bench = Bench(guard=guard)
    outcome = bench.decide(finding("192.0.2.1"), finding("127.0.0.1"), finding("198.51.100.7"))
    assert reasons(outcome) == [RefusalReason.HARD_FLOOR, RefusalReason.HARD_FLOOR, RefusalReason.ALLOWLISTED]
    assert not bench.store.decisions


def test_an_allowlist_entry_lifts_the_blocks_on_it(bench):
    bench.decide(finding(), finding("198.51.100.8"), finding("203.0.113.5"))
    outcome = bench.run("allow", Entry(ip_network("198.51.100.0/24"), "partner"), "alice")
    assert {one.value for one in outcome.remove} == {"198.51.100.7", "198.51.100.8"}
    assert list(bench.store.active) == ["203.0.113.5"]
    lifted = bench.store.of(DecisionState.LIFTED)["198.51.100.7"]
    assert (lifted.ended_by, lifted.lift_reason, lifted.ended_at) == ("operator:alice", LiftReason.ALLOWLISTED, NOW)
    assert reasons(bench.decide(finding())) == [RefusalReason.ALLOWLISTED]


def test_a_new_own_address_lifts_even_an_override(bench):
    bench.run("allow", Entry(ip_network("198.51.100.7")), "alice")
    bench.run("block", "198.51.100.7", MINUTE, "ticket 7", "alice", override=True)
    assert bench.run("lift_guarded").remove == []
    bench.guard.set_floor([ip_network("198.51.100.7")])
    assert bench.run("lift_guarded").remove == [address("198.51.100.7")]


@st.composite
def worlds(draw):
    near = st.integers(0, 7)
    four = near.map(lambda n: f"198.51.100.{n}")
    six = st.builds(lambda net, host: f"2001:db8:0:{net}::{host + 1}", near, near)
    one = st.one_of(four, six)
    entry = st.one_of(one, st.just("198.51.100.0/30"), st.just("2001:db8:0:1::/64"), st.just("2001:db8::/48"))
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("find"), one, st.sampled_from(["a", "b"]), st.integers(-3, 3)),
                st.tuples(st.just("allow"), entry),
                st.tuples(st.just("block"), entry),
                st.tuples(st.just("unblock"), entry),
                st.tuples(st.just("wait"), st.integers(1, 200)),
                st.tuples(st.just("expire")),
                st.tuples(st.just("forget")),
                st.tuples(st.just("fail"), one),
            ),
            max_size=40,
        )
    )
    return draw(st.lists(entry, max_size=2)), steps


@settings(max_examples=150)
@given(worlds())
def test_whatever_the_order(world):
    floor, steps = world
    guard = Guard([ip_network(text) for text in floor])
    rules = [rule("a", lease=HOUR), rule("b", lease=30 * MINUTE, factor=4)]
    bench = Bench(guard=guard, rules=rules, rungs={"a": "enforce", "b": "enforce"}, fuse={"per_minute": 6, "active": 9})
    allowed, now, kernel = [], NOW, {}
    for step in steps:
        before = dict(bench.store.active)
        outcome = None
        match step:
            case ("find", text, rule_id, age):
                outcome = bench.decide(finding(text, rule=rule_id, time=now - age * MINUTE), now=now)
            case ("allow", text):
                entry = Entry(ip_network(text))
                allowed.append(entry.network)
                outcome = bench.run("allow", entry, "o", now=now)
            case ("block", text):
                try:
                    _, outcome = bench.run("block", text, HOUR, "why", "o", now=now)
                except BlockRefusedError:
                    pass
            case ("unblock", text):
                try:
                    outcome = bench.run("unblock", text, "o", now=now)
                except BlockRefusedError:
                    pass
            case ("wait", minutes):
                now += minutes * MINUTE
            case ("expire",):
                outcome = bench.run("expire", now=now)
            case ("forget",):
                bench.policy.forget()
            case ("fail", text):
                bench.decide_and_fail(finding(text, rule="a", time=now), now=now)
                assert bench.store.active == before
        if outcome is not None:
            for one in outcome.enforce:
                kernel[one.target.value] = one.expires_at
            for target in outcome.remove:
                kernel.pop(target.value, None)
        active = bench.store.active
        # Never on floor or allowlist.
        for text in active:
            for network in [ip_network(one) for one in floor] + allowed:
                assert network.version != ip_network(text).version or not network.overlaps(ip_network(text))
        # One active decision a target, and never a shorter lease than before.
        running = [one for one in bench.store.decisions.values() if one.state is DecisionState.ACTIVE]
        assert len(running) == len(active) <= 9
        for text, decision in active.items():
            if text in before and before[text].id == decision.id:
                assert decision.expires_at >= before[text].expires_at
        # What the enforcer was told is what the store says, but for leases that ended by themselves.
        assert {t: e for t, e in kernel.items() if e > now} == {
            t: one.expires_at for t, one in active.items() if one.expires_at > now
        }


# ---------------------------------------------------------------------------------------------- fuse
def test_fuse_blows_is_said_once_and_mends():
    bench = Bench(fuse={"per_minute": 3, "active": 100})
    outcome = bench.decide(*(finding(f"198.51.100.{n}") for n in range(1, 8)))
    assert len(outcome.enforce) == 3
    assert reasons(outcome) == [RefusalReason.FUSE_BLOWN] * 4
    assert outcome.fuse_blown is not None
    assert (outcome.fuse_blown.limit, outcome.fuse_blown.allowed) == (FuseLimit.PER_MINUTE, 3)
    assert bench.decide(finding("198.51.100.9")).fuse_blown is None
    later = NOW + MINUTE
    assert len(bench.decide(finding("198.51.100.9", time=later), now=later).enforce) == 1
    again = bench.decide(*(finding(f"203.0.113.{n}", time=later) for n in range(1, 5)), now=later)
    assert again.fuse_blown is not None


def test_fuse_on_all_active_holds_over_a_restart_and_for_people_too():
    bench = Bench(fuse={"per_minute": 100, "active": 2})
    bench.decide(finding("198.51.100.1"), finding("198.51.100.2"))
    restarted = Bench(fuse={"per_minute": 100, "active": 2})
    restarted.store = bench.store
    outcome = restarted.decide(finding("198.51.100.3"))
    assert outcome.fuse_blown is not None
    assert outcome.fuse_blown.limit is FuseLimit.ACTIVE
    with pytest.raises(BlockRefusedError) as refused:
        restarted.run("block", "198.51.100.3", HOUR, "why", "alice")
    assert refused.value.reason is RefusalReason.FUSE_BLOWN


def test_prolonging_does_not_burn_the_fuse():
    bench = Bench(fuse={"per_minute": 1, "active": 1})
    for minute in range(5):
        now = NOW + minute
        assert len(bench.decide(finding(time=now), now=now).enforce) == 1


# ---------------------------------------------------------------------------------------------- IPv6
def test_two_offenders_in_a_64_widen_to_it(bench):
    bench.decide(finding("2001:db8:7::1"))
    outcome = bench.decide(finding("2001:db8:7::2", time=NOW + MINUTE), now=NOW + MINUTE)
    (decision,) = outcome.enforce
    assert decision.target == Target(TargetKind.PREFIX, "2001:db8:7::/64")
    assert outcome.remove == [address("2001:db8:7::1")]
    assert bench.store.of(DecisionState.LIFTED)["2001:db8:7::1"].lift_reason is LiftReason.REPLACED
    later = bench.decide(finding("2001:db8:7::3", time=NOW + 2 * MINUTE), now=NOW + 2 * MINUTE)
    assert reasons(later) == [RefusalReason.ALREADY_ACTIVE]
    assert [one.id for one in later.enforce] == [decision.id]
    assert list(bench.store.active) == ["2001:db8:7::/64"]


def test_a_wider_block_does_not_end_before_one_it_replaces(bench):
    bench.run("block", "2001:db8:7::1", 9 * HOUR, "why", "alice")
    (decision,) = bench.decide(finding("2001:db8:7::2")).enforce
    assert (decision.target.value, decision.expires_at) == ("2001:db8:7::/64", NOW + 9 * HOUR)


def test_two_in_one_call_widen_and_only_the_wide_one_is_enforced(bench):
    outcome = bench.decide(finding("2001:db8:7::1"), finding("2001:db8:7::2"))
    assert [one.target.value for one in outcome.enforce] == ["2001:db8:7::/64"]


def test_neighbours_in_other_64s_and_the_same_address_twice_do_not_widen(bench):
    bench.decide(finding("2001:db8:7::1"), finding("2001:db8:7:1::1"), finding("2001:db8:7::1"))
    assert set(bench.store.active) == {"2001:db8:7::1", "2001:db8:7:1::1"}


def test_no_widening_over_a_guarded_neighbour():
    bench = Bench(guard=Guard(allowlist=[Entry(ip_network("2001:db8:7::99"))]))
    bench.decide(finding("2001:db8:7::1"), finding("2001:db8:7::2"))
    assert set(bench.store.active) == {"2001:db8:7::1", "2001:db8:7::2"}


def test_ipv4_never_widens(bench):
    bench.decide(*(finding(f"198.51.100.{n}") for n in range(1, 20)))
    assert len(bench.store.active) == 19


def test_simulation_widens_as_enforcement_would():
    bench = Bench(rungs={RULE: "simulate"})
    outcome = bench.decide(finding("2001:db8:7::1"), finding("2001:db8:7::2"))
    assert [one.target.value for one in outcome.simulated] == ["2001:db8:7::1", "2001:db8:7::/64"]
    assert not outcome.enforce
    assert not outcome.remove


# ---------------------------------------------------------------------------------------------- people
def test_a_person_blocks_and_lifts(bench):
    decision, outcome = bench.run("block", "203.0.113.0/24", HOUR, "ticket 7", "alice")
    assert outcome.enforce == [decision]
    assert (decision.owner, decision.reason, decision.override) == ("operator:alice", "ticket 7", False)
    longer, outcome = bench.run("block", "203.0.113.9/24", 2 * HOUR, "again", "bob")
    assert (longer.id, longer.owner, longer.expires_at) == (decision.id, "operator:alice", NOW + 2 * HOUR)
    shorter, outcome = bench.run("block", "203.0.113.0/24", HOUR, "again", "bob")
    assert (shorter.expires_at, outcome.enforce) == (NOW + 2 * HOUR, [])
    with pytest.raises(BlockRefusedError, match=r"203\.0\.113\.0/24, which is blocked"):
        bench.run("unblock", "203.0.113.9", "bob")
    assert bench.run("unblock", "203.0.113.0/24", "bob").remove == [decision.target]
    assert bench.store.of(DecisionState.LIFTED)["203.0.113.0/24"].ended_by == "operator:bob"


@pytest.mark.parametrize(
    ("target", "lease", "reason", "override", "why"),
    [
        ("web01.example", HOUR, "r", False, RefusalReason.NO_TARGET),
        ("198.51.100.7", HOUR, " ", False, RefusalReason.NO_TARGET),
        ("198.51.100.7", 0, "r", False, RefusalReason.NO_TARGET),
        ("127.0.0.1", MINUTE, "r", True, RefusalReason.HARD_FLOOR),
        ("0.0.0.0/0", MINUTE, "r", True, RefusalReason.HARD_FLOOR),
        ("203.0.113.1", MINUTE, "r", False, RefusalReason.ALLOWLISTED),
        ("203.0.113.1", 2 * HOUR, "r", True, RefusalReason.ALLOWLISTED),
    ],
)
def test_a_person_is_refused(target, lease, reason, override, why):
    bench = Bench(guard=Guard(allowlist=[Entry(ip_network("203.0.113.0/24"), "office")]))
    with pytest.raises(BlockRefusedError) as refused:
        bench.run("block", target, lease, reason, "alice", override=override)
    assert refused.value.reason is why
    assert not bench.store.decisions


def test_a_person_overrides_the_allowlist_for_a_short_time():
    bench = Bench(guard=Guard(allowlist=[Entry(ip_network("203.0.113.0/24"))]))
    decision, _ = bench.run("block", "203.0.113.1", HOUR, "r", "alice", override=True)
    assert decision.override


def test_unblock_all(bench):
    bench.decide(finding(), finding("2001:db8:7::1"))
    assert len(bench.run("unblock_all", "alice").remove) == 2
    assert not bench.store.active


# ---------------------------------------------------------------------------------------------- in step
def test_the_store_is_read_once_while_commits_are_told(bench):
    for n in range(1, 20):
        bench.decide(finding(f"198.51.100.{n}"))
    assert bench.store.reads == 1
    bench.policy.forget()
    bench.decide(finding("198.51.100.1"))
    assert bench.store.reads == 2


def test_a_commit_that_failed_is_forgotten(bench):
    bench.decide_and_fail(finding())
    # A later commit without findings of ours does not make the lost decision true.
    bench.decide(finding(rule="without-response"))
    assert len(bench.decide(finding()).enforce) == 1
    assert list(bench.store.active) == ["198.51.100.7"]


def test_active_is_what_the_store_says(bench):
    bench.decide(finding())
    assert [one.target.value for one in bench.policy.active(bench.store, NOW)] == ["198.51.100.7"]
    assert bench.policy.active(bench.store, NOW + HOUR) == []


@pytest.mark.parametrize("prefix", ["64:ff9b::", "64:ff9b:1:fffe::", "2001:0:4136:e378:8000:63bf:"])
def test_behind_a_translator_offenders_are_blocked_one_by_one(bench, prefix):
    # Everybody's IPv4 lies in one /64 there.
    for last in ("c633:6407", "c633:6408", "c633:6409"):
        bench.decide(finding(f"{prefix}{last}"))
    assert len(bench.store.active) == 3
    assert {one.target.kind for one in bench.store.active.values()} == {TargetKind.ADDRESS}


@pytest.mark.parametrize("text", ["64:ff9b::/64", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/64", "64:ff9b::/32"])
def test_all_of_ipv4_behind_a_translator_is_blocked_by_nobody(bench, text):
    with pytest.raises(BlockRefusedError, match="hard floor"):
        bench.run("block", text, HOUR, "why", "alice")
    assert reasons(bench.decide(finding(key={"source.ip": text}))) == [RefusalReason.HARD_FLOOR]


def test_what_a_refused_commit_simulated_is_simulated_by_the_next():
    bench = Bench(rungs={RULE: "simulate"})
    fired = finding()
    bench.decide_and_fail(fired)
    assert [one.state for one in bench.decide(fired).simulated] == [DecisionState.SIMULATED]
    assert len(bench.store.of(DecisionState.SIMULATED)) == 1


@pytest.mark.parametrize("target", ["198.51.100.7", "2001:db8:1:2::7"])
def test_a_finding_read_again_does_not_block_whom_a_person_let_go(bench, target):
    bench.decide(finding("2001:db8:1:2::1"))
    fired = finding(target)
    (made,) = bench.decide(fired).enforce
    bench.run("unblock", made.target.value, "alice")
    outcome = bench.decide(fired)
    assert (outcome.enforce, reasons(outcome)) == ([], [RefusalReason.ALREADY_ACTIVE])
    assert len(bench.decide(finding(target)).enforce) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_set_back_makes_no_block_longer_than_its_lease(bench, restarted):
    year = 365 * 24 * HOUR
    (made,) = bench.decide(finding(time=NOW + year), now=NOW + year).enforce
    if restarted:
        bench = bench.restarted()
    bench.run("expire", now=NOW)
    assert bench.store.active[made.target.value].expires_at == NOW + HOUR
    bench.run("expire", now=NOW + HOUR)
    assert not bench.store.active


def test_a_clock_set_back_by_less_than_a_second_changes_nothing(bench):
    (made,) = bench.decide(finding()).enforce
    bench.run("expire", now=NOW - 900_000)
    assert bench.store.active[made.target.value].expires_at == NOW + HOUR

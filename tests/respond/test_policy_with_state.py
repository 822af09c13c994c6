"""The policy over the real state, as the engine runs it.
Counterpart: test_policy.py, which uses a store in memory."""

from __future__ import annotations

from tests.respond.parts import HOUR, NOW, Bench, finding

from vedette.model.decisions import DecisionState, LiftReason
from vedette.model.reasons import RefusalReason
from vedette.respond.policy import Policy
from vedette.store.state import State


def test_blocks_outlive_a_restart_and_end(tmp_path):
    bench = Bench()
    state = State(tmp_path / "state.db")

    def run(policy, verb, *arguments):
        with state.transaction() as tx:
            done = (
                policy.decide(arguments[0], tx, arguments[1])
                if verb == "decide"
                else getattr(policy, verb)(tx, *arguments)
            )
        policy.committed(done)
        return done

    try:
        first = Policy(bench.settings, bench.rules, bench.guard, "h")
        outcome = run(first, "decide", [finding(), finding("2001:db8:7::1"), finding("2001:db8:7::2")], NOW)
        assert {one.target.value for one in outcome.enforce} == {"198.51.100.7", "2001:db8:7::/64"}
        restarted = Policy(bench.settings, bench.rules, bench.guard, "h")
        with state.transaction() as tx:
            active = restarted.active(tx, NOW)
            assert sorted(one.id for one in active) == sorted(one.id for one in outcome.enforce)
        again = run(restarted, "decide", [finding(), finding("2001:db8:7::3")], NOW)
        assert [one.reason for one in again.refusals] == [RefusalReason.ALREADY_ACTIVE] * 2
        assert len(run(restarted, "expire", NOW + HOUR).remove) == 2
        # What a failed commit decided is decided again.
        try:
            with state.transaction() as tx:
                first.forget()
                first.decide([finding(time=NOW + HOUR)], tx, NOW + HOUR)
                raise OSError("disk full")
        except OSError:
            pass
        (second,) = run(first, "decide", [finding(time=NOW + HOUR)], NOW + HOUR).enforce
        assert second.offence == 2
        assert run(first, "unblock", "198.51.100.7", "alice", NOW + HOUR).remove == [second.target]
        with state.transaction() as tx:
            states = [(one.state, one.lift_reason) for one in tx.decisions_on(second.target)]
        assert states == [(DecisionState.EXPIRED, LiftReason.NONE), (DecisionState.LIFTED, LiftReason.OPERATOR)]
    finally:
        state.close()

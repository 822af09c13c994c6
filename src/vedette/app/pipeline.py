"""Batch to commit point: detect, change alerts, decide, plan notifications, commit; then enforce.
Counterpart: sources feed it through one queue; the outbox and the enforcers carry out what it committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
import structlog

from vedette.alerts import lifecycle
from vedette.alerts.routing import Router
from vedette.app import own
from vedette.app.budget import RULE as BUDGET_RULE
from vedette.app.budget import PageBudget
from vedette.app.counters import Counters
from vedette.app.enforcing import Enforcing
from vedette.app.findings_stream import STREAM as FINDINGS
from vedette.app.findings_stream import FindingsStream, findings_of
from vedette.app.hub_engine import HubEngine
from vedette.app.login_chains import RULES as CHAIN_RULES
from vedette.app.login_chains import ChainWatch
from vedette.app.noticing import Noticing
from vedette.app.upstream import Upstream
from vedette.detections.engine import Engine
from vedette.detections.stretch import Outcome
from vedette.model.batch import Batch
from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.errors import StateError
from vedette.model.findings import Continuation, Finding, key_text
from vedette.model.notifications import OutboxItem
from vedette.model.protocols import Counter, Enforcer
from vedette.model.retention import Kept
from vedette.model.rules import Rule
from vedette.model.shipping import Shelf
from vedette.respond.known_logins import KnownLogins
from vedette.respond.policy import Outcome as Decided
from vedette.respond.policy import Policy
from vedette.store.state import Mended, State

log = structlog.get_logger()

LAKE = "lake"
"""The cursor of what was judged in the lake's order."""
COMMIT_AFTER = SECOND
COMMIT_BYTES = 64 << 20
FOREIGN_EVERY = SECOND // 10
"""How often it is looked whether another process (the command line) wrote to the state."""
PRUNE_AFTER = 10 * MINUTE
"""How long after the start, or a jump of the clock, nothing is let go for its age: the clock may be wrong."""
PRUNE_ROWS = 100
"""Rows of a kind let go in one transaction; a decision may have to wait for it."""
RETRY_AFTER = SECOND
SETTLE = 1.0
"""Seconds a commit waits at most until what its cursors pass is on the shelf."""
QUIET_AFTER = 10 * SECOND
"""How long no batch must have come before the wall clock stands in for the records': windows close then too."""
AHEAD = 5 * MINUTE
"""How far a record's time may be ahead of ours before it is our clock that was set back."""
WAITING_LIMIT = 10_000
"""Findings kept while the disk refuses them; cursors do not pass them, so more would only cost memory."""


class _WarmError(Exception):
    """Rolls the warm-up back."""


class Pipeline:
    """The synchronous middle of the program; one thread owns it. `take` for each batch, `tick` in between.

    retention: how long (microseconds) finished rows of a kind are kept, for ever where it is not named.
    guard_changed: brings floor and allowlist up to date, true where they hold something else now. woken: called
    after a commit that put something into the outbox. shelf: where every batch is put that `take` gets; no cursor
    passes what is not kept there. stream: as what findings go there too, where somebody else makes alerts of them.
    trouble: why what is read cannot be kept, "" while it can. bundle: the number of the rules and policy in force.
    chains: who logged in from where in the fleet. loggers: which of those who write the logs ended.
    """

    def __init__(
        self,
        engine: Engine | HubEngine,
        state: State,
        rules: Sequence[Rule],
        router: Router,
        policy: Policy,
        enforcers: Sequence[Enforcer],
        *,
        clock: Clock,
        counter: Counter,
        me: own.Self,
        quiet_period: int,
        guard_changed: Callable[[int], bool],
        woken: Callable[[], None],
        retention: Mapping[Kept, int] | None = None,
        known: KnownLogins | None = None,
        chains: ChainWatch | None = None,
        loggers: Upstream | None = None,
        budget: PageBudget | None = None,
        shelf: Shelf | None = None,
        stream: FindingsStream | None = None,
        trouble: Callable[[], str] = lambda: "",
        bundle: int = 0,
    ) -> None:
        self._engine = engine
        self._state = state
        self._rules: Mapping[str, Rule] = {rule.id: rule for rule in (*rules, *own.RULES, *CHAIN_RULES)}
        self._router = router
        self._policy = policy
        self._enforcing = Enforcing(enforcers, state, policy, counter, say=self._say)
        self._clock = clock
        self._counter = counter
        self._me = me
        self._quiet_period = quiet_period
        self._retention = dict(retention or {})
        self._guard_changed = guard_changed
        # What was decided under another floor or allowlist (before a reload, or while we were down) is looked at first.
        self._to_lift = True
        self._woken = woken
        self._known = known
        self._chains = chains
        self._loggers = loggers
        self._budget = budget
        self._shelf = shelf
        self._cursors: dict[str, str] = {}
        self._placed = set(state.cursors())
        self._correlation: dict[tuple[str, str], bytes | None] = {}
        self._findings: list[Finding] = []
        self._told: list[Finding] = []
        """Findings of agents, which have judged and decided themselves."""
        self._stream = stream
        self._shipped = 0
        """How many of the findings are on the shelf."""
        self._continuations: list[Continuation] = []
        self._again: list[Finding] = []
        """Findings that were held back for a known login, and are not any more."""
        self._bytes = 0
        self._oldest = 0
        self._refused = False
        self._mending_said = -MINUTE
        self._not_before = 0
        self._next_due = 0
        self._foreign = state.foreign_version()
        self._nudged = False
        self._foreign_at = self._quiet_at = 0
        self._taken_at = clock.now()
        self._trouble = trouble
        self._bundle = bundle
        self._noticing = Noticing(state, self._say)
        self._latest = clock.now()
        self._prune_at = self._latest + PRUNE_AFTER
        # Nothing was decided, told or seen in our future: the clock was set back while we were down.
        self._set_back_by = max(
            0,
            *(group.last_notified_at - self._latest for group in state.groups()),
            engine.correlator.highest - AHEAD - self._latest,
        )
        if self._set_back_by:
            engine.correlator.set_back(self._latest)
        self.last_alive = clock.now()
        """When the pipeline last got round; a heartbeat goes out only while this moves."""

    def warm_up(self) -> None:
        """Go through a commit that is rolled back: the first real one must not pay for statements being prepared."""
        now = self._clock.now()
        finding = self._policy.example(self._me.finding(own.FUSE_BLOWN, {}, now, "warming up"))
        with suppress(_WarmError, StateError), self._state.transaction() as tx:
            tx.save_cursor("warm-up", "")
            tx.save_correlation({(finding.rule_id, "warm-up"): b""})
            changes = lifecycle.apply([finding], [], tx, now, self._rules, Counters(), host_id=self._me.host_id)
            self._policy.decide([finding], tx, now)
            self._router.plan(changes, tx, now)
            self._router.flush(tx, now)
            self._router.next_due(tx)
            raise _WarmError
        self._policy.forget()
        with suppress(StateError):
            with self._state.transaction() as tx:
                known = self._policy.learn(tx, now)
            self._policy.committed(known)

    # ------------------------------------------------------------------------------------------ the flow

    def take(self, batch: Batch) -> None:
        """Judge a batch; commit at once where that made a finding."""
        self._now()
        outcome = self._engine.process(batch)
        if batch.cursor:
            self._cursors[batch.origin.source] = batch.cursor
        self._judged(batch, outcome)

    def take_stored(self, batch: Batch, sequence: int) -> None:
        """Judge the next batch of the lake by the fleet's rules; what an agent has found becomes alerts here.

        sequence: the lake's, from which it goes on after a restart. For a pipeline with a `HubEngine`.
        """
        assert isinstance(self._engine, HubEngine)
        self._now()
        self._cursors[LAKE] = str(sequence)
        if batch.origin.source != FINDINGS:
            try:
                outcome = self._engine.process_stored(batch)
            except Exception as error:  # noqa: BLE001 (sent by another host it would end the hub at every start again)
                outcome = Outcome()
                self._counter.add("stored_unjudged")
                about = {"host_id": batch.origin.host_id, "source": batch.origin.source, "sequence": sequence}
                log.error("A STORED BATCH COULD NOT BE JUDGED", reason=repr(error), **about)
        else:
            # What rules said is not judged by rules again.
            outcome = Outcome()
            if batch.origin.host_id != self._me.host_id:
                self._told += findings_of(batch, self._counter, self._rules)
        self._judged(batch, outcome)

    def _judged(self, batch: Batch, outcome: Outcome) -> None:
        self._taken_at = now = self._now()
        self._findings += self._named(outcome.findings)
        self._continuations += outcome.continuations
        self._bytes += len(batch.block)
        self._oldest = self._oldest or now
        if outcome.skewed:
            self._noticing.skewed(batch, outcome.skewed, now)
        for rule_id in outcome.undecided:
            self._noticing.undecided(rule_id, batch, now)
        if self._known is not None:
            self._again += self._known.ripe(now)
        new = self._findings or self._told or self._again
        if new or self._bytes >= COMMIT_BYTES or now - self._oldest >= COMMIT_AFTER:
            self.commit(now)
        self.last_alive = now

    def _now(self) -> int:
        """The time. Where the clock was set back, nothing waits for the old time to come round again."""
        now = self._clock.now()
        if now < self._latest:
            self._set_back_by += self._latest - now
            self._engine.correlator.set_back(now)
            self._foreign_at = self._enforcing.sync_at = self._quiet_at = 0
            self._taken_at = min(self._taken_at, now)
            self._prune_at = now + PRUNE_AFTER
            self._oldest, self._not_before = min(self._oldest, now), min(self._not_before, now)
            self._noticing.set_back(now)
        elif now > self._latest + PRUNE_AFTER:
            self._prune_at = now + PRUNE_AFTER
        self._latest = now
        return now

    def _named(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """With the number of the bundle whose rules found them."""
        return [msgspec.structs.replace(one, bundle=self._bundle) for one in findings] if self._bundle else findings

    def nudge(self) -> None:
        """Another thread of this process changed alerts or decisions: look at the next tick. Safe from any thread."""
        self._nudged = True

    def tick(self) -> float:
        """Do what time asks for; how many seconds it may wait until it is called again."""
        now = self._now()
        if now - self._foreign_at >= FOREIGN_EVERY:
            self._foreign_at = now
            self._look_outside(now)
        if now - self._taken_at >= QUIET_AFTER:
            self._miss_records(now)
        if self._chains is not None and (found := self._chains.findings(now)):
            self._findings += found
            self._oldest = self._oldest or now
        if (self._oldest and now - self._oldest >= COMMIT_AFTER) or (self._next_due and now >= self._next_due):
            self.commit(now)
        if now >= self._enforcing.sync_at:
            self._enforcing.sync(now)
        if now >= self._quiet_at:
            self._quiet_at = now + MINUTE
            self.commit(now, quiet=True)
        if now >= self._prune_at:
            self._prune(now)
        self.last_alive = now
        due = [self._foreign_at + FOREIGN_EVERY]
        due += [at for at in (self._next_due, self._oldest and self._oldest + COMMIT_AFTER) if at]
        return max(min(due) - now, 0) / SECOND if not self._refused else 0.1

    def _miss_records(self, now: int) -> None:
        """Judge the windows that have closed although no record came: that of a heartbeat that stopped is one."""
        outcome = self._engine.correlator.advance(now)
        self._findings += self._named(outcome.findings)
        self._continuations += outcome.continuations
        if outcome.continuations:
            self._oldest = self._oldest or now
        if outcome.findings:
            self.commit(now)

    def commit(self, now: int, *, quiet: bool = False) -> bool:
        """The commit point: all of it or nothing. False where the disk refuses; it is tried again later."""
        if self._refused and now < self._not_before:
            return False
        if self._findings or self._again:
            # An entry written before these findings were made holds for them.
            self._to_lift |= self._guard_changed(now)
        # `changes` forgets what it gives, so it is kept here until it is committed.
        self._correlation.update(self._engine.correlator.changes())
        if self._loggers is not None:
            self._correlation.update(self._loggers.changes())
        resting = self._ship(now)
        continuations = self._continuations if resting else []
        try:
            with self._state.transaction() as tx:
                if resting:
                    for source, cursor in self._cursors.items():
                        tx.save_cursor(source, cursor)
                rules = self._rules if self._budget is None else self._budget.rules(tx, self._rules)
                changes = lifecycle.apply(
                    [*self._findings, *self._told],
                    continuations,
                    tx,
                    now,
                    rules,
                    self._counter,
                    host_id=self._me.host_id,
                )
                if quiet:
                    changes += lifecycle.resolve_quiet(tx, now, self._quiet_period)
                alert_ids = {one: change.alert.id for change in changes for one in change.alert.finding_ids}
                if self._findings or self._again:
                    decided = self._policy.decide([*self._findings, *self._again], tx, now, alert_ids)
                else:
                    decided = self._policy.expire(tx, now) if quiet else Decided()
                if self._known is not None:
                    self._correlation.update(self._known.changes())
                if self._chains is not None:
                    self._correlation.update(self._chains.chains.changes())
                if resting:
                    tx.save_correlation(self._correlation)
                if self._set_back_by:
                    self._router.set_back(tx, self._set_back_by)
                items = self._router.plan(changes, tx, now)
                items += self._router.flush(tx, now)
                next_due = self._router.next_due(tx)
        except StateError as error:
            self._on_refused(error, now)
            return False
        if resting:
            self._placed |= self._cursors.keys()
            self._cursors.clear()
            self._correlation.clear()
            self._continuations = []
            self._bytes = self._oldest = 0
        self._on_committed(decided, now, next_due)
        if items:
            self._woken()
            self._spend(items, now)
        return True

    def _ship(self, now: int) -> bool:
        """Put new findings on the shelf; whether cursors may pass what was judged.

        They rest on what is on the shelf. A finding does not: a block waits for no disk but the state's. Where it
        is committed before its cursor, a crash in between has it found again under the same id.
        """
        if self._shelf is None:
            return True
        if self._stream is not None and len(self._findings) > self._shipped:
            self._shelf.put(self._stream.batch(self._findings[self._shipped :], self._latest))
            self._shipped = len(self._findings)
        if not (self._cursors or self._findings):
            return True
        # A source whose place was never written down would begin anew after a crash, behind what it read.
        placed = self._cursors.keys() <= self._placed
        if placed and self._findings and now - self._oldest < COMMIT_AFTER and self._bytes < COMMIT_BYTES:
            return False
        if not self._shelf.settled(SETTLE):
            self._counter.add("commits_before_the_shelf")
        return True

    def _spend(self, items: Sequence[OutboxItem], now: int) -> None:
        """Who paged too often goes by mail from now on, and that is said."""
        if self._budget is None:
            return
        for rule_id in self._budget.spent(items, now):
            log.warning("page budget spent", rule=rule_id)
            self._say(own.PAGE_BUDGET_SPENT, {BUDGET_RULE: rule_id}, now, self._budget.words(rule_id))

    def _on_committed(self, decided: Decided, now: int, next_due: int) -> None:
        self._policy.committed(decided)
        self._findings = []
        self._told = []
        self._shipped = 0
        self._again = []
        self._set_back_by = 0
        self._next_due = next_due
        # Committed BEFORE it is enforced: a block nobody knows of could never be lifted. Enforced after what was
        # committed is let go of: a failure is a finding of the next commit.
        self._enforcing.carry_out(decided, now)
        if self._refused:
            self._refused = False
            log.warning("state is written again", place=self._state.place)
        for refusal in decided.refusals:
            self._counter.add("responses_refused", refusal.reason)
        if decided.fuse_blown is not None:
            fuse = decided.fuse_blown
            words = f"the fuse {fuse.limit.value} ({fuse.allowed}) blew at {fuse.target} by {fuse.rule_id}"
            log.error("fuse blown", limit=fuse.limit.value, allowed=fuse.allowed, rule=fuse.rule_id)
            self._say(own.FUSE_BLOWN, {"rule.id": fuse.rule_id}, now, words)

    def _on_refused(self, error: StateError, now: int) -> None:
        self._policy.forget()
        self._not_before = now + RETRY_AFTER
        self._counter.add("commits_refused")
        if not self._refused:
            self._refused = True
            log.error(
                "STATE CANNOT BE WRITTEN: detection goes on, but nothing is stored, told or blocked until it can",
                reason=str(error),
            )
        if len(self._findings) > WAITING_LIMIT:
            dropped = len(self._findings) - WAITING_LIMIT
            # The least urgent first, the oldest of them: a flood must not push out what it is to hide.
            order = sorted(range(len(self._findings)), key=lambda at: (self._findings[at].level, at))
            self._findings = [self._findings[at] for at in sorted(order[dropped:])]
            self._counter.add("findings_waiting_dropped", n=dropped)
            self._shipped = len(self._findings)
        if len(self._told) > WAITING_LIMIT:
            self._counter.add("findings_waiting_dropped", n=len(self._told) - WAITING_LIMIT)
            self._told = sorted(self._told, key=lambda one: one.level)[-WAITING_LIMIT:]
        if len(self._continuations) > WAITING_LIMIT:
            self._continuations = _joined(self._continuations)

    def _prune(self, now: int) -> None:
        """Let go of some of what is finished and old enough; soon again where there was more."""
        self._prune_at = now + MINUTE
        for kind, age in self._retention.items():
            try:
                with self._state.transaction() as tx:
                    gone = tx.prune(kind, now - age, PRUNE_ROWS)
            except StateError:
                return  # said at the commit point
            if gone:
                self._counter.add("records_pruned", kind, gone)
            if gone == PRUNE_ROWS:
                self._prune_at = now + SECOND

    # ------------------------------------------------------------------------------------------ outside
    def _look_outside(self, now: int) -> None:
        """Another process may have decided, lifted, acknowledged or resolved something, or changed the allowlist."""
        self._to_lift |= self._guard_changed(now)
        self._mend_state(now)
        self._noticing.lake(self._trouble(), now)
        with suppress(StateError):
            if self._to_lift:
                self._lift_guarded(now)
            version = self._state.foreign_version()
            if version == self._foreign and not self._nudged:
                return
            self._foreign, self._nudged = version, False
            self._policy.forget()
            self._enforcing.sync(now)
            self.commit(now)
            self._woken()

    def _mend_state(self, now: int) -> None:
        try:
            mended = self._state.mend()
        except StateError as error:
            if now - self._mending_said >= MINUTE:
                self._mending_said = now
                self._counter.add("state_lost")
                log.error("STATE LOST", reason=str(error))
            return
        if mended is Mended.REPLACED:
            raise StateError("another file was put in the place of the state", hint="start again to go on with it")
        if mended is Mended.WRITTEN_ANEW:
            self._foreign = -1
            self._say(own.STATE_REMOVED, {}, now, "the state was written anew, its file had been taken away")

    def tried(self, rule_id: str, why: str) -> None:
        """A rule's case was put in; why: it made no finding, "" where it did."""
        self._noticing.tried(rule_id, why, self._now())

    def paged(self, receiver: str, why: str) -> None:
        """A drill went to this receiver; why: it was not taken, "" where it was."""
        self._noticing.paged(receiver, why, self._now())

    def _lift_guarded(self, now: int) -> None:
        """What must not be blocked any more is let go; StateError leaves it for the next look."""
        try:
            with self._state.transaction() as tx:
                lifted = self._policy.lift_guarded(tx, now)
        except StateError:
            self._policy.forget()
            raise
        self._to_lift = False
        self._policy.committed(lifted)
        self._enforcing.carry_out(lifted, now)

    def _say(self, rule: Rule, key: dict[str, str], now: int, words: str) -> None:
        self._findings.append(self._me.finding(rule, dict(key), now, words))
        self._oldest = self._oldest or now

    def close(self) -> None:
        """Commit what is left; what is enforced stays enforced."""
        self._not_before = 0
        now = self._clock.now()
        if self.commit(now) and (self._cursors or self._continuations):
            self.commit(now)


def _joined(continuations: Sequence[Continuation]) -> list[Continuation]:
    """One continuation a key, so that they take no more room than there are keys."""
    joined: dict[tuple[str, str, str], Continuation] = {}
    for one in continuations:
        name = one.rule_id, key_text(one.key), one.host_id
        before = joined.get(name)
        joined[name] = (
            one if before is None else replace(before, count=before.count + one.count, time=max(before.time, one.time))
        )
    return list(joined.values())

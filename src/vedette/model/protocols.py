"""The seams between rooms: what a source, parser, store, notifier and enforcer owe each other.
Counterpart: stages are handed these by `app` and open nothing themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from vedette.model.batch import Batch

# Whoever is handed one of these imports this; a short run must not pay for the words of all the others.
if TYPE_CHECKING:
    import asyncio

    from vedette.model.alerts import Alert, Silence
    from vedette.model.decisions import Decision, Refusal, Target
    from vedette.model.events import Table
    from vedette.model.findings import Finding
    from vedette.model.notifications import Delivery, GroupState, Notification, OutboxItem, OutboxState
    from vedette.model.retention import Kept

Emit = Callable[[Batch], Awaitable[None]]


class Counter(Protocol):
    """Counts what happened, by reason; never raises, never blocks, safe from any thread."""

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        """Add `n` to counter `name` (snake_case noun) for `reason`."""
        ...


class Source(Protocol):
    """Turns the world into batches.

    `run` reads until cancelled or its input ends, awaiting `emit` for each batch: that await is the
    back-pressure. It emits in order, numbers batches without gaps, starts after the cursor it was
    constructed with, and owns (closes) every descriptor it opened, also when cancelled. Trouble that may
    pass (file not there yet) is waited out and counted; trouble that cannot pass is raised. A batch without
    records says by its cursor where a source stands that was begun without one.
    """

    name: str
    begun: asyncio.Event
    """Set once it stands where it begins, or knows that it cannot yet: what is added from then on is not missed."""

    async def run(self, emit: Emit) -> None:
        """Read and emit until cancelled or the input ends."""
        ...


class Parser(Protocol):
    """Bytes to fields; pure, no I/O, never raises on any input."""

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`; fields are made when asked for."""
        ...


class Notifier(Protocol):
    """Delivers one notification to one receiver; never retries by itself, never raises for a failed delivery."""

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        """Try once. `item_id` is stable over retries (Message-ID, idempotency)."""
        ...

    async def close(self) -> None:
        """Give back connections; called once."""
        ...


class Enforcer(Protocol):
    """Carries decisions out. All methods are idempotent, may block up to a second, and run in one thread.

    Failures raise EnforcementError after doing as much as possible; the caller tries again through `sync`.
    """

    name: str

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        """Enforce these from now until they expire; an existing block takes the longer lease."""
        ...

    def remove(self, targets: Iterable[Target]) -> None:
        """Lift these at once."""
        ...

    def sync(self, active: Sequence[Decision], now: int) -> int:
        """Make the enforced set exactly `active`; how many entries had to be mended."""
        ...

    def close(self) -> None:
        """Give back what was opened; what is enforced stays enforced."""
        ...


class Transaction(Protocol):
    """One commit point's writes and the reads they need; all or nothing when its context ends."""

    # cursors and correlation state
    def save_cursor(self, source: str, cursor: str) -> None: ...
    def save_correlation(self, changes: Mapping[tuple[str, str], bytes | None]) -> None:
        """Per (rule id, key text) the new state, None = gone."""
        ...

    # findings and alerts
    def save_findings(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Store them; gives back those whose id was not stored yet, in order."""
        ...

    def unresolved_alert(self, key: str) -> Alert | None: ...
    def alert(self, alert_id: str) -> Alert | None: ...
    def alerts(self, alert_ids: Sequence[str]) -> Sequence[Alert]:
        """Those of these ids that exist, in the order asked for."""
        ...

    def unresolved_alerts(self) -> Sequence[Alert]:
        """Every alert not resolved, oldest first."""
        ...

    def save_alert(self, alert: Alert) -> None: ...
    def quiet_alerts(self, before: int) -> Sequence[Alert]:
        """Unresolved event alerts of level low or medium without an event or other change since `before`."""
        ...

    def silences(self, now: int) -> Sequence[Silence]:
        """Those that have not ended by `now`, not yet begun ones too, by start."""
        ...

    def save_silence(self, silence: Silence) -> None: ...

    # groups and outbox
    def group(self, key: str) -> GroupState | None: ...
    def save_group(self, group: GroupState) -> None: ...
    def due_groups(self, now: int) -> Sequence[GroupState]: ...
    def next_due(self) -> int:
        """When the earliest group must be looked at, microseconds; 0 = nothing planned."""
        ...

    def enqueue(self, item: OutboxItem) -> None: ...
    def supersede(self, order_key: str) -> Sequence[OutboxItem]:
        """Pending triggers of this order_key become superseded; gives them back as they were, in order."""
        ...

    # decisions
    def active_decisions(self, now: int) -> Sequence[Decision]: ...
    def decisions_on(self, target: Target) -> Sequence[Decision]:
        """All decisions ever made on exactly this target, oldest first."""
        ...

    def save_decision(self, decision: Decision) -> None: ...
    def save_refusals(self, refusals: Sequence[Refusal], at: int) -> None: ...

    # retention
    def prune(self, kind: Kept, before: int, limit: int) -> int:
        """Delete at most `limit` finished rows of this kind that are older than `before`, oldest first; how many."""
        ...


class StateStore(Protocol):
    """The relational state. One writer: transactions are serialised; reading is safe from any thread."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commit when the block ends, roll back when it raises; StateError when the disk refuses."""
        ...

    def cursors(self) -> Mapping[str, str]: ...
    def correlation(self) -> Iterable[tuple[str, str, bytes]]:
        """Every stored (rule id, key text, state)."""
        ...

    def pending_outbox(self, now: int, limit: int = 100) -> Sequence[OutboxItem]:
        """Items due by `now`, most urgent first (level, then age); per order_key only the first one."""
        ...

    def outbox(self, states: Iterable[OutboxState] = (), limit: int = 100) -> Sequence[OutboxItem]:
        """Outbox items in these states (none named: all), newest first; what a digest is joined from."""
        ...

    def save_outbox(self, item: OutboxItem) -> None:
        """Update an item after an attempt (its own small transaction).

        An item superseded meanwhile stays so, unless it was delivered after all.
        """
        ...

    def close(self) -> None: ...

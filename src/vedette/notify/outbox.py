"""Takes what is due from the durable outbox and has it delivered: at least once, in order, most urgent first.
Counterpart: `alerts` enqueue inside the commit point and call `wake`; notifiers try once and say what became of it."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

import structlog

from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.errors import StateError
from vedette.model.ids import uuid7
from vedette.model.notifications import Delivery, Notification, OutboxItem, OutboxState
from vedette.model.protocols import Counter, Notifier, StateStore
from vedette.model.reasons import DeliveryReason
from vedette.notify.rates import LONGEST_RETRY_AFTER, TokenBucket, back_off
from vedette.notify.settings import EmailSettings, NotifySettings, Rate, Receiver
from vedette.text.escape import shorten, terminal
from vedette.text.times import duration_text, parse_duration

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

# A receiver that cannot be reached is asked again at least this often; an item it stumbles over, this often.
_RECEIVER_BACK_OFF = MINUTE
_ITEM_BACK_OFF = 2 * MINUTE
# While the disk refuses, look again this often.
_STATE_PAUSE = 5 * SECOND
_NEVER = 2**62
_FIRST_LOOK = 100
_LAST_LOOK = 100_000
_MOST_JOINED = 1000

# Failures that cannot be the item's own fault: nothing of it was judged.
_RECEIVER_AT_FAULT = frozenset({DeliveryReason.NETWORK_ERROR, DeliveryReason.RATE_LIMITED})


@runtime_checkable
class DigestNotifier(Protocol):
    """A Notifier that can also join several notifications into one message."""

    async def deliver_digest(self, notifications: Sequence[Notification], *, item_id: str) -> Delivery:
        """Try once to deliver all of them together; `item_id` as for `deliver`."""
        ...


@dataclass(slots=True)
class _Lane:
    """What is known of one receiver: one attempt at a time, its rate, and how it fares."""

    name: str
    notifier: Notifier
    bucket: TokenBucket
    fallback: str = ""
    fallback_after: int = _NEVER
    digest_interval: int = 0
    task: asyncio.Task[None] | None = None
    failures: int = 0
    last_reason: DeliveryReason | None = None
    blocked_until: int = 0
    # Ids that failed since the last success: the outage's fault, once it is over.
    failed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Work:
    """One attempt: a single item, or several joined into a digest."""

    items: tuple[OutboxItem, ...]
    digest: bool


class Outbox:
    """The worker. `run` until cancelled; `wake` from any thread when something was enqueued.

    Every receiver has one attempt going at most, and none waits for another. The order among the items of
    one receiver is that of the store (level, then age; per order_key in sequence). While a receiver cannot
    be reached it is probed with its most urgent item, so that after an outage the most urgent goes first;
    every third probe of a receiver that answers with errors takes another item, so that one item it
    stumbles over does not block the rest. Nothing is ever lost here: an item is saved as delivered only
    after its delivery, so a crash between the two repeats it under the same id.
    """

    def __init__(
        self,
        store: StateStore,
        notifiers: Mapping[str, Notifier],
        settings: NotifySettings,
        clock: Clock,
        counter: Counter,
        *,
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._counter = counter
        self._random = random
        self._keep_trying = parse_duration(settings.keep_trying)
        self._lanes: dict[str, _Lane] = {}
        buckets: dict[str, TokenBucket] = {}
        for name, notifier in notifiers.items():
            receiver = settings.receivers.get(name)
            rate = receiver.rate if receiver else Rate()
            bucket = buckets.setdefault(_rate_key(name, receiver), TokenBucket(rate, clock.now()))
            lane = _Lane(name, notifier, bucket)
            if receiver and receiver.fallback:
                lane.fallback = receiver.fallback.receiver
                lane.fallback_after = parse_duration(receiver.fallback.after)
            if isinstance(receiver, EmailSettings) and isinstance(notifier, DigestNotifier):
                lane.digest_interval = parse_duration(receiver.digest_interval)
            self._lanes[name] = lane
        # Outcomes the disk refused: never tried again in this process, saved as soon as it takes them.
        self._unsaved: dict[str, OutboxItem] = {}
        # Receivers for which the whole outbox had nothing; forgotten when something is enqueued, or each minute.
        self._empty: set[str] = set()
        self._empty_since = clock.now()
        self._enqueued = True
        self._state_failing = False
        # Back-off that an outage caused is forgiven when it ends, a few times an item.
        self._forgiven: set[str] = set()
        self._forgiven_times: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Something was enqueued: look now. Safe from any thread, also before `run` and after its end."""
        self._enqueued = True
        loop = self._loop
        if loop is None:
            self._woken.set()
            return
        try:
            loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            # The loop has ended: what is enqueued waits for the next start.
            return

    async def run(self) -> None:
        """Deliver until cancelled. A running attempt is then cut off and its item stays pending."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._woken.clear()
                due_at = await self._start_due()
                try:
                    # Never longer than a minute: a clock that jumps must not leave an item lying.
                    wait = min(max(due_at - self._clock.now(), 0), MINUTE) / SECOND
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            await self._stop()

    async def flush(self) -> int:
        """Deliver all that is due now and wait for it; the time (microseconds) at which more is due."""
        try:
            while True:
                due_at = await self._start_due()
                running = [lane.task for lane in self._lanes.values() if lane.task is not None]
                if not running:
                    return due_at
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._stop()
            raise

    async def _stop(self) -> None:
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------ choosing

    async def _start_due(self) -> int:
        """Start an attempt at every receiver that may have one; when to look again (microseconds)."""
        now = self._clock.now()
        for lane in self._lanes.values():
            if lane.task is not None and lane.task.done():
                task, lane.task = lane.task, None
                if not task.cancelled():
                    task.result()
        # A disk that refuses does not stop what can still be read from being told.
        due_at = _NEVER if await self._save_unsaved() else now + _STATE_PAUSE
        items = await self._pending(now)
        if items is None:
            return now + _STATE_PAUSE
        queues: dict[str, list[OutboxItem]] = {}
        for item in items:
            if item.id in self._unsaved:
                continue
            name = item.notification.receiver
            if name not in self._lanes:
                await self._fail(None, item, DeliveryReason.MISCONFIGURED, f"there is no receiver {terminal(name)}")
                self._woken.set()
                continue
            queues.setdefault(name, []).append(item)
        for name, queue in queues.items():
            due_at = min(due_at, await self._start_lane(self._lanes[name], queue, now))
        return due_at

    async def _pending(self, now: int) -> Sequence[OutboxItem] | None:
        """The head of the outbox, as much of it as every idle receiver needs; None where the disk refused."""
        if self._enqueued or now >= self._empty_since + MINUTE or now < self._empty_since:
            self._enqueued = False
            self._empty_since = now
            self._empty.clear()
        look = _FIRST_LOOK
        while True:
            items = await self._read(lambda: self._store.pending_outbox(_NEVER, look))  # noqa: B023 (awaited here)
            if items is None:
                return None
            seen = {item.notification.receiver for item in items}
            idle = {name for name, lane in self._lanes.items() if lane.task is None and lane.blocked_until <= now}
            # A receiver in trouble may fill the first page: look on until every idle one has something to do.
            if len(items) < look or look >= _LAST_LOOK or idle - self._empty <= seen:
                break
            look *= 4
        if look > _FIRST_LOOK:
            self._empty |= idle - seen
        return items

    async def _start_lane(self, lane: _Lane, queue: list[OutboxItem], now: int) -> int:
        due_at = _NEVER
        for item in queue:
            due_at = min(due_at, await self._look_at_age(lane, item, now))
        queue = [item for item in queue if item.state is OutboxState.PENDING and item.id not in self._unsaved]
        if lane.task is not None or not queue:
            return due_at
        if lane.blocked_until > now + LONGEST_RETRY_AFTER:
            lane.blocked_until = now  # the clock was set back
        may_at = max(lane.bucket.ready_at(now), lane.blocked_until)
        item, item_at = self._choose(lane, queue, now)
        if may_at > now or item_at > now:
            return min(due_at, max(may_at, item_at))
        work = await self._work(lane, item)
        if work is None:
            return now + _STATE_PAUSE
        lane.bucket.take(now)
        lane.task = asyncio.get_running_loop().create_task(self._attempt(lane, work), name=f"notify-{lane.name}")
        lane.task.add_done_callback(lambda _: self._woken.set())
        return due_at

    def _choose(self, lane: _Lane, queue: list[OutboxItem], now: int) -> tuple[OutboxItem, int]:
        """The item to try next and when it may be tried."""
        ripe = [item for item in queue if self._ripe_at(lane, item, now) <= now]
        if lane.failures and ripe:
            if lane.last_reason in _RECEIVER_AT_FAULT or lane.failures % 3:
                return ripe[0], now
            return min(ripe, key=lambda item: item.attempts), now
        for item in ripe:
            if self._due_at(lane, item, now) <= now:
                return item, now
        first = min(queue, key=lambda item: self._due_at(lane, item, now))
        return first, self._due_at(lane, first, now)

    def _ripe_at(self, lane: _Lane, item: OutboxItem, now: int) -> int:
        """When an item may be tried at all: a digest waits for the end of its interval."""
        if item.notification.digest and lane.digest_interval:
            return _slot(item, lane.digest_interval) + lane.digest_interval
        # Made in our future: the clock was set back, and an item must not wait for it to come round again.
        return 0 if item.attempts or item.created_at > now else item.next_try_at

    def _due_at(self, lane: _Lane, item: OutboxItem, now: int) -> int:
        """When an item is to be tried, its own back-off included."""
        forgiven = item.id in self._forgiven or not item.attempts or item.next_try_at > now + LONGEST_RETRY_AFTER
        return max(self._ripe_at(lane, item, now), 0 if forgiven else item.next_try_at)

    async def _work(self, lane: _Lane, item: OutboxItem) -> _Work | None:
        if not (item.notification.digest and lane.digest_interval):
            return _Work((item,), digest=False)
        start = _slot(item, lane.digest_interval)
        found = await self._read(lambda: self._store.outbox({OutboxState.PENDING}, _LAST_LOOK))
        if found is None:
            return None
        # One interval, one mail: the same items again after a crash, whatever was enqueued since. Several of
        # one order_key among them, and those in back-off too.
        joined = [
            other
            for other in reversed(found)
            if other.notification.receiver == lane.name
            and other.notification.digest
            and _slot(other, lane.digest_interval) == start
            and other.id not in self._unsaved
        ]
        return _Work(tuple(joined[:_MOST_JOINED] or [item]), digest=True)

    # ------------------------------------------------------------------------------------------ attempting

    async def _attempt(self, lane: _Lane, work: _Work) -> None:
        first = work.items[0]
        self._forgiven.discard(first.id)
        try:
            if work.digest and isinstance(lane.notifier, DigestNotifier):
                delivery = await lane.notifier.deliver_digest(
                    [item.notification for item in work.items], item_id=_digest_id(work.items)
                )
            else:
                delivery = await lane.notifier.deliver(first.notification, item_id=delivery_id(first))
        except Exception as error:  # noqa: BLE001 (a defect in one notifier must not silence the others)
            # No traceback: what it shows of our variables may be a secret.
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename}:{last.lineno}"
            _log.error("a notifier raised", receiver=lane.name, error=type(error).__name__, place=place)
            delivery = Delivery(DeliveryReason.DEFECT, retry=True, detail=type(error).__name__)
        # What is known by now is written down, also when we are cancelled meanwhile.
        record = asyncio.ensure_future(self._record(lane, work, delivery))
        try:
            await asyncio.shield(record)
        except asyncio.CancelledError:
            await asyncio.wait([record])
            raise

    async def _record(self, lane: _Lane, work: _Work, delivery: Delivery) -> None:
        now = self._clock.now()
        self._counter.add("notify_attempt", delivery.reason)
        wait = self._judge(lane, work, delivery, now)
        for item in work.items:
            item.attempts += 1
            item.last_reason = delivery.reason
            item.last_detail = shorten(terminal(delivery.detail), 500)
            if delivery.reason is DeliveryReason.DELIVERED:
                item.state, item.delivered_at = OutboxState.DELIVERED, now
                self._forgiven_times.pop(item.id, None)
                self._counter.add("notify_delivered", lane.name)
                await self._save(item)
            elif delivery.retry:
                item.next_try_at = now + (wait or back_off(item.attempts, _ITEM_BACK_OFF, self._random))
                await self._save(item)
            else:
                await self._fail(lane, item, delivery.reason, item.last_detail)

    def _judge(self, lane: _Lane, work: _Work, delivery: Delivery, now: int) -> int:
        """Note how the receiver fares; the wait that is the receiver's, 0 where the item has its own."""
        if not delivery.retry:
            # Delivered or refused: it answers. What failed meanwhile is tried again now, most urgent first.
            for item_id in lane.failed:
                times = self._forgiven_times.get(item_id, 0)
                if times < 3:
                    self._forgiven_times[item_id] = times + 1
                    self._forgiven.add(item_id)
            lane.failures, lane.last_reason, lane.blocked_until = 0, None, 0
            lane.failed.clear()
            return 0
        lane.failures += 1
        lane.last_reason = delivery.reason
        wait = max(
            back_off(lane.failures, _RECEIVER_BACK_OFF, self._random),
            min(delivery.retry_after, LONGEST_RETRY_AFTER),
        )
        lane.blocked_until = now + wait
        if delivery.reason in _RECEIVER_AT_FAULT:
            return wait
        lane.failed.update(item.id for item in work.items)
        return 0

    async def _look_at_age(self, lane: _Lane, item: OutboxItem, now: int) -> int:
        """Fall back and give up where the time has come; when to look at the item again for that."""
        since = item.created_at
        if item.notification.digest and lane.digest_interval:
            since = self._ripe_at(lane, item, now)
        if now >= since + self._keep_trying:
            if lane.task is None:
                detail = f"not delivered within {duration_text(self._keep_trying)}: {item.last_detail}"
                await self._fail(lane, item, DeliveryReason.EXPIRED, detail)
            return now + SECOND
        if not lane.fallback or item.fallback_sent:
            return since + self._keep_trying
        if now < since + lane.fallback_after:
            return since + lane.fallback_after
        if lane.task is None and await self._fall_back(lane, item):
            await self._save(item)
        return now + SECOND

    async def _fall_back(self, lane: _Lane, item: OutboxItem) -> bool:
        """Enqueue the same at the fallback receiver, once; False where the disk refused."""
        now = self._clock.now()
        notification = replace(item.notification, receiver=lane.fallback)
        other = OutboxItem(
            id=uuid7(now),
            notification=notification,
            # Its own order: the original is still waiting in the old one.
            order_key=f"{item.order_key}>{lane.fallback}",
            sequence=item.sequence,
            created_at=now,
            next_try_at=now,
            fallback_of=item.id,
        )

        def enqueue() -> bool:
            with self._store.transaction() as transaction:
                transaction.enqueue(other)
            return True

        # Enqueued first, noted second: a crash between repeats the fallback under the same delivery id.
        if not await self._read(enqueue):
            return False
        item.fallback_sent = True
        self._counter.add("notify_fallback", lane.name)
        _log.warning("not delivered in time, told the fallback", receiver=lane.name, fallback=lane.fallback)
        self._woken.set()
        return True

    async def _fail(self, lane: _Lane | None, item: OutboxItem, reason: DeliveryReason, detail: str) -> None:
        if lane is not None and lane.fallback and not item.fallback_sent and not await self._fall_back(lane, item):
            # The disk refuses: the item stays as it is, and is not refused again at once.
            lane.blocked_until = self._clock.now() + _STATE_PAUSE
            return
        item.state = OutboxState.FAILED
        item.last_reason = reason
        item.last_detail = shorten(detail, 500)
        self._forgiven_times.pop(item.id, None)
        self._counter.add("notify_failed", reason)
        _log.error(
            "a notification cannot be delivered",
            receiver=terminal(item.notification.receiver),
            item=item.id,
            reason=reason.value,
            detail=item.last_detail,
        )
        await self._save(item)

    # ------------------------------------------------------------------------------------------ the disk

    async def _save(self, item: OutboxItem) -> None:
        self._unsaved[item.id] = item
        await self._save_unsaved()

    async def _save_unsaved(self) -> bool:
        """Save what waits for it; False where the disk refused (the outcome is kept and saved later)."""
        for item in list(self._unsaved.values()):

            def save(item: OutboxItem = item) -> bool:
                self._store.save_outbox(item)
                return True

            if not await self._read(save):
                return False
            self._unsaved.pop(item.id, None)
        return True

    async def _read(self, work: Callable[[], _T]) -> _T | None:
        """`work` in a thread, to its end also when we are cancelled meanwhile; None where the disk refused."""
        call = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            try:
                result = await asyncio.shield(call)
            except asyncio.CancelledError:
                await asyncio.wait([call])
                raise
        except StateError as error:
            self._counter.add("notify_state_failed")
            if not self._state_failing:
                self._state_failing = True
                _log.error("the outbox cannot be read or saved; trying on", error=terminal(str(error)))
            return None
        self._state_failing = False
        return result


def delivery_id(item: OutboxItem) -> str:
    """What a notifier is told as item_id: stable over retries, and over a fallback that was enqueued twice."""
    return item.fallback_of or item.id


def _digest_id(items: Sequence[OutboxItem]) -> str:
    ids = "\n".join(sorted(delivery_id(item) for item in items))
    return "digest-" + hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()


def _slot(item: OutboxItem, interval: int) -> int:
    """Start of the digest interval in which the item was created."""
    return item.created_at // interval * interval


def _rate_key(name: str, receiver: Receiver | None) -> str:
    """Receivers with one PagerDuty key share its rate: PagerDuty counts by key."""
    if receiver is not None and receiver.type == "pagerduty":
        return f"pagerduty {receiver.routing_key.model_dump_json()}"
    return name

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.notify.examples import BROKEN, DELIVERED, DOWN, REFUSED, Counts, State, item

from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.model.notifications import Delivery, Notification, NotificationKind, OutboxItem, OutboxState
from vedette.model.protocols import Notifier
from vedette.model.reasons import DeliveryReason
from vedette.notify.outbox import Outbox, delivery_id
from vedette.notify.settings import NotifySettings
from vedette.testing.clock import START, FakeClock

FAST = {"per_minute": 6000, "burst": 5999}
PAGER = {"type": "pagerduty", "routing_key": {"env": "KEY"}, "rate": FAST}
MAIL = {"type": "email", "to": ["ops@example.org"], "rate": FAST}
HOOK = {"type": "webhook", "url": "https://hooks.example.org/", "rate": FAST}


class Recorder:
    """A Notifier that answers as told and remembers what reached it."""

    def __init__(self, answer: Callable[[Notification], Delivery] = lambda _: DELIVERED, enough: int = 1) -> None:
        self.enough = asyncio.Event()
        self._wanted = enough
        self.answer = answer
        self.calls: list[tuple[str, Notification]] = []
        self.got: list[str] = []
        self.digests: list[tuple[str, list[str]]] = []

    async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
        await asyncio.sleep(0)
        self.calls.append((item_id, notification))
        delivery = self.answer(notification)
        if delivery.reason is DeliveryReason.DELIVERED:
            self.got.append(item_id)
            if len(self.got) == self._wanted:
                self.enough.set()
        return delivery

    async def deliver_digest(self, notifications: Sequence[Notification], *, item_id: str) -> Delivery:
        delivery = self.answer(notifications[0])
        if delivery.reason is DeliveryReason.DELIVERED:
            self.digests.append((item_id, [one.dedup_key for one in notifications]))
        return delivery

    async def close(self) -> None:
        """Nothing was opened."""


def outbox(
    state: State,
    clock: FakeClock,
    counts: Counts,
    notifiers: Mapping[str, Notifier],
    receivers: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Outbox:
    chosen = receivers or dict.fromkeys(notifiers, PAGER)
    chosen_settings = NotifySettings.model_validate({"receivers": chosen} | changes)
    return Outbox(state, notifiers, chosen_settings, clock, counts, random=Random(7).random)


async def play(box: Outbox, clock: FakeClock, until: int) -> None:
    """Let the worker do what is due, jump to the next thing due, and so on until `until`."""
    while True:
        due_at = await box.flush()
        if due_at > until:
            clock.set(max(clock.now(), until))
            return
        clock.set(max(due_at, clock.now() + 1))


# ---------------------------------------------------------------------------------------------- order


async def test_most_urgent_first_then_oldest(state: State, clock: FakeClock, counts: Counts):
    state.put(
        item("low", level=Level.LOW, at=START - 9),
        item("high-new", level=Level.HIGH, at=START - 1),
        item("critical", level=Level.CRITICAL),
        item("high-old", level=Level.HIGH, at=START - 2),
    )
    pager = Recorder()
    await outbox(state, clock, counts, {"pager": pager}).flush()
    assert pager.got == ["critical", "high-old", "high-new", "low"]
    assert counts.of("notify_delivered") == {"pager": 4}
    assert state.item("low").state is OutboxState.DELIVERED
    assert state.item("low").delivered_at == START


async def test_a_resolve_never_overtakes_its_trigger(state: State, clock: FakeClock, counts: Counts):
    trouble = [BROKEN, DOWN, DELIVERED, DELIVERED]
    pager = Recorder(lambda _: trouble.pop(0))
    state.put(
        item("trigger", order="incident", sequence=1, level=Level.HIGH),
        item("resolve", order="incident", sequence=2, level=Level.CRITICAL, kind=NotificationKind.RESOLVE),
    )
    await play(outbox(state, clock, counts, {"pager": pager}), clock, START + HOUR)
    assert [name for name, _ in pager.calls] == ["trigger", "trigger", "trigger", "resolve"]


async def test_a_refused_trigger_does_not_hold_back_the_rest(state: State, clock: FakeClock, counts: Counts):
    pager = Recorder(lambda told: REFUSED if told.kind is NotificationKind.TRIGGER else DELIVERED)
    state.put(
        item("trigger", order="incident", sequence=1),
        item("resolve", order="incident", sequence=2, kind=NotificationKind.RESOLVE),
    )
    await outbox(state, clock, counts, {"pager": pager}).flush()
    assert pager.got == ["resolve"]
    failed = state.item("trigger")
    assert (failed.state, failed.last_reason, failed.last_detail) == (
        OutboxState.FAILED,
        DeliveryReason.REFUSED,
        "400 no",
    )
    assert counts.of("notify_failed") == {"refused": 1}
    assert failed.attempts == 1


async def test_an_item_that_is_not_due_waits(state: State, clock: FakeClock, counts: Counts):
    pager = Recorder()
    box = outbox(state, clock, counts, {"pager": pager})
    later = item("later")
    later.next_try_at = START + MINUTE
    state.put(later)
    assert await box.flush() == START + MINUTE
    assert pager.got == []
    clock.advance(MINUTE)
    await box.flush()
    assert pager.got == ["later"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(Level), st.integers(0, 5), st.sampled_from(["one", "two"])),
        max_size=30,
    ),
    st.lists(st.sampled_from([BROKEN, DOWN, DELIVERED]), max_size=40),
)
@settings(max_examples=25)
def test_everything_arrives_once_and_in_order_whatever_happens(rows: list[Any], weather: list[Delivery]):
    async def scenario() -> None:
        state, clock = State(), FakeClock()
        sequences: dict[str, int] = defaultdict(int)
        items = []
        for number, (order, level, delay, receiver) in enumerate(rows):
            key = f"{receiver}-{order}"
            sequences[key] += 1
            at = START + number * SECOND + delay
            name = f"{number:03d}"
            items.append(item(name, order=key, sequence=sequences[key], at=at, level=level, receiver=receiver))
        state.put(*items)
        left = list(weather)
        answer = lambda _: left.pop() if left else DELIVERED  # noqa: E731
        receivers = {"one": Recorder(answer), "two": Recorder(answer)}
        await play(outbox(state, clock, Counts(), receivers), clock, START + DAY)
        for name, recorder in receivers.items():
            assert sorted(recorder.got) == [one.id for one in items if one.notification.receiver == name]
            by_order: dict[str, list[str]] = defaultdict(list)
            for got in recorder.got:
                by_order[state.item(got).order_key].append(got)
            assert all(group == sorted(group) for group in by_order.values())

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- outage


@pytest.mark.parametrize(
    "down",
    [
        DOWN,
        BROKEN,
        Delivery(DeliveryReason.TIMEOUT, retry=True),
        Delivery(DeliveryReason.RATE_LIMITED, retry=True, retry_after=20 * SECOND),
    ],
    ids=lambda one: one.reason.value,
)
async def test_an_hour_without_the_pager(state: State, clock: FakeClock, counts: Counts, down: Delivery):
    """Things happen all through the outage; then everything arrives, the most urgent first, each group in order."""
    end = START + HOUR
    pager = Recorder(lambda _: down if clock.now() < end else DELIVERED)
    box = outbox(state, clock, counts, {"pager": pager})
    random = Random(3)
    for minute in range(60):
        await play(box, clock, START + minute * MINUTE)
        group = f"group-{minute % 12:02d}"
        level = random.choice([Level.LOW, Level.MEDIUM, Level.HIGH, Level.CRITICAL])
        name = f"{group}-{minute // 12}"
        state.put(item(name, order=group, sequence=minute // 12, at=clock.now(), level=level))
        box.wake()
    await play(box, clock, end - 1)
    assert pager.got == []
    waited = {one.id: one for one in state.outbox(limit=100)}
    assert {one.state for one in waited.values()} == {OutboxState.PENDING}
    asked = len(pager.calls)
    assert 60 <= asked <= 400

    await play(box, clock, end + 5 * MINUTE)
    assert sorted(pager.got) == sorted(waited)

    # What should have come: always the most urgent of the heads of all groups.
    queues: dict[str, list[OutboxItem]] = defaultdict(list)
    for one in sorted(waited.values(), key=lambda one: one.sequence):
        queues[one.order_key].append(one)
    expected = []
    if down.reason in (DeliveryReason.SERVER_ERROR, DeliveryReason.TIMEOUT):
        # The first may have been a probe with another item, to find out whose fault it is.
        probed = state.item(pager.got[0])
        assert queues[probed.order_key].pop(0).id == probed.id
        expected.append(probed.id)
    while any(queues.values()):
        heads = [queue[0] for queue in queues.values() if queue]
        first = min(heads, key=lambda one: (-one.notification.level, one.created_at, one.id))
        expected.append(first.id)
        queues[first.order_key].pop(0)
    assert pager.got == expected


async def test_an_item_its_receiver_stumbles_over_does_not_block_the_others(
    state: State, clock: FakeClock, counts: Counts
):
    pager = Recorder(lambda told: BROKEN if told.dedup_key == "poison" else DELIVERED)
    state.put(item("poison", level=Level.CRITICAL), *[item(f"good-{n}", level=Level.LOW) for n in range(20)])
    await play(outbox(state, clock, counts, {"pager": pager}), clock, START + 3 * MINUTE)
    assert len(pager.got) == 20
    assert state.item("poison").state is OutboxState.PENDING
    assert state.item("poison").last_reason is DeliveryReason.SERVER_ERROR


async def test_what_an_outage_put_off_goes_out_as_soon_as_it_is_over(state: State, clock: FakeClock, counts: Counts):
    calls: list[str] = []

    def answer(told: Notification) -> Delivery:
        calls.append(told.dedup_key)
        return BROKEN if len(calls) <= 12 else DELIVERED

    state.put(item("critical", level=Level.CRITICAL), item("low", level=Level.LOW))
    await play(outbox(state, clock, counts, {"pager": Recorder(answer)}), clock, START + HOUR)
    # The thirteenth call was a probe with the item that had failed least; the other had earned minutes of back-off.
    assert calls[12:] == ["low", "critical"]
    assert state.item("critical").delivered_at == state.item("low").delivered_at


async def test_retry_after_is_honoured_but_not_for_ever(state: State, clock: FakeClock, counts: Counts):
    asked: list[int] = []

    def answer(_: Notification) -> Delivery:
        asked.append(clock.now() - START)
        return Delivery(DeliveryReason.RATE_LIMITED, retry=True, retry_after=[90 * SECOND, 400 * DAY][len(asked) > 1])

    state.put(item("one"), item("two"))
    await play(outbox(state, clock, counts, {"pager": Recorder(answer)}), clock, START + 2 * HOUR)
    assert asked[:3] == [0, 90 * SECOND, 90 * SECOND + HOUR]


async def test_what_cannot_be_delivered_for_too_long_fails_visibly(state: State, clock: FakeClock, counts: Counts):
    state.put(item("old"))
    box = outbox(state, clock, counts, {"pager": Recorder(lambda _: DOWN)}, keep_trying="2h")
    await play(box, clock, START + 2 * HOUR - 1)
    assert state.item("old").state is OutboxState.PENDING
    await play(box, clock, START + 3 * HOUR)
    old = state.item("old")
    assert (old.state, old.last_reason) == (OutboxState.FAILED, DeliveryReason.EXPIRED)
    assert old.last_detail.startswith("not delivered within 2h")
    assert counts.of("notify_failed") == {"expired": 1}


# ---------------------------------------------------------------------------------------------- receivers apart


async def test_a_slow_receiver_blocks_no_other(state: State, clock: FakeClock, counts: Counts):
    release = asyncio.Event()

    class Slow(Recorder):
        async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
            await release.wait()
            return await super().deliver(notification, item_id=item_id)

    slow, quick = Slow(), Recorder(enough=5)
    # More than a page of urgent ones for the slow one stand in front.
    state.put(*[item(f"slow-{n:03d}", level=Level.CRITICAL, receiver="slow") for n in range(110)])
    state.put(*[item(f"quick-{n}", level=Level.LOW, receiver="quick") for n in range(5)])
    task = asyncio.create_task(outbox(state, clock, counts, {"slow": slow, "quick": quick}).flush())
    await quick.enough.wait()
    assert slow.got == []
    release.set()
    await task
    assert len(slow.got) == 110


async def test_a_notifier_that_raises_counts_as_defect_and_is_tried_again(
    state: State, clock: FakeClock, counts: Counts, capsys: pytest.CaptureFixture[str]
):
    answers = [ZeroDivisionError("secret"), None]

    def answer(_: Notification) -> Delivery:
        error = answers.pop(0)
        if error:
            raise error
        return DELIVERED

    pager = Recorder(answer)
    state.put(item("one"))
    await play(outbox(state, clock, counts, {"pager": pager}), clock, START + MINUTE)
    assert pager.got == ["one"]
    assert counts.of("notify_attempt") == {"defect": 1, "delivered": 1}
    said = capsys.readouterr().out
    assert "ZeroDivisionError" in said
    assert "secret" not in said


async def test_an_item_for_nobody_fails_visibly(state: State, clock: FakeClock, counts: Counts):
    state.put(item("lost", receiver="no\x1bbody"))
    await outbox(state, clock, counts, {"pager": Recorder()}).flush()
    lost = state.item("lost")
    assert (lost.state, lost.last_reason) == (OutboxState.FAILED, DeliveryReason.MISCONFIGURED)
    assert lost.last_detail == "there is no receiver no\\x1bbody"


async def test_the_rate_of_one_key_is_kept_over_receivers_and_urgent_ones_go_first(
    state: State, clock: FakeClock, counts: Counts
):
    at: list[int] = []
    pagers = {name: Recorder(lambda _: at.append(clock.now()) or DELIVERED) for name in ("pager", "night")}
    keyed = {"type": "pagerduty", "routing_key": {"env": "KEY"}}
    box = outbox(state, clock, counts, pagers, {"pager": keyed, "night": keyed})
    for n in range(60):
        state.put(item(f"pager-{n:03d}", level=Level.HIGH), item(f"night-{n:03d}", level=Level.HIGH, receiver="night"))
    await play(box, clock, START + 10 * SECOND)
    state.put(item("the-true-page", level=Level.CRITICAL, at=clock.now()))
    box.wake()
    before = clock.now()
    await play(box, clock, START + 5 * MINUTE)
    assert len(at) == 121
    for earlier, later in zip(at, at[100:], strict=False):
        assert later - earlier >= MINUTE
    assert state.item("the-true-page").delivered_at - before <= 2 * SECOND


@pytest.mark.parametrize("answer", [DOWN, BROKEN])
async def test_a_clock_that_is_set_back_leaves_nothing_lying(
    state: State, clock: FakeClock, counts: Counts, answer: Delivery
):
    trouble = [answer]
    pager = Recorder(lambda _: trouble.pop() if trouble else DELIVERED)
    box = outbox(state, clock, counts, {"pager": pager})
    state.put(item("tried"))
    await box.flush()
    state.put(item("new", at=clock.now()))
    clock.advance(-DAY)
    await play(box, clock, clock.now() + MINUTE)
    assert sorted(pager.got) == ["new", "tried"]


# ---------------------------------------------------------------------------------------------- fallback


async def test_the_fallback_is_told_once_in_time(state: State, clock: FakeClock, counts: Counts):
    end = START + HOUR
    pager = Recorder(lambda _: DOWN if clock.now() < end else DELIVERED)
    hook = Recorder()
    receivers = {"pager": PAGER | {"fallback": {"receiver": "hook", "after": "10m"}}, "hook": HOOK}
    box = outbox(state, clock, counts, {"pager": pager, "hook": hook}, receivers)
    state.put(item("page"))
    await play(box, clock, START + 10 * MINUTE - 1)
    assert hook.got == []
    await play(box, clock, START + 11 * MINUTE)
    assert hook.got == ["page"]
    assert hook.calls[0][1].receiver == "hook"
    await play(box, clock, end + 5 * MINUTE)
    assert (hook.got, pager.got) == (["page"], ["page"])
    assert counts.of("notify_fallback") == {"pager": 1}
    (other,) = [one for one in state.outbox() if one.fallback_of]
    assert other.fallback_of == "page"
    assert other.notification.dedup_key == state.item("page").notification.dedup_key


async def test_a_refusal_falls_back_at_once(state: State, clock: FakeClock, counts: Counts):
    hook = Recorder()
    receivers = {"pager": PAGER | {"fallback": {"receiver": "hook"}}, "hook": HOOK}
    state.put(item("page"))
    await outbox(state, clock, counts, {"pager": Recorder(lambda _: REFUSED), "hook": hook}, receivers).flush()
    assert hook.got == ["page"]
    assert state.item("page").state is OutboxState.FAILED


async def test_a_fallback_may_have_its_own(state: State, clock: FakeClock, counts: Counts):
    last = Recorder()
    receivers = {
        "pager": PAGER | {"fallback": {"receiver": "hook", "after": "10m"}},
        "hook": HOOK | {"fallback": {"receiver": "last", "after": "10m"}},
        "last": HOOK,
    }
    dead = Recorder(lambda _: DOWN)
    box = outbox(state, clock, counts, {"pager": dead, "hook": dead, "last": last}, receivers)
    state.put(item("page"))
    await play(box, clock, START + 19 * MINUTE)
    assert last.got == []
    await play(box, clock, START + 25 * MINUTE)
    assert len(last.got) == 1


# ---------------------------------------------------------------------------------------------- digest


def low(name: str, at: int, **changes: Any) -> OutboxItem:
    return item(name, at=at, level=Level.LOW, digest=True, receiver="mail", **changes)


async def test_a_digest_joins_an_interval(state: State, clock: FakeClock, counts: Counts):
    mail = Recorder()
    box = outbox(state, clock, counts, {"mail": mail}, {"mail": MAIL | {"digest_interval": "1h"}})
    state.put(
        low("a", START + 5 * MINUTE),
        low("b1", START + 6 * MINUTE, order="b", sequence=1),
        low("b2", START + 40 * MINUTE, order="b", sequence=2),
        low("next", START + HOUR + MINUTE),
        item("now", receiver="mail", level=Level.MEDIUM),
    )
    await play(box, clock, START + HOUR - 1)
    assert (mail.digests, mail.got) == ([], ["now"])
    await play(box, clock, START + HOUR)
    assert [keys for _, keys in mail.digests] == [["a", "b", "b"]]
    assert {state.item(name).state for name in ("a", "b1", "b2")} == {OutboxState.DELIVERED}
    await play(box, clock, START + 3 * HOUR)
    assert [keys for _, keys in mail.digests] == [["a", "b", "b"], ["next"]]


async def test_a_digest_that_was_cut_comes_again_as_the_same(state: State, clock: FakeClock, counts: Counts):
    class Forgetful(State):
        lost = True

        def save_outbox(self, item: OutboxItem) -> None:
            # As if killed between the delivery and our commit.
            if self.lost:
                raise StateError("the disk is full")
            super().save_outbox(item)

    state = Forgetful()
    state.put(low("a", START), low("b", START + 1))
    clock.advance(HOUR)
    first, again = Recorder(), Recorder()
    receivers = {"mail": MAIL}
    await outbox(state, clock, counts, {"mail": first}, receivers).flush()
    state.lost = False
    state.put(low("c", START + HOUR))
    await outbox(state, clock, counts, {"mail": again}, receivers).flush()
    assert first.digests == again.digests
    assert len(first.digests) == 1


async def test_a_receiver_that_knows_no_digest_gets_them_one_by_one(state: State, clock: FakeClock, counts: Counts):
    hook = Recorder()
    state.put(item("a", receiver="hook", digest=True), item("b", receiver="hook", digest=True))
    await outbox(state, clock, counts, {"hook": hook}, {"hook": HOOK}).flush()
    assert hook.got == ["a", "b"]


# ---------------------------------------------------------------------------------------------- crashes, disks, threads


async def test_a_crash_between_delivery_and_save_repeats_under_the_same_id(
    state: State, clock: FakeClock, counts: Counts, monkeypatch: pytest.MonkeyPatch
):
    pager = Recorder()
    state.put(item("page"))

    def killed(item: OutboxItem) -> None:
        raise StateError("as if killed here")

    with monkeypatch.context() as patched:
        patched.setattr(state, "save_outbox", killed)
        await outbox(state, clock, counts, {"pager": pager}).flush()
    assert state.item("page").state is OutboxState.PENDING
    restarted = outbox(state, clock, counts, {"pager": pager})
    await restarted.flush()
    assert [name for name, _ in pager.calls] == ["page", "page"]
    assert pager.calls[0][1].dedup_key == pager.calls[1][1].dedup_key
    await restarted.flush()
    assert len(pager.calls) == 2


async def test_while_the_disk_refuses_nothing_is_told_twice(state: State, clock: FakeClock, counts: Counts):
    class Full(State):
        full = True

        def save_outbox(self, item: OutboxItem) -> None:
            if self.full:
                raise StateError("no space left on device")
            super().save_outbox(item)

    state = Full()
    pager = Recorder()
    box = outbox(state, clock, counts, {"pager": pager})
    state.put(item("one"), item("two"))
    await play(box, clock, START + MINUTE)
    assert sorted(pager.got) == ["one", "two"]
    assert state.item("one").state is OutboxState.PENDING
    assert counts.of("notify_state_failed")[""] > 2
    state.full = False
    await play(box, clock, START + 2 * MINUTE)
    assert {one.state for one in state.outbox()} == {OutboxState.DELIVERED}
    assert len(pager.calls) == 2


async def test_an_outbox_that_cannot_be_read_is_read_again(state: State, clock: FakeClock, counts: Counts):
    class Unreadable(State):
        broken = True

        def pending_outbox(self, now: int, limit: int = 100) -> Sequence[OutboxItem]:
            if self.broken:
                raise StateError("disk I/O error")
            return super().pending_outbox(now, limit)

    state = Unreadable()
    pager = Recorder()
    box = outbox(state, clock, counts, {"pager": pager})
    state.put(item("one"))
    assert await box.flush() == START + 5 * SECOND
    state.broken = False
    await box.flush()
    assert pager.got == ["one"]


async def test_cancelled_in_an_attempt_the_item_stays(state: State, clock: FakeClock, counts: Counts):
    begun = asyncio.Event()

    class Hanging(Recorder):
        async def deliver(self, notification: Notification, *, item_id: str) -> Delivery:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    state.put(item("page"))
    task = asyncio.create_task(outbox(state, clock, counts, {"pager": Hanging()}).run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    page = state.item("page")
    assert (page.state, page.attempts) == (OutboxState.PENDING, 0)


async def test_cancelled_after_a_delivery_it_is_still_written_down(state: State, clock: FakeClock, counts: Counts):
    saving = asyncio.Event()
    go_on = threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(State):
        def save_outbox(self, item: OutboxItem) -> None:
            loop.call_soon_threadsafe(saving.set)
            go_on.wait(10)
            super().save_outbox(item)

    state = Slow()
    state.put(item("page"))
    task = asyncio.create_task(outbox(state, clock, counts, {"pager": Recorder()}).run())
    await saving.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state.item("page").state is OutboxState.DELIVERED


async def test_woken_from_another_thread_it_looks_at_once(state: State, clock: FakeClock, counts: Counts):
    pager = Recorder()
    box = outbox(state, clock, counts, {"pager": pager})
    box.wake()
    task = asyncio.create_task(box.run())
    await asyncio.sleep(0.01)

    def engine() -> None:
        state.put(item("page"))
        box.wake()

    await asyncio.to_thread(engine)
    await pager.enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    box.wake()


def test_delivery_id_of_a_fallback_is_that_of_its_original():
    assert delivery_id(item("a")) == "a"
    other = item("b")
    other.fallback_of = "a"
    assert delivery_id(other) == "a"

"""What is in the lake is sent on in order, at least once, whatever the target, the disk or the lake does.
Counterpart: vedette.fleet.forward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fleet.forwarding import Shelves, running, short, until

from vedette.app.counters import Counters
from vedette.fleet import forward
from vedette.fleet.forward import Cursor, Forwarder, ForwardError, ForwardReason, Stored
from vedette.testing.clock import START, FakeClock


class Receiver:
    """A target that keeps what it gets, and first fails as often as it is told."""

    def __init__(self, *failures: Exception, refuses: int = 0) -> None:
        self.failures = list(failures)
        self.refuses = refuses
        self.got: list[bytes] = []
        self.groups: list[list[int]] = []
        self.closed = 0

    async def send(self, group: Sequence[Stored], after: int) -> int:
        assert all(one.sequence > after for one in group)
        if self.failures:
            raise self.failures.pop(0)
        self.groups.append([one.sequence for one in group])
        self.got += [one.batch.raw(row) for one in group for row in range(len(one.batch))]
        return self.refuses

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def shelves() -> Shelves:
    made = Shelves()
    made.add("file:/var/log/auth.log", b"one", b"two")
    made.add("file:/var/log/auth.log#security", b"three")
    made.add("audit", b"four")
    return made


def sender(
    receiver: Receiver,
    shelves: Shelves,
    folder: Path,
    counters: Counters,
    streams: Sequence[str] = ("*",),
    **more: object,
) -> Forwarder:
    exclude = more.get("exclude", ())
    assert isinstance(exclude, tuple)
    return Forwarder(
        "there",
        receiver,
        folder / "forward" / "there",
        shelves.read,
        clock=FakeClock(START + 5_000_000),
        counter=counters,
        streams=streams,
        exclude=exclude,
        sleep=short,
    )


async def test_all_goes_in_order_and_after_a_restart_only_what_is_new(shelves: Shelves, tmp_path: Path) -> None:
    counters, first, second = Counters(), Receiver(), Receiver()
    async with running(sender(first, shelves, tmp_path, counters)):
        await until(lambda: Cursor(tmp_path / "forward" / "there", counters).after == 3)
    shelves.add("audit", b"five")
    async with running(sender(second, shelves, tmp_path, counters)):
        await until(lambda: second.got)
    assert first.got == [b"one", b"two", b"three", b"four"]
    assert second.got == [b"five"]
    assert counters.value("forwarded", "there") == 5
    assert first.closed == second.closed == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ForwardError(ForwardReason.NETWORK_ERROR, "down"), "network-error"),
        (OSError("full"), "disk"),
        (ZeroDivisionError("ours"), "defect"),
    ],
)
async def test_what_fails_is_tried_again_and_counted(
    shelves: Shelves, tmp_path: Path, failure: Exception, reason: str
) -> None:
    counters, receiver = Counters(), Receiver(failure, failure)
    forwarder = sender(receiver, shelves, tmp_path, counters)
    async with running(forwarder):
        await until(lambda: receiver.got and not forwarder.lag)
    assert receiver.got == [b"one", b"two", b"three", b"four"]
    assert counters.value("forward_failed", f"there:{reason}") == 2


async def test_a_lake_that_cannot_be_read_is_waited_for(shelves: Shelves, tmp_path: Path) -> None:
    counters, receiver = Counters(), Receiver()
    troubles = [RuntimeError("not now")]
    forwarder = sender(receiver, shelves, tmp_path, counters)

    def read(after: int, limit: int) -> Sequence[Stored]:
        if troubles:
            raise troubles.pop()
        return shelves.read(after, limit)

    forwarder._read = read
    async with running(forwarder):
        await until(lambda: receiver.got)
    assert counters.value("forward_failed", "there:lake") == 1


async def test_how_far_it_is_behind_shows_while_the_target_is_away(shelves: Shelves, tmp_path: Path) -> None:
    counters = Counters()
    receiver = Receiver(*[ForwardError(ForwardReason.TIMEOUT, "slow")] * 10_000)
    forwarder = sender(receiver, shelves, tmp_path, counters)
    async with running(forwarder):
        await until(lambda: counters.value("forward_failed", "there:timeout"))
        assert forwarder.lag == 5_000_000
        receiver.failures.clear()
        await until(lambda: receiver.got and not forwarder.lag)


async def test_streams_are_chosen_by_pattern_and_their_security_part_goes_along(
    shelves: Shelves, tmp_path: Path
) -> None:
    counters, some, others = Counters(), Receiver(), Receiver()
    cursor = tmp_path / "some" / "forward" / "there"
    async with running(sender(some, shelves, tmp_path / "some", counters, ("file:*",))):
        await until(lambda: Cursor(cursor, counters).after == 3)
    async with running(sender(others, shelves, tmp_path / "others", counters, exclude=("file:*",))):
        await until(lambda: others.got)
    assert some.got == [b"one", b"two", b"three"]
    assert others.got == [b"four"]


async def test_where_nothing_is_wanted_the_cursor_moves_all_the_same(shelves: Shelves, tmp_path: Path) -> None:
    counters, receiver = Counters(), Receiver()
    async with running(sender(receiver, shelves, tmp_path, counters, ("nothing",))):
        await until(lambda: Cursor(tmp_path / "forward" / "there", counters).after == 3)
    assert not receiver.groups


async def test_what_the_target_refuses_for_ever_is_counted_and_left_out(shelves: Shelves, tmp_path: Path) -> None:
    counters, receiver = Counters(), Receiver(refuses=1)
    async with running(sender(receiver, shelves, tmp_path, counters)):
        await until(lambda: counters.value("forwarded", "there"))
    assert counters.value("forward_refused", "there") == 1
    assert counters.value("forwarded", "there") == 3


async def test_much_goes_in_groups_and_a_failure_repeats_no_group_before(
    shelves: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "GROUP_BYTES", 6)
    counters, receiver = Counters(), Receiver()
    sent = receiver.send

    async def send(group: Sequence[Stored], after: int) -> int:
        if group[0].sequence == 2 and not counters.value("forward_failed", "there:network-error"):
            raise ForwardError(ForwardReason.NETWORK_ERROR, "cut")
        return await sent(group, after)

    receiver.send = send  # type: ignore[method-assign]
    async with running(sender(receiver, shelves, tmp_path, counters)):
        await until(lambda: len(receiver.got) == 4)
    assert receiver.groups == [[1], [2], [3]]


async def test_a_damaged_cursor_sends_all_again_and_is_counted(shelves: Shelves, tmp_path: Path) -> None:
    counters, receiver = Counters(), Receiver()
    (tmp_path / "forward").mkdir()
    (tmp_path / "forward" / "there").write_bytes(b"\0\0")
    async with running(sender(receiver, shelves, tmp_path, counters)):
        await until(lambda: len(receiver.got) == 4)
    assert counters.value("forward_cursors_damaged", "there") == 1


async def test_what_the_lake_let_go_before_it_was_sent_is_counted(shelves: Shelves, tmp_path: Path) -> None:
    counters, receiver = Counters(), Receiver()
    cursor = Cursor(tmp_path / "forward" / "there", counters)
    cursor.move(1)
    del shelves.put[:2]
    async with running(sender(receiver, shelves, tmp_path, counters)):
        await until(lambda: receiver.got)
    assert receiver.got == [b"four"]
    assert counters.value("forward_missed_batches", "there") == 1


async def test_small_batches_are_read_many_at_once(tmp_path: Path) -> None:
    shelves, counters, receiver = Shelves(), Counters(), Receiver()
    for number in range(100):
        shelves.add("audit", b"%d" % number)
    asked: list[int] = []
    forwarder = sender(receiver, shelves, tmp_path, counters)

    def read(after: int, limit: int) -> Sequence[Stored]:
        asked.append(limit)
        return shelves.read(after, limit)

    forwarder._read = read
    async with running(forwarder):
        await until(lambda: len(receiver.got) == 100)
    assert asked[:3] == [16, 64, 256]
    assert receiver.got == [b"%d" % number for number in range(100)]


def test_pauses_grow_to_a_minute_and_obey_the_target(shelves: Shelves, tmp_path: Path) -> None:
    forwarder = sender(Receiver(), shelves, tmp_path, Counters())
    forwarder._chance = lambda: 1.0
    pauses = [forwarder._failed(ForwardReason.TIMEOUT, "") for _ in range(9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert forwarder._failed(ForwardReason.RATE_LIMITED, "", 90) == 90

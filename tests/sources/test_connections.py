"""Who gives way where all connections are taken, and who never does.
Counterpart: src/vedette/sources/connections.py; with real sockets: tests/scenarios/test_many_connections.py."""

from __future__ import annotations

import pytest

from vedette.sources.connections import QUIET, Connection, ConnectionEnd, Connections, neighbours_of


class House:
    """Connections with a clock of the test's own."""

    def __init__(self, most: int, most_of_address: int = 100) -> None:
        self.now = 0.0
        self.connections = Connections(most, most_of_address, lambda: self.now)

    def take(self, address: str) -> Connection:
        made = self.connections.take(address)
        assert isinstance(made, Connection)
        self.now += 0.001
        return made

    def refused(self, address: str) -> ConnectionEnd:
        made = self.connections.take(address)
        assert isinstance(made, ConnectionEnd)
        return made


def gone(*those: Connection) -> list[bool]:
    return [one.gave_way for one in those]


def test_an_address_with_all_of_them_gives_up_its_longest_silent_first():
    house = House(4)
    first, second, third, fourth = (house.take("a") for _ in range(4))
    first.heard()
    first.waits()
    house.take("b")
    assert gone(first, second, third, fourth) == [False, True, False, False]
    house.take("b")
    assert gone(first, second, third, fourth) == [False, True, True, False]
    # Two each: nobody was silent for long, and neither address may take of the other.
    assert [house.refused(one) for one in "ab"] == [ConnectionEnd.TOO_MANY] * 2
    assert len(house.connections) == 4


def test_those_who_talk_are_not_driven_out_by_ever_more_addresses():
    house = House(3)
    talking = [house.take(one) for one in "abc"]
    for number in range(20):
        for one in talking:
            one.heard()
            one.waits()
        house.now += QUIET - 1
        assert house.refused(f"x{number}") is ConnectionEnd.TOO_MANY
    assert gone(*talking) == [False] * 3


def test_who_says_nothing_gives_way_also_where_each_address_has_one():
    house = House(3)
    silent, talking, other = (house.take(one) for one in "abc")
    house.now += QUIET
    for one in (talking, other):
        one.heard()
        one.waits()
    house.take("d")
    assert gone(silent, talking, other) == [True, False, False]


def test_the_silent_go_before_those_who_talk_whatever_their_number():
    house = House(5)
    many = [house.take("a") for _ in range(3)]
    silent = [house.take("b") for _ in range(2)]
    house.now += QUIET
    for one in many:
        one.heard()
        one.waits()
    house.take("c")
    assert gone(*many, *silent) == [False, False, False, True, False]


def test_a_newcomer_takes_nothing_of_an_address_with_no_more_than_its_own():
    house = House(4)
    for address in "aabb":
        house.take(address)
    house.now += 10 * QUIET
    assert [house.refused(one) for one in "ab"] == [ConnectionEnd.TOO_MANY] * 2
    assert not house.take("c").gave_way


def test_who_proved_who_it_is_or_is_worked_on_never_gives_way():
    house = House(4)
    known, busy = house.take("a"), house.take("a")
    known.is_known()
    busy.heard()
    other, one_more = house.take("a"), house.take("a")
    house.now += 10 * QUIET
    known.heard()
    known.waits()
    house.take("b")
    assert gone(known, busy, other, one_more) == [False, False, True, False]
    house.take("c")
    assert gone(known, busy, other, one_more) == [False, False, True, True]
    assert house.refused("b") is ConnectionEnd.TOO_MANY


@pytest.mark.parametrize("over", [False, True])
def test_an_address_has_a_bound_of_its_own(over: bool):
    house = House(9, most_of_address=2)
    held = [house.take("a") for _ in range(2)]
    house.now += 10 * QUIET
    if not over:
        assert house.refused("a") is ConnectionEnd.TOO_MANY_OF_ADDRESS
        return
    house.connections.leave(held[0])
    house.connections.leave(held[0])
    house.take("a")
    assert len(house.connections) == 2
    assert house.refused("a") is ConnectionEnd.TOO_MANY_OF_ADDRESS


def test_full_is_said_once_until_there_was_room():
    house = House(10)
    held = [house.take("a" if number else "b") for number in range(10)]
    assert [house.connections.became_full() for _ in range(2)] == ["a", ""]
    house.connections.leave(held[0])
    house.take("b")
    assert house.connections.became_full() == "a"


def test_nothing_is_kept_of_those_who_left():
    house = House(50)
    for number in range(200):
        one = house.take(f"x{number}")
        if number % 3:
            one.is_known()
        if number % 2:
            one.heard()
        house.connections.leave(one)
        one.waits()
        one.is_known()
    kept = vars(house.connections)
    assert [len(kept[name]) for name in ("_all", "_by_address", "_strangers", "_waiting")] == [0] * 4


def test_whoever_has_one_ipv6_address_has_all_of_its_network():
    house = House(20)
    honest = [house.take(f"10.0.0.{number}") for number in range(10)]
    house.now += QUIET + 1
    tried = [house.connections.take(f"2001:db8::{number:x}") for number in range(1, 40)]
    theirs = [one for one in tried if isinstance(one, Connection)]
    # Of the others, silent as they are, nobody gives way to them.
    assert (gone(*honest), len(theirs)) == ([False] * 10, 10)
    assert house.connections.became_full() == "2001:db8::/64"
    # A newcomer who is by himself takes one of theirs, who say something now and then, once nobody else is silent.
    for one in honest:
        one.heard()
        one.waits()
    house.take("10.0.0.99")
    assert (gone(*honest), gone(*theirs)) == ([False] * 10, [True, *[False] * 9])


def test_a_network_of_many_who_send_is_not_one_address_that_sends_too_often():
    house = House(200, most_of_address=2)
    assert all(house.take(f"2001:db8::{number:x}") for number in range(1, 100))
    assert house.take("2001:db8::1")
    assert house.refused("2001:db8::1") is ConnectionEnd.TOO_MANY_OF_ADDRESS


@pytest.mark.parametrize(
    ("address", "neighbours"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:b", "a:b"),
    ],
)
def test_who_neighbours_are(address: str, neighbours: str):
    assert neighbours_of(address) == neighbours

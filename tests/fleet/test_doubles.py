"""One identity in two places is told from a restart, told once, and told again when it is over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vedette.fleet.doubles import QUIET_AFTER, DoubleChange, Doubled, Doubles
from vedette.model.clock import SECOND
from vedette.model.shipping import Report

HOST = "5f1c7a52-90ce-4a5c-8f66-2f3cf0f1a001"


def report(session: str, sequence: int, *, started_at: int = 0, stopping: bool = False) -> Report:
    return Report(HOST, "web01", session, sequence, 0, started_at, "1", {}, stopping=stopping)


def heard(doubles: Doubles, told: list[tuple[str, int]], start: int = 0) -> list[Doubled]:
    found = [doubles.hear(report(session, n), start + at * SECOND) for at, (session, n) in enumerate(told)]
    return [one for one in found if one is not None]


def test_a_restart_is_no_double():
    assert heard(Doubles(), [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]) == []


def test_two_sessions_that_go_on_are_said_once_and_cleared_when_one_stops():
    doubles = Doubles()
    found = heard(doubles, [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)])
    assert [(one.change, one.sessions) for one in found] == [(DoubleChange.DOUBLED, ("a", "b"))]
    later = 6 * SECOND
    assert heard(doubles, [("b", n) for n in range(4, 50)], later) == []
    after = later + QUIET_AFTER
    assert [one.change for one in doubles.look(after)] == [DoubleChange.SINGLE]
    assert doubles.look(after) == []


def test_a_copied_machine_that_goes_on_with_the_same_session_is_a_double():
    found = heard(Doubles(), [("a", 7), ("a", 8), ("a", 8), ("a", 9), ("a", 9), ("a", 10), ("a", 10)])
    assert [one.change for one in found] == [DoubleChange.DOUBLED]


def test_one_late_report_of_the_session_before_is_not_enough():
    assert heard(Doubles(), [("a", 1), ("b", 1), ("a", 2), *(("b", n) for n in range(2, 40))]) == []


def test_a_session_that_said_goodbye_is_over():
    doubles = Doubles()
    assert doubles.hear(report("a", 1), 0) is None
    assert doubles.hear(report("a", 2, stopping=True), SECOND) is None
    assert heard(doubles, [("b", 1), ("b", 2), ("b", 3)], 2 * SECOND) == []


@given(st.lists(st.sampled_from("abcdefghijklm"), max_size=60))
def test_told_changes_alternate_whatever_comes(order: list[str]):
    doubles, numbers, changes = Doubles(), dict.fromkeys("abcdefghijklm", 0), []
    for at, session in enumerate(order):
        numbers[session] += 1
        found = doubles.hear(report(session, numbers[session]), at * 10 * SECOND)
        changes += [found.change] if found else []
    changes += [one.change for one in doubles.look(len(order) * 10 * SECOND + QUIET_AFTER)]
    assert changes == [DoubleChange.DOUBLED, DoubleChange.SINGLE] * (len(changes) // 2)

"""A hub that does not answer is said once, and once that it does; a start says neither by itself.
Counterpart: src/vedette/app/hub_eye.py."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.app.hub_eye import HubEye
from vedette.model.clock import MINUTE, SECOND
from vedette.testing.clock import START


class Said:
    def __init__(self, after: int = 5 * MINUTE) -> None:
        self.actions: list[str] = []
        self.eye = HubEye(after, self._say, START)

    def _say(self, action: str, _message: str, _about: Mapping[str, object]) -> None:
        self.actions.append(action)


def test_it_is_said_once_when_it_is_long_enough_and_once_when_it_is_over():
    said = Said()
    said.eye.answered(START)
    said.actions.clear()
    for seconds in (10, 299, 300, 400):
        said.eye.silent(START + seconds * SECOND)
    assert said.actions == ["hub-lost"]
    said.eye.answered(START + 500 * SECOND)
    said.eye.answered(START + 510 * SECOND)
    assert said.actions == ["hub-lost", "hub-back"]


def test_an_alert_of_an_earlier_run_ends_with_the_first_answer_and_not_with_the_start():
    said = Said()
    said.eye.silent(START + SECOND)
    assert said.actions == []
    said.eye.silent(START + 6 * MINUTE)
    assert said.actions == ["hub-lost"]
    again = Said()
    again.eye.answered(START + SECOND)
    assert again.actions == ["hub-back"]


def test_where_nobody_is_to_be_told_nothing_is_said():
    said = Said(after=0)
    said.eye.silent(START + 60 * MINUTE)
    said.eye.answered(START + 61 * MINUTE)
    assert said.actions == []


def test_a_clock_that_was_set_back_puts_nothing_off():
    said = Said()
    said.eye.answered(START)
    said.eye.silent(START - 60 * MINUTE)
    said.eye.silent(START - 55 * MINUTE)
    assert said.actions[-1] == "hub-lost"

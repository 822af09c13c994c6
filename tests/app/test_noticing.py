"""What is said of ourselves is said once in a while, of however many sources. The rest is in test_pipeline.py.
Counterpart: src/vedette/app/noticing.py."""

from __future__ import annotations

import pytest
from tests.app.parts import Rig

from vedette.app import noticing
from vedette.app.noticing import SAID_EVERY, Noticing
from vedette.model.rules import Rule
from vedette.testing.clock import START


def test_a_source_is_spoken_of_once_in_a_while_and_many_of_them_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noticing, "_MOST", 3)
    said: list[str] = []

    def say(_rule: Rule, key: dict[str, str], _now: int, _words: str) -> None:
        said.append(key["vedette.source"])

    rig = Rig()
    notices = Noticing(rig.state, say)

    def skewed(source: str, now: int) -> None:
        notices.skewed(rig.batch([rig.line("other")], source=source), 1, now)

    for now in (START, START + SAID_EVERY - 1, START + SAID_EVERY):
        skewed("a", now)
    assert said == ["a", "a"]
    for source in ("b", "c", "d", "a", "d"):
        skewed(source, START + SAID_EVERY + 1)
    assert said == ["a", "a", "b", "c", "d", "a"]
    notices.set_back(START)
    skewed("a", START + SAID_EVERY)
    assert said[-1] == "a"
    assert len(said) == 7

"""What an operator says is how long is waited, and saying nothing changes nothing.
Counterpart: src/vedette/app/liveness.py."""

from __future__ import annotations

import pytest

from vedette.app.liveness import judge_of, limits_of
from vedette.fleet.completeness_state import Limits
from vedette.model.clock import MINUTE, SECOND
from vedette.model.liveness import Fault
from vedette.sources.settings import LivenessSettings, SourcesSettings
from vedette.testing.clock import START


def test_the_defaults_are_those_of_the_judge() -> None:
    assert limits_of(SourcesSettings().liveness) == Limits()


def test_a_patient_operator_hears_later() -> None:
    for settings, faults in ((LivenessSettings(), [Fault.AGENT_ABSENT]), (LivenessSettings(absent="1h"), [])):
        judge = judge_of(settings, START, "")
        judge.member("h", "web03", START)
        assert [event.fault for event in judge.look(START + 5 * MINUTE)] == faults


def test_less_than_two_reports_take_is_no_patience() -> None:
    with pytest.raises(ValueError, match="two reports"):
        LivenessSettings(absent="5s")
    assert limits_of(LivenessSettings(absent="10s")).absent == 10 * SECOND

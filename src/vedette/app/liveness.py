"""The judge of what is missing, with the limits an operator set.
Counterpart: `fleet.completeness` judges, `sources.settings` has the words; `app.hub` hands in what is known."""

from __future__ import annotations

from vedette.fleet.completeness import Completeness
from vedette.fleet.completeness_state import Limits
from vedette.sources.settings import LivenessSettings
from vedette.text.times import parse_duration


def limits_of(settings: LivenessSettings) -> Limits:
    """The limits in microseconds and bytes; those that nobody may set are as they are."""
    return Limits(
        absent=parse_duration(settings.absent),
        stopped=parse_duration(settings.stopped),
        group=settings.group,
        missing=parse_duration(settings.missing),
        behind=parse_duration(settings.behind),
        lag=settings.lag,
        silent=parse_duration(settings.silent),
        learn=parse_duration(settings.learn),
        logger=parse_duration(settings.logger),
        clock=parse_duration(settings.clock),
    )


def judge_of(settings: LivenessSettings, now: int, cursor: str) -> Completeness:
    """The judge, as it was when `cursor` was kept; StateError for one of a newer version."""
    return Completeness(now, limits_of(settings), cursor)

"""What a person sets about alerts: the routing tree, inhibitions, silences, the quiet period.
Counterpart: `notify.settings` own the receivers that are only named here; `config` composes both."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vedette.alerts.silences import SilenceError, parse_matcher
from vedette.text.times import parse_duration


def _matcher(text: str) -> str:
    try:
        parse_matcher(text)
    except SilenceError as error:
        raise ValueError(str(error)) from None
    return text


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _interval(text: str) -> str:
    # A group that is due again at once would be looked at for ever.
    if parse_duration(text) < 1_000_000:
        raise ValueError("at least 1s")
    return text


MatcherText = Annotated[str, AfterValidator(_matcher)]
Duration = Annotated[str, AfterValidator(_duration)]
Interval = Annotated[str, AfterValidator(_interval)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RouteSettings(_Settings):
    """One node of the routing tree, as in Alertmanager; what is left out is taken from the node above.

    receiver: name of a receiver, "" = store only. group_by: labels, `...` = all of them. digest: mails may
    wait and be joined. resolved: whether this receiver is told of members that were resolved (a pager always
    is).
    """

    receiver: str | None = None
    matchers: tuple[MatcherText, ...] = ()
    group_by: tuple[str, ...] | None = None
    group_wait: Duration | None = None
    group_interval: Interval | None = None
    repeat_interval: Interval | None = None
    digest: bool | None = None
    resolved: bool | None = None
    go_on: bool = Field(default=False, alias="continue")
    routes: tuple[RouteSettings, ...] = ()


class InhibitSettings(_Settings):
    """While an alert that `source` matches is unresolved, those that `target` matches are muted.

    Only where the labels `equal` are the same on both.
    """

    source: tuple[MatcherText, ...] = Field(min_length=1)
    target: tuple[MatcherText, ...] = Field(min_length=1)
    equal: tuple[str, ...] = ()


class SilenceSettings(_Settings):
    """Limits of silences. longest: no silence is longer; usual: how long one is where nobody says."""

    longest: Interval = "90d"
    usual: Interval = "2h"


class AlertsSettings(_Settings):
    """Everything about alerts.

    route: the tree, or none: low to the mail digest, medium by mail, high and critical to the pager (mail
    where there is none). quiet_period: event alerts of level low and medium resolve themselves after it.
    external_url: where a person finds the alert, "" = nowhere.
    """

    route: RouteSettings | None = None
    inhibit: tuple[InhibitSettings, ...] = ()
    silences: SilenceSettings = SilenceSettings()
    quiet_period: Interval = "24h"
    external_url: str = ""

"""Every way of telling people, by the `type` a person writes; and the making of what a configuration asks for.
Counterpart: `settings` says what each needs; `app` builds them and hands them to the outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vedette.model.clock import Clock
from vedette.model.errors import ConfigError
from vedette.model.protocols import Counter, Notifier
from vedette.notify.pagerduty import PagerDutyNotifier
from vedette.notify.settings import (
    AppriseSettings,
    EmailSettings,
    NotifySettings,
    PagerDutySettings,
    Receiver,
    WebhookSettings,
)
from vedette.notify.webhook import WebhookNotifier


def _email(name: str, settings: Receiver, _clock: Clock, counter: Counter) -> Notifier:
    assert isinstance(settings, EmailSettings)
    # An agent of the base install has no libraries for mail, and pages at most.
    from vedette.notify.email import EmailNotifier

    return EmailNotifier(name, settings, counter)


def _pagerduty(_name: str, settings: Receiver, clock: Clock, _counter: Counter) -> Notifier:
    assert isinstance(settings, PagerDutySettings)
    return PagerDutyNotifier(settings, clock)


def _webhook(_name: str, settings: Receiver, clock: Clock, _counter: Counter) -> Notifier:
    assert isinstance(settings, WebhookSettings)
    return WebhookNotifier(settings, clock)


def _apprise(_name: str, settings: Receiver, _clock: Clock, _counter: Counter) -> Notifier:
    assert isinstance(settings, AppriseSettings)
    from vedette.notify.apprise import AppriseNotifier

    return AppriseNotifier(settings)


Maker = Callable[[str, Receiver, Clock, Counter], Notifier]

NOTIFIERS: Mapping[str, Maker] = {
    "email": _email,
    "pagerduty": _pagerduty,
    "webhook": _webhook,
    "apprise": _apprise,
}


def build(settings: NotifySettings, clock: Clock, counter: Counter) -> dict[str, Notifier]:
    """One notifier a receiver, by name. Opens nothing yet; whoever builds them closes them.

    ConfigError where one needs a library that is not installed.
    """
    made: dict[str, Notifier] = {}
    for name, one in settings.receivers.items():
        try:
            made[name] = NOTIFIERS[one.type](name, one, clock, counter)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"receiver {name}: {one.type} needs {error.name}, which is not installed",
                hint="pip install 'vedette[hub]'",
            ) from None
    return made

"""What the alerts' routes may know of each receiver: its name and what it is for.
Counterpart: `notify.settings` say how to reach them, `alerts.routing` only where to send."""

from __future__ import annotations

from vedette.alerts.routes import ReceiverKind
from vedette.notify.settings import NotifySettings

KINDS = {"pagerduty": ReceiverKind.PAGE, "email": ReceiverKind.MAIL}


def receiver_kinds(settings: NotifySettings) -> dict[str, ReceiverKind]:
    """The kind of each configured receiver, by name, in the order written."""
    return {name: KINDS.get(one.type, ReceiverKind.OTHER) for name, one in settings.receivers.items()}

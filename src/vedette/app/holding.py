"""What outlives a reload: taken in order while privileges last, given back in reverse at the end.
Counterpart: `app.up` runs with it; `app.host` drops the privileges."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vedette.app import own
from vedette.app.host import Lock, account_of, drop_privileges, host_id, prepare_folder
from vedette.app.reading import open_listeners
from vedette.config.settings import Settings
from vedette.model.errors import EnforcementError
from vedette.model.protocols import Enforcer
from vedette.respond.enforcers import make_enforcers
from vedette.sources.syslog_sockets import Listeners
from vedette.system.priority import Priority

if TYPE_CHECKING:
    from vedette.app.inside_helper import InsideHelper
    from vedette.app.rootkit_helper import RootkitHelper
    from vedette.sources.integrity.fanotify import Fanotify

NO_PRIORITY = "lacks: real-time priority (CAP_SYS_NICE), so a block may have to wait for its turn; docs/blocking.md"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Held:
    """`close` gives it back; what is enforced stays enforced until its lease ends."""

    me: own.Self
    enforcers: list[Enforcer]
    inside: InsideHelper | None
    """Who looks at this host's own sockets, where the engine may not."""
    listeners: Listeners
    """Sockets that others send logs to; ports below 1024 can be had only at the start."""
    watching: Fanotify | None
    """What tells of changed files, which root alone can open."""
    rootkit: RootkitHelper | None
    """Who looks for rootkits, where the engine may not look."""
    _stack: ExitStack

    def close(self) -> None:
        """All of it, also where some of it fails."""
        self._stack.close()


def hold(settings: Settings, say: Say, priority: Priority | None) -> Held:
    """Take it, and become the user of the settings. What cannot be had is said; VedetteError where that must not be."""
    folder = prepare_folder(settings.data_folder(), settings.user)
    with ExitStack() as stack:
        lock = Lock(folder)
        lock.take()
        stack.callback(lock.close)
        me = own.Self(host_id(folder), socket.gethostname())
        if priority is not None and settings.priority == "real-time" and not priority.claim():
            say(NO_PRIORITY)
        # The kernel helper inherits the priority.
        enforcers = _start_enforcers(settings, say)
        for enforcer in enforcers:
            stack.callback(enforcer.close)
        inside = _start_inside(settings, say)
        if inside is not None:
            stack.callback(inside.close)
        rootkit = _start_rootkit(settings, say)
        if rootkit is not None:
            stack.callback(rootkit.close)
        listeners = Listeners()
        stack.callback(listeners.close)
        open_listeners(settings.sources, listeners)
        watching = _open_watching(settings)
        if watching is not None:
            stack.callback(watching.close)
        if priority is not None:
            priority.rest()
        say(drop_privileges(folder, settings.user))
        return Held(me, enforcers, inside, listeners, watching, rootkit, stack.pop_all())


def _start_enforcers(settings: Settings, say: Say) -> list[Enforcer]:
    try:
        return make_enforcers(settings.responding)
    except EnforcementError as error:
        say(f"lacks: enforcement, so nothing is blocked; {error}")
        return []


def _start_rootkit(settings: Settings, say: Say) -> RootkitHelper | None:
    """Where rootkits are looked for: a helper that sees every process and file, which root alone can start."""
    if settings.sources.rootkit is None or os.geteuid() != 0:
        return None
    from vedette.app.rootkit_helper import RootkitHelper

    try:
        return RootkitHelper(*account_of(settings.user))
    except OSError as error:
        say(f"lacks: the helper that looks for rootkits: {error.strerror}")
        return None


def _start_inside(settings: Settings, say: Say) -> InsideHelper | None:
    """Where ports are watched: a helper that sees all sockets, which root alone can start."""
    if settings.sources.ports is None or os.geteuid() != 0:
        return None
    from vedette.app.inside_helper import InsideHelper

    try:
        return InsideHelper(*account_of(settings.user))
    except OSError as error:
        say(f"lacks: a view of this host's own sockets; {error}")
        return None


def _open_watching(settings: Settings) -> Fanotify | None:
    """Where files are watched: who changed them is told to root alone, and only to whoever asked before."""
    if settings.sources.integrity is None:
        return None
    from vedette.app.integrity_watch import open_fanotify

    return open_fanotify(settings.sources.integrity)

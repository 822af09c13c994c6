"""The enforcers by the names that the configuration knows, and the guard it describes.
Counterpart: `app` makes them before privileges are dropped and hands them what policy decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vedette.model.errors import EnforcementError
from vedette.model.protocols import Enforcer
from vedette.respond.allowlist import Entry, Guard, host_floor, read_allowlist
from vedette.respond.helper_enforcer import HelperEnforcer
from vedette.respond.hosts_deny import HostsDenyEnforcer
from vedette.respond.settings import RespondSettings
from vedette.text.addresses import parse_network
from vedette.text.times import parse_duration


def _nftables(settings: RespondSettings) -> Enforcer:
    allowlist = [str(entry.network) for entry in allowlist_of(settings)]
    made = HelperEnforcer(
        floor=settings.floor,
        size=settings.nftables.size,
        end_connections=settings.nftables.end_connections,
        override_longest=parse_duration(settings.override_longest),
    )
    try:
        made.allow(allowlist)
    except EnforcementError:
        made.close()
        raise
    return made


def _hosts_deny(settings: RespondSettings) -> Enforcer:
    return HostsDenyEnforcer(Path(settings.hosts_deny.path), settings.hosts_deny.service)


ENFORCERS: dict[str, Callable[[RespondSettings], Enforcer]] = {"nftables": _nftables, "hosts_deny": _hosts_deny}


def make_enforcers(settings: RespondSettings) -> list[Enforcer]:
    """Those that are set, in order. EnforcementError where one cannot start; those before it are closed then."""
    made: list[Enforcer] = []
    try:
        for name in settings.enforcers:
            made.append(ENFORCERS[name](settings))
    except BaseException:
        for enforcer in made:
            enforcer.close()
        raise
    return made


def make_guard(settings: RespondSettings, more: Iterable[Path] = ()) -> Guard:
    """Floor (settings and what the host knows) and allowlist (settings, their files, and `more` files).

    ConfigError with file:line for an allowlist file that cannot be used.
    """
    guard = Guard(allowlist=allowlist_of(settings, more))
    refresh_floor(guard, settings)
    return guard


def allowlist_of(settings: RespondSettings, more: Iterable[Path] = ()) -> list[Entry]:
    """Every entry of the settings, their files and `more` files; ConfigError as `make_guard`."""
    entries = [Entry(parse_network(one.network), one.comment) for one in settings.allowlist]
    for path in (*map(Path, settings.allowlist_files), *more):
        entries.extend(read_allowlist(path))
    return entries


def tell_allowlist(enforcers: Iterable[Enforcer], entries: Iterable[Entry]) -> None:
    """Have those that look at it too know the allowlist; EnforcementError where one cannot be told."""
    networks = [str(entry.network) for entry in entries]
    for enforcer in enforcers:
        if isinstance(enforcer, HelperEnforcer):
            enforcer.allow(networks)


def refresh_floor(guard: Guard, settings: RespondSettings) -> bool:
    """Read again what the host must not block; whether it changed (then `Policy.lift_guarded`). Takes about 1 ms."""
    return guard.set_floor({*map(parse_network, settings.floor), *host_floor()})

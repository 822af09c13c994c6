"""A host's settings as the bundle in force makes them; what the host says itself of the same thing wins.
Counterpart: `fleet.bundles` keeps the bundle, `cli.up` starts by what is made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from vedette.alerts.settings import RouteSettings
from vedette.app.detection import load_rules
from vedette.config.settings import Settings
from vedette.fleet.bundles import BundleError, BundleReason, Content, InForce, Kept
from vedette.fleet.enrolment import Membership
from vedette.model.decisions import Rung
from vedette.model.errors import ConfigError, StateError, VedetteError
from vedette.model.rules import NotifyStep
from vedette.respond.settings import AllowEntry, RespondSettings
from vedette.rules.settings import RulesSettings, SshRules
from vedette.sources.settings import PortsSettings
from vedette.system.files import write_atomic

log = structlog.get_logger()

HUB_LOST = "fleet-hub-lost"
PORT_POLICY = "bundle-ports.yml"


def kept_of(folder: Path) -> Kept | None:
    """What the host of this data folder keeps of its orders; None where it belongs to no fleet."""
    member = Membership.load(folder)
    return None if member is None else Kept(folder, member.host_id, member.identity.authority)


def with_bundle(settings: Settings, found: InForce | None, host_id: str) -> Settings:
    """`settings` with the bundle in force. VedetteError where a rule does not load, or the policy cannot be used.

    Words of a newer hub that this host does not know (a rung, a step) are left out.
    """
    if found is None:
        return settings
    content = found.content
    try:
        made = settings.model_copy(
            update={
                "rules": _rules(settings.rules, found),
                "respond": {**_known(content.respond, Rung), **settings.respond},
                "blocking": _blocking(settings.blocking, content),
                "sources": settings.sources.model_copy(update=_ports(settings, content, host_id)),
            }
        )
    except (ValidationError, OSError) as error:
        raise VedetteError(f"bundle {found.number}: {error}") from None
    load_rules(made.rules.paths, packs=made.rules.packs, settings=made.rules)
    return made


def _rules(own: RulesSettings, found: InForce) -> RulesSettings:
    content = found.content
    chain = [str(found.pipelines[name]) if name in found.pipelines else name for name in content.pipelines]
    known = {name: value for name, value in content.ssh.items() if name in SshRules.model_fields}
    ssh = own.ssh if own.ssh != SshRules() else SshRules.model_validate(known)
    return own.model_copy(
        update={
            "packs": content.packs and own.packs,
            "paths": (*found.rules, *own.paths),
            "pipelines": (*chain, *(one for one in own.pipelines if one not in chain)),
            "placeholders": {**{name: tuple(one) for name, one in content.placeholders.items()}, **own.placeholders},
            "steps": {**_known(content.steps, NotifyStep), **own.steps},
            "ssh": ssh,
        }
    )


def _known(words: dict[str, str], kind: Any) -> dict[str, Any]:
    values = {one.value for one in kind}
    return {name: kind(word) for name, word in words.items() if word in values}


def _blocking(own: RespondSettings, content: Content) -> RespondSettings:
    """Floor and allowlist only grow: a hub can take nothing off what a host protects."""
    given = [AllowEntry(network=one.network, comment=one.comment) for one in content.allowlist]
    floor = RespondSettings(floor=content.floor).floor
    return own.model_copy(
        update={
            "allowlist": (*own.allowlist, *given),
            "floor": (*own.floor, *floor),
            "canary_hosts": own.canary_hosts or content.canary_hosts,
        }
    )


def _ports(settings: Settings, content: Content, host_id: str) -> dict[str, PortsSettings]:
    watch = content.ports
    if watch is None or host_id not in watch.vantages or settings.sources.ports is not None:
        return {}
    place = settings.data_folder().absolute() / PORT_POLICY
    data = watch.policy.encode()
    if not place.exists() or place.read_bytes() != data:
        write_atomic(place, data, follow=False)
    made = PortsSettings(
        policy=place,
        vantage=watch.vantages[host_id],
        every=watch.every,
        critical_every=watch.critical_every,
        confirm_after=watch.confirm_after,
    )
    return {"ports": made}


class Starting:
    """What an agent starts by: its configuration with the bundle it keeps; one that cannot be used is given up.

    given_up: (number, reason, words) of each that was, until somebody tells it.
    """

    def __init__(self) -> None:
        self.kept: Kept | None = None
        self.own: Settings | None = None
        """The configuration without the bundle."""
        self.reload: Callable[[], None] = lambda: None
        """Has the program begin again; given by whoever runs it."""
        self.given_up: list[tuple[int, BundleReason, str]] = []

    def settings(self, own: Settings) -> Settings:
        """`own` with the bundle in force."""
        folder = own.data_folder()
        try:
            own = self.own = self._own(own)
            self.kept = self.kept or kept_of(folder)
            if self.kept is None:
                return own
            found, crashed = self.kept.begin()
            if crashed:
                self._note(crashed, BundleReason.CRASHED, "it never ran long enough")
            return self._usable(own, self.kept, found)
        except (BundleError, StateError) as error:
            # Watching by the host's own configuration is better than not watching.
            log.error("THE BUNDLE CANNOT BE USED: this host runs by its own configuration", reason=str(error))
            self._note(0, BundleReason.UNREADABLE, str(error))
            return own

    def _own(self, own: Settings) -> Settings:
        """An agent that tells by itself of its lost hub tells of nothing else: the hub has the rest."""
        lost = own.shipping.hub_lost
        if lost is None:
            return own
        if lost.receiver not in own.notify.receivers:
            raise ConfigError(
                f"shipping: hub_lost: {lost.receiver!r} is not a receiver", hint="see `notify: receivers`"
            )
        route = RouteSettings(receiver=lost.receiver, matchers=(f'rule.id="{HUB_LOST}"',), group_wait="0s")
        alerts = own.alerts.model_copy(update={"route": RouteSettings(receiver="", routes=(route,))})
        return own.model_copy(update={"alerts": alerts})

    def _usable(self, own: Settings, kept: Kept, found: InForce | None) -> Settings:
        for _ in range(2):
            try:
                return with_bundle(own, found, _host_id(own.data_folder()))
            except VedetteError as error:
                assert found is not None
                self._note(found.number, BundleReason.DOES_NOT_LOAD, str(error))
                kept.give_up()
                found = kept.in_force()
        return own

    def _note(self, number: int, reason: BundleReason, words: str) -> None:
        log.error("bundle given up", number=number, reason=reason.value, words=words)
        self.given_up.append((number, reason, words))


def _host_id(folder: Path) -> str:
    member = Membership.load(folder)
    return member.host_id if member is not None else ""

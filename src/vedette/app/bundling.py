"""Builds bundles of a configuration, has hosts take them, and takes back one that does harm.
Counterpart: `store.bundles` keeps them, `app.hub_control` tells agents, `app.bundled` is what a host makes of one."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from sqlalchemy import select

from vedette.app.detection import load_rules
from vedette.app.host import ALLOWLIST_FILE
from vedette.fleet.bundles import (
    Allowed,
    BundleReason,
    Content,
    PortWatch,
    digest,
    packed,
    rates_are_noisy,
)
from vedette.model.clock import DAY, HOUR, Clock
from vedette.model.errors import VedetteError
from vedette.model.findings import Finding
from vedette.model.fleet import Agent, AgentState
from vedette.respond.enforcers import allowlist_of
from vedette.rules.files import SUFFIXES, iter_files
from vedette.sources.news import NewsSource
from vedette.store.agents import Agents
from vedette.store.bundles import EVERY_HOST, Bundle, Bundles, BundleState
from vedette.store.tables import FINDINGS
from vedette.text.times import parse_duration

if TYPE_CHECKING:
    from vedette.app.operating import Operating
    from vedette.config.settings import Settings
    from vedette.fleet.hub_settings import HubSettings
    from vedette.store.state import State

log = structlog.get_logger()

LARGEST = 24 << 20
"""Bytes of a bundle, unpacked; packed it must fit a message."""
_BY_ITSELF = "hub"
_ENOUGH = 2
"""Hosts that must complain of what holds for all."""
_FINDING = msgspec.json.Decoder(Finding)


def content_of(settings: Settings, vantages: Mapping[str, str]) -> Content:
    """What agents are to run by, of a configuration. VedetteError where a rule does not load, or a file is no text.

    vantages: host id -> the vantage it is, in the policy of `sources: ports`.
    """
    rules = settings.rules
    load_rules(rules.paths, packs=rules.packs, settings=rules)
    files = {str(path): _text(path) for path in iter_files(rules.paths)}
    pipelines = {one: _text(Path(one)) for one in rules.pipelines if one.endswith(SUFFIXES)}
    entries = allowlist_of(settings.responding, [settings.data_folder() / ALLOWLIST_FILE])
    ports = settings.sources.ports
    watch = None
    if vantages:
        if ports is None:
            raise VedetteError("vantages are named, and the configuration has no `sources: ports`")
        watch = PortWatch(_text(ports.policy), dict(vantages), ports.every, ports.critical_every, ports.confirm_after)
    return Content(
        packs=rules.packs,
        files=files,
        pipelines=rules.pipelines,
        pipeline_files=pipelines,
        steps={name: step.value for name, step in rules.steps.items()},
        placeholders={name: list(values) for name, values in rules.placeholders.items()},
        ssh=rules.ssh.model_dump(mode="json", exclude_none=True),
        respond={name: rung.value for name, rung in settings.respond.items()},
        allowlist=tuple(Allowed(str(one.network), one.comment) for one in entries),
        floor=settings.blocking.floor,
        canary_hosts=settings.blocking.canary_hosts,
        ports=watch,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VedetteError(f"{path}: {error}", hint="rules are text in UTF-8") from None


class BundleOperating:
    """A person at the bundles of one hub. VedetteError says why something was not done."""

    def __init__(self, at: Operating) -> None:
        self._at = at
        self._bundles = Bundles(at.state)
        self._roll = Agents(at.state)

    def build(self, settings: Settings, note: str, vantages: Sequence[str]) -> Bundle:
        """A new bundle of a configuration; nothing takes it yet. vantages: HOST=VANTAGE, or HOST."""
        named = {}
        for one in vantages:
            host, _, vantage = one.partition("=")
            named[self._roll.find(host).host_id] = vantage
        data = packed(content_of(settings, named))
        if len(data) > LARGEST:
            raise VedetteError(f"{len(data)} bytes are too much for a bundle", hint=f"at most {LARGEST}")
        return self._bundles.add(data, digest(data), by=self._at.operator, note=note, now=self._at.now())

    def bundles(self) -> Sequence[Bundle]:
        """Every one, newest first."""
        return self._bundles.all()

    def show(self, number: int) -> tuple[Bundle, bytes, list[Agent]]:
        """A bundle, its content, and the hosts that say they run by it."""
        running = [agent for agent in self._roll.agents() if agent.seen.bundle == number]
        return self._bundles.get(number), self._bundles.content(number), running

    def stage(self, number: int, hosts: Sequence[str], group: str) -> list[Agent]:
        """Have these hosts, or those of a group, run by it first."""
        agents = self._chosen(hosts, group)
        bundle = self._bundles.get(number)
        self._refuse_older(bundle)
        self._bundles.order(
            number,
            [agent.host_id for agent in agents],
            by=self._at.operator,
            now=self._at.now(),
            state=BundleState.STAGED if bundle.state is not BundleState.EVERYWHERE else None,
        )
        return agents

    def promote(self, number: int, *, untried: bool = False) -> Bundle:
        """Have every host run by it. untried: also one that no host runs by yet."""
        bundle = self._bundles.get(number)
        self._refuse_older(bundle)
        if bundle.state is not BundleState.STAGED and not untried:
            raise VedetteError(
                f"bundle {number} is {bundle.state.value}: it was not tried on named hosts",
                hint="`vedette fleet bundle stage` first, or --untried",
            )
        self._bundles.order(
            number, [EVERY_HOST], by=self._at.operator, now=self._at.now(), state=BundleState.EVERYWHERE
        )
        return self._bundles.get(number)

    def take_back(self, why: str, to: int | None) -> tuple[Bundle, int]:
        """Return from the newest bundle that any host was given: to the one before it, or to a number."""
        given = [bundle for bundle in self.bundles() if bundle.state in (BundleState.STAGED, BundleState.EVERYWHERE)]
        if not given:
            raise VedetteError("no bundle is in force")
        newest = given[0]
        target = newest.before if to is None else to
        if target:
            self._bundles.get(target)
        take_back(self._bundles, newest, target, by=self._at.operator, why=why, now=self._at.now())
        return newest, target

    def _refuse_older(self, bundle: Bundle) -> None:
        if bundle.number < self._bundles.in_force():
            raise VedetteError(
                f"bundle {bundle.number} is older than the one in force", hint="`vedette fleet bundle return --to`"
            )
        if bundle.state is BundleState.RETURNED:
            raise VedetteError(
                f"bundle {bundle.number} was taken back: {bundle.ended}", hint="build another, with another number"
            )

    def _chosen(self, hosts: Sequence[str], group: str) -> list[Agent]:
        found = [self._roll.find(host) for host in hosts]
        active = [agent for agent in self._roll.agents() if agent.state is AgentState.ACTIVE]
        found += [agent for agent in active if group and agent.group == group]
        if not found:
            raise VedetteError("no host is named", hint="--host NAME, or --group of agents")
        return list({agent.host_id: agent for agent in found}.values())


def take_back(bundles: Bundles, bundle: Bundle, to: int, *, by: str, why: str, now: int) -> None:
    """Hosts that were given `bundle` go back to `to` (0 = their own configuration)."""
    newest = bundles.newest()
    targets = [target for target, (number, _) in newest.items() if number == bundle.number]
    bundles.end(bundle.number, why)
    if targets:
        state = BundleState.EVERYWHERE if EVERY_HOST in targets and to else None
        bundles.order(to, targets, by=by, now=now, returns=True, why=why, state=state)


class Watch:
    """Looks after bundles that hosts were given lately; what does harm is taken back. One thread at a time."""

    def __init__(self, settings: HubSettings, state: State, news: NewsSource, clock: Clock) -> None:
        self._settings = settings.bundles
        self._lasts = parse_duration(settings.bundles.watch)
        self._state, self._bundles, self._news, self._clock = state, Bundles(state), news, clock
        self._looked_at = 0
        self._failed: dict[int, set[str]] = {}

    def failed(self, host_id: str, about: Mapping[str, Any], now: int) -> None:
        """A host did not take a bundle, or could not run by it.

        Of hosts it was staged to one is enough. What holds for all is not taken back on the word of a single host,
        which may belong to somebody else by now.
        """
        number, reason = about.get("number"), about.get("reason")
        if reason not in (BundleReason.DOES_NOT_LOAD, BundleReason.CRASHED) or not isinstance(number, int):
            return
        bundle = next((one for one in self._bundles.all() if one.number == number), None)
        if bundle is None or not isinstance(reason, str):
            return
        failed = self._failed.setdefault(number, set())
        failed.add(host_id)
        staged = bundle.state is BundleState.STAGED and any(one.target == host_id for one in bundle.orders)
        if staged or (bundle.state is BundleState.EVERYWHERE and len(failed) >= _ENOUGH):
            self._end(bundle, f"{reason} on {host_id}: {str(about.get('words', ''))[:500]}", reason, now)

    def look(self, now: int) -> None:
        """Once a minute: whether one makes too much noise."""
        if 0 <= now - self._looked_at < 60_000_000:
            return
        self._looked_at = now
        for bundle in self._bundles.all():
            if bundle.state not in (BundleState.STAGED, BundleState.EVERYWHERE) or not bundle.orders:
                continue
            since = min(one.at for one in bundle.orders)
            if 0 <= now - since <= self._lasts and (words := self._noise(bundle, since, now)):
                self._end(bundle, words, BundleReason.NOISE.value, now)

    def _noise(self, bundle: Bundle, since: int, now: int) -> str:
        """In words where it makes too much, else nothing."""
        with self._state.reading() as connection:
            query = select(FINDINGS.c.body).where(FINDINGS.c.created >= since - DAY)
            found = [_FINDING.decode(body) for body in connection.execute(query).scalars()]
        recent = Tally(
            one.host_id for one in found if one.bundle == bundle.number and one.created >= max(since, now - HOUR)
        )
        before = Tally(one.host_id for one in found if one.created < since)
        prior = [before[host_id] * HOUR / DAY for host_id in recent]
        hours = min(now - since, HOUR) / HOUR
        floor, factor = self._settings.noise_floor, self._settings.noise_factor
        noisy = {
            host_id: count
            for host_id, count in recent.items()
            if rates_are_noisy(count, hours, prior, floor=floor, factor=factor)
        }
        enough = 1 if bundle.state is BundleState.STAGED else _ENOUGH
        if len(noisy) < enough:
            return ""
        return (
            f"{sum(noisy.values())} findings within {max(hours * 60, 1):.0f} minutes on {', '.join(sorted(noisy)[:5])}"
        )

    def _end(self, bundle: Bundle, words: str, reason: str, now: int) -> None:
        take_back(self._bundles, bundle, bundle.before, by=_BY_ITSELF, why=words, now=now)
        log.error("BUNDLE TAKEN BACK", number=bundle.number, why=words)
        about = {"number": bundle.number, "reason": reason, "words": words}
        self._news.say("bundle-ended", f"bundle {bundle.number} taken back: {words}", about, outcome="failure")

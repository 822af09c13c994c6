"""Who is blocked on the whole fleet: what a person says, and what rules of the fleet decide on enough evidence.
Counterpart: `store.fleet_blocks` keeps it, `app.hub_control` has agents carry it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from vedette.app.host import ALLOWLIST_FILE
from vedette.fleet.hub_settings import FleetBlockSettings
from vedette.model.clock import MINUTE, Clock
from vedette.model.decisions import Decision, Rung, Target
from vedette.model.errors import EnforcementError, StateError, VedetteError
from vedette.model.fleet import Agent, AgentState
from vedette.model.ids import uuid7
from vedette.model.protocols import Counter
from vedette.model.rules import Rule, Scope
from vedette.respond.active import target_of
from vedette.respond.enforcers import make_guard
from vedette.respond.ladder import is_canary, rung_of
from vedette.respond.policy import OPERATOR_HINTS, BlockRefusedError
from vedette.respond.settings import RespondSettings
from vedette.store.agents import Agents
from vedette.store.fleet_blocks import FleetBlock, FleetBlocks, FleetBlockState, HostAnswer
from vedette.text.addresses import parse, parse_network
from vedette.text.times import parse_duration

if TYPE_CHECKING:
    from vedette.app.operating import Operating
    from vedette.store.state import State

log = structlog.get_logger()

ENOUGH_HOSTS = 2
"""Hosts that must have seen it: one that belongs to somebody else must not ban the world."""


def begun(
    block: FleetBlock, agents: Sequence[Agent], settings: FleetBlockSettings, now: int, canary: int | None = None
) -> FleetBlock:
    """`block` as it starts: on a few hosts first, unless it is for no more than those anyway."""
    of_group = [one.host_id for one in agents if not block.group or one.group == block.group]
    share = settings.canary if canary is None else canary
    if not 0 < share < len(of_group):
        return block
    # By id, which is random: not always the same kind of host, and for one block the same ones after a restart.
    first = tuple(sorted(of_group)[:share])
    widens_at = now + parse_duration(settings.canary_for)
    return FleetBlock(
        block.id,
        block.target,
        block.owner,
        block.reason,
        block.starts_at,
        block.expires_at,
        FleetBlockState.CANARY,
        block.group,
        first,
        widens_at,
    )


def tried(block: FleetBlock, canaries: Sequence[Agent], settings: FleetBlockSettings, now: int) -> FleetBlock:
    """`block` of a rule on the rung canary as it starts: on these hosts, and lifted where one of them knows better."""
    return replace(
        block,
        state=FleetBlockState.CANARY,
        canaries=tuple(sorted(one.host_id for one in canaries)),
        widens_at=now + parse_duration(settings.canary_for),
        trial=True,
    )


def _active(state: State) -> list[Agent]:
    return [agent for agent in Agents(state).agents() if agent.state is AgentState.ACTIVE]


class FleetBlocking:
    """A person at the blocks of the fleet. BlockRefusedError and StateError say why something was not done."""

    def __init__(self, at: Operating) -> None:
        self._at = at
        self._blocks = FleetBlocks(at.state)

    def add(self, target: str, lease: int, reason: str, *, group: str = "", canary: int | None = None) -> FleetBlock:
        """Block it on all agents, or those of a group; each of them may refuse. lease: microseconds."""
        try:
            network = parse_network(target)
        except ValueError as error:
            raise VedetteError(str(error), hint="names are never resolved") from None
        shown = target_of(network).value
        guard = make_guard(self._at.settings.responding, [self._at.folder / ALLOWLIST_FILE])
        if (refused := guard.refuses(network)) is not None:
            raise BlockRefusedError(
                f"{shown} is on the hub's {refused.value.replace('-', ' ')}", refused, hint=OPERATOR_HINTS[refused]
            )
        agents, now = _active(self._at.state), self._at.now()
        if not any(group in ("", agent.group) for agent in agents):
            raise VedetteError(f"no active host is of group {group!r}" if group else "the fleet has no active host")
        block = FleetBlock(uuid7(now), shown, f"operator:{self._at.operator}", reason, now, now + lease, group=group)
        settings = self._at.settings.hub.blocks
        return self._blocks.add(begun(block, agents, settings, now, canary), now, settings.active)

    def widen(self, target: str) -> Sequence[FleetBlock]:
        """Have what is on a few hosts go to the others now."""
        return self._blocks.widen(target_of(parse_network(target)).value, self._at.now())

    def lift(self, targets: Sequence[str]) -> list[str]:
        """Lift these, or all where none is named; the targets lifted. VedetteError where one is not blocked."""
        now, by = self._at.now(), f"operator:{self._at.operator}"
        if not targets:
            return [one.target for one in self._blocks.lift("", by, now)]
        lifted = []
        for target in targets:
            try:
                shown = target_of(parse_network(target)).value
            except ValueError as error:
                raise VedetteError(str(error)) from None
            found = self._blocks.lift(shown, by, now)
            if not found:
                raise VedetteError(f"{shown} is not blocked on the fleet", hint="`vedette block list --fleet`")
            lifted += [one.target for one in found]
        return lifted

    def standing(self) -> tuple[Sequence[FleetBlock], Mapping[str, Sequence[HostAnswer]], Mapping[str, str]]:
        """Those in force, what hosts made of each, and the names of hosts."""
        found = self._blocks.in_force(self._at.now())
        answers: dict[str, list[HostAnswer]] = {one.id: [] for one in found}
        for answer in self._blocks.answers(list(answers)):
            answers[answer.block_id].append(answer)
        return found, answers, {agent.host_id: agent.name for agent in Agents(self._at.state).agents()}


class FleetEnforcer:
    """Carries decisions of fleet rules out on the agents; of the others nothing. One thread.

    addresses: what each host says its own addresses are, by host id; no rule has one of those blocked, since what a
    rule rests on comes from hosts, and one of them may be somebody else's. nudge: has agents told at once.
    responding: which rules are on the rung canary, and what hosts are named for it.
    """

    name = "fleet"

    def __init__(
        self,
        state: State,
        rules: Iterable[Rule],
        settings: FleetBlockSettings,
        *,
        clock: Clock,
        counter: Counter,
        nudge: Callable[[], None],
        addresses: Callable[[], Mapping[str, Sequence[str]]] = dict,
        responding: RespondSettings | None = None,
    ) -> None:
        self._clock = clock
        self._state, self._blocks = state, FleetBlocks(state)
        of_fleet = [rule.id for rule in rules if rule.scope is Scope.FLEET]
        self._rules = {f"rule:{rule_id}" for rule_id in of_fleet}
        responding = responding or RespondSettings()
        self._named = responding.canary_hosts
        self._trials = {f"rule:{rule_id}" for rule_id in of_fleet if rung_of(responding.rungs, rule_id) is Rung.CANARY}
        self._settings, self._counter, self._nudge = settings, counter, nudge
        self._addresses = addresses
        self._judged: dict[str, int] = {}
        """Decision -> until when it was told, microseconds; 0 = it was refused."""
        self._recent: list[int] = []

    def add(self, decisions: Sequence[Decision], now: int) -> None:
        """Have agents enforce those that rest on enough evidence."""
        ours = [one for one in decisions if one.owner in self._rules and self._judged.get(one.id) != one.expires_at]
        ours = [one for one in ours if self._judged.get(one.id) != 0]
        if not ours:
            return
        try:
            agents = _active(self._state)
            gateways = {one.host_id for one in agents if one.group == self._settings.gateways}
            canaries = [one for one in agents if is_canary(self._named, one.host_id, one.name)]
            for one in ours:
                hosts = {record_id.partition("/")[0] for record_id in one.evidence}
                if len(hosts) < ENOUGH_HOSTS and not hosts & gateways:
                    self._refuse(one, "too-few-hosts")
                elif self._holds_one_of_us(one.target.value, agents):
                    self._refuse(one, "of-the-fleet")
                elif one.owner in self._trials and not canaries:
                    self._refuse(one, "no-canary")
                elif one.owner in self._trials and self._was_returned(one.owner, now):
                    self._refuse(one, "returned")
                elif self._is_too_fast(now):
                    self._refuse(one, "fuse-blown")
                else:
                    block = FleetBlock(one.id, one.target.value, one.owner, one.reason, one.starts_at, one.expires_at)
                    if one.owner in self._trials:
                        block = tried(block, canaries, self._settings, now)
                    else:
                        block = begun(block, agents, self._settings, now)
                    self._blocks.add(block, now, self._settings.active)
                    self._judged[one.id] = one.expires_at
                    self._counter.add("fleet_blocks", "decided")
        except StateError as error:
            raise EnforcementError(str(error)) from None
        self._nudge()

    def _holds_one_of_us(self, target: str, agents: Sequence[Agent]) -> bool:
        network, active = parse_network(target), {agent.host_id for agent in agents}
        return any(
            (address := parse(text)) is not None and address in network
            for host_id, texts in self._addresses().items()
            if host_id in active
            for text in texts
        )

    def _was_returned(self, owner: str, now: int) -> bool:
        return self._blocks.returned(owner, now - parse_duration(self._settings.returned_for)) is not None

    def _is_too_fast(self, now: int) -> bool:
        self._recent = [at for at in self._recent if now - MINUTE < at <= now]
        self._recent.append(now)
        return len(self._recent) > self._settings.per_minute

    def _refuse(self, decision: Decision, reason: str) -> None:
        self._judged[decision.id] = 0
        self._counter.add("fleet_blocks_refused", reason)
        log.warning(
            "a block is not put on the fleet", target=decision.target.value, rule=decision.reason, reason=reason
        )

    def remove(self, targets: Iterable[Target]) -> None:
        """Lift what rules put there."""
        try:
            lifted = [
                one
                for target in targets
                for one in self._blocks.lift(target.value, "hub", self._clock.now(), self._rules)
            ]
        except StateError as error:
            raise EnforcementError(str(error)) from None
        if lifted:
            self._nudge()

    def sync(self, active: Sequence[Decision], now: int) -> int:
        """What a crash kept from being told is told; 0: agents mend what they have by themselves."""
        self.add(active, now)
        for gone in self._judged.keys() - {one.id for one in active}:
            del self._judged[gone]
        return 0

    def close(self) -> None:
        """Nothing is open; what is enforced stays enforced."""

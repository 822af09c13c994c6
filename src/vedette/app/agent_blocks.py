"""Blocks that the hub wants here: carried out where this host's floor, allowlist and known logins let them.
Counterpart: `fleet.blocks` is what was told; `app.pipeline` finds the decisions in the state and enforces them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from vedette.app.host import ALLOWLIST_FILE
from vedette.fleet.blocks import BlockAnswer, Wanted, WantedBlock, read_wanted
from vedette.fleet.signing import SignedError
from vedette.fleet.subjects import ALL
from vedette.model.clock import Clock
from vedette.model.decisions import Decision, DecisionState
from vedette.model.errors import StateError
from vedette.model.protocols import Counter, Transaction
from vedette.model.reasons import RefusalReason
from vedette.respond.active import target_of
from vedette.respond.enforcers import make_guard
from vedette.respond.known_logins import KnownLogins
from vedette.respond.policy import Policy
from vedette.system.files import write_atomic
from vedette.text.addresses import parse_network

if TYPE_CHECKING:
    from vedette.config.settings import Settings
    from vedette.store.state import State

KEPT = "fleet-blocks.bin"
OWNER = "fleet:"
_HUB, _BY_HUB = "hub", "operator:hub"
NO_ENFORCER, LIFTED_HERE = "no-enforcer", "lifted-here"

Say = Callable[[str, str, Mapping[str, object]], None]


class AgentBlocks:
    """One thread at a time. say: action, words, what it is about; called when what a host made of a block changed.

    enforces: whether anything here carries decisions out.
    """

    def __init__(
        self,
        settings: Settings,
        host_id: str,
        authority: bytes,
        *,
        clock: Clock,
        counter: Counter,
        say: Say,
        enforces: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._host_id, self._authority = host_id, authority
        self._clock, self._counter, self._say = clock, counter, say
        self._enforces = enforces
        self._place = settings.data_folder() / KEPT
        self._signed: dict[str, bytes] = {}
        self._wanted: dict[str, Wanted] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._load()

    def told(self, signed: bytes) -> bool:
        """Take what the hub wants now; whether it is new. What is older or not believed is counted."""
        try:
            wanted = read_wanted(signed, self._authority)
        except SignedError as error:
            self._counter.add("fleet_blocks_refused", error.reason)
            return False
        if wanted.target not in (self._host_id, ALL):
            self._counter.add("fleet_blocks_refused", "of-another-host")
            return False
        known = self._wanted.get(wanted.target)
        if known is not None and wanted.serial <= known.serial:
            return False
        self._wanted[wanted.target], self._signed[wanted.target] = wanted, signed
        try:
            # With the hub away, the next start must not lift what was wanted.
            write_atomic(self._place, msgspec.msgpack.encode(self._signed), follow=False)
        except OSError as error:
            raise StateError(f"{self._place}: {error.strerror}") from None
        return True

    def apply(self, state: State) -> bool:
        """Make the decisions of this host those that are wanted; whether anything changed. Says what is new."""
        now = self._clock.now()
        wanted = {one.id: one for told in self._wanted.values() for one in told.blocks if one.expires_at > now}
        responding = self._settings.responding
        guard = make_guard(responding, [self._settings.data_folder() / ALLOWLIST_FILE])
        known = KnownLogins(self._settings.blocking.known_logins, ())
        known.restore(state.correlation(), now)
        policy = Policy(responding, (), guard, self._host_id)
        answers: dict[str, tuple[str, str]] = {}
        changed = False
        with state.transaction() as tx:
            ours = [one for one in policy.active(tx, now) if one.owner.startswith(OWNER)]
            for one in ours:
                if one.id not in wanted:
                    policy.unblock(tx, one.target.value, _HUB, now)
                    answers[one.id] = (BlockAnswer.ENDED.value, "")
                    changed = True
            held = {one.id: one for one in ours if one.id in wanted}
            longer = [one for one in wanted.values() if one.id in held and one.expires_at > held[one.id].expires_at]
            fresh = []
            for block in wanted.values():
                if block.id in held and block not in longer:
                    continue
                refused = self._refusal(block, tx, policy, known, now)
                if refused:
                    answers[block.id] = (BlockAnswer.REFUSED.value, refused)
                else:
                    fresh.append(block)
            if fresh:
                policy.adopt(tx, [self._decision(one) for one in fresh], now)
                changed = True
            answers |= self._standing(wanted.values(), policy.active(tx, now), answers)
        self._tell(answers, wanted)
        return changed

    def _refusal(self, block: WantedBlock, tx: Transaction, policy: Policy, known: KnownLogins, now: int) -> str:
        try:
            network = parse_network(block.target)
        except ValueError:
            return RefusalReason.NO_TARGET.value
        if (guarded := policy.guard.refuses(network)) is not None:
            return guarded.value
        if known.covers(network, now):
            return RefusalReason.KNOWN_LOGIN.value
        for one in tx.decisions_on(target_of(network)):
            if one.id == block.id and one.state is DecisionState.LIFTED and one.ended_by != _BY_HUB:
                # A person at this host, or its allowlist, said no: the hub does not say it over and over.
                return LIFTED_HERE
        return ""

    def _decision(self, block: WantedBlock) -> Decision:
        return Decision(
            id=block.id,
            target=target_of(parse_network(block.target)),
            host_id=self._host_id,
            owner=OWNER + block.owner,
            reason=block.reason,
            starts_at=block.starts_at,
            expires_at=block.expires_at,
        )

    def _standing(
        self, wanted: Iterable[WantedBlock], active: Iterable[Decision], refused: Mapping[str, tuple[str, str]]
    ) -> dict[str, tuple[str, str]]:
        ids, targets = set(), set()
        for one in active:
            ids.add(one.id)
            targets.add(one.target)
        found = {}
        for block in wanted:
            if block.id in refused:
                continue
            if not self._enforces():
                found[block.id] = (BlockAnswer.REFUSED.value, NO_ENFORCER)
            elif block.id in ids:
                found[block.id] = (BlockAnswer.ENFORCED.value, "")
            elif target_of(parse_network(block.target)) in targets:
                found[block.id] = (BlockAnswer.ENFORCED.value, RefusalReason.ALREADY_ACTIVE.value)
            else:
                found[block.id] = (BlockAnswer.REFUSED.value, RefusalReason.FUSE_BLOWN.value)
        return found

    def _tell(self, answers: Mapping[str, tuple[str, str]], wanted: Mapping[str, WantedBlock]) -> None:
        for block_id, (state, reason) in answers.items():
            if self._said.get(block_id) == (state, reason):
                continue
            self._said[block_id] = (state, reason)
            block = wanted.get(block_id)
            target = block.target if block is not None else ""
            why = f": {reason}" if reason else ""
            self._counter.add("fleet_blocks", state)
            about = {"decision": block_id, "target": target, "reason": reason}
            self._say(f"decision-{state}", f"block of the fleet {state} here: {target or block_id}{why}", about)
        for gone in self._said.keys() - answers.keys():
            del self._said[gone]

    def _load(self) -> None:
        try:
            signed = msgspec.msgpack.decode(self._place.read_bytes(), type=dict[str, bytes])
            for target, data in signed.items():
                self._wanted[target], self._signed[target] = read_wanted(data, self._authority), data
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, SignedError):
            # The hub says it again as soon as it is there.
            self._counter.add("fleet_blocks_refused", "unreadable")

"""What a person does to alerts and blocks: each verb one transaction on the state that a running `up` shares.
Counterpart: `app.pipeline` notices the foreign commit and carries it out; the faces call these and print."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from vedette.alerts import lifecycle, silences
from vedette.alerts.routing import Router
from vedette.app.counters import Counters
from vedette.app.host import (
    ALLOWLIST_FILE,
    STATE_FILE,
    give_to,
    host_id,
    is_running,
    operator_name,
    prepare_folder,
)
from vedette.app.receivers import receiver_kinds
from vedette.config.settings import Settings
from vedette.model.alerts import Alert, AlertChange, Disposition, Matcher, Silence
from vedette.model.clock import Clock
from vedette.model.decisions import Decision
from vedette.model.errors import EnforcementError, StateError, VedetteError
from vedette.model.protocols import Transaction
from vedette.respond.allowlist import Entry, read_allowlist, write_allowlist
from vedette.respond.denyhosts import Imported
from vedette.respond.enforcers import ENFORCERS, make_guard
from vedette.respond.nftables import TABLE
from vedette.respond.policy import Outcome, Policy
from vedette.store.state import State
from vedette.system.exec import run
from vedette.text.addresses import Network, parse_network
from vedette.text.times import parse_duration

T = TypeVar("T")

SHORTEST_PREFIX = 4
"""Characters of an id that a person must give at least: fewer would be a guess."""


class Effect(StrEnum):
    """How what was decided takes effect."""

    LEFT_TO_UP = "left-to-up"
    """The running `up` carries it out within a moment."""
    DONE_HERE = "done-here"
    """No `up` runs, so this process did."""
    NOTHING_TO_DO = "nothing-to-do"
    """No enforcer holds anything that would have to change."""
    FAILED = "failed"
    """It is decided and kept, but not in force; an `up` tries again."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a decision outside the state. words: for people, what failed and how to mend it."""

    effect: Effect
    words: str = ""


@contextmanager
def operating(settings: Settings, clock: Clock, *, create: bool = False) -> Iterator[Operating]:
    """The state of a configuration, opened for a person.

    create: make folder and state where none is yet; else StateError says that no `up` has run there.
    """
    folder = settings.data_folder()
    if not create and not settings.state_url and not (folder / STATE_FILE).exists():
        raise StateError(
            f"there is no state in {folder}: `vedette up` has not run on it",
            hint="--data names another folder; the one of the service is read as root",
        )
    if create and not folder.exists():
        prepare_folder(folder)
    state = State(settings.state_url or folder / STATE_FILE)
    try:
        yield Operating(settings, state, clock, operator_name())
    finally:
        state.close()
        owned_like_folder(folder)


class Operating:
    """A person at one state. Every verb is all or nothing; VedetteError says why it was not carried out."""

    def __init__(self, settings: Settings, state: State, clock: Clock, operator: str) -> None:
        self.settings = settings
        self.state = state
        self.folder = settings.data_folder()
        self.running = is_running(self.folder)
        self.operator = operator
        self._clock = clock

    def now(self) -> int:
        """The time, microseconds."""
        return self._clock.now()

    def host_id(self) -> str:
        """The id of this host, made where it has none yet."""
        return host_id(self.folder)

    # ------------------------------------------------------------------------------------------ alerts
    def find_alert(self, named: str) -> Alert:
        """The alert with this id, or the only one whose id begins so."""
        alert = self.state.alert(named)
        if alert is not None:
            return alert
        _long_enough(named, "alert")
        found = self.state.alerts(where=lambda one: one.id.startswith(named), limit=2)
        return _only(found, named, "alert", "`vedette alerts list` names them")

    def acknowledge(self, named: Sequence[str], note: str = "") -> list[Alert]:
        """Acknowledge alerts by id or beginning of it; those that change. AlertError for a resolved one."""
        now = self.now()
        return self._change(
            named, lambda tx, alert_id: lifecycle.acknowledge(tx, alert_id, self.operator, now, note), now
        )

    def resolve(self, named: Sequence[str], disposition: Disposition, note: str = "") -> list[Alert]:
        """Resolve alerts with what they were; those that change. AlertError where a disposition is missing."""
        now = self.now()
        return self._change(
            named, lambda tx, alert_id: lifecycle.resolve(tx, alert_id, self.operator, disposition, now, note), now
        )

    def _change(
        self, named: Sequence[str], verb: Callable[[Transaction, str], list[AlertChange]], now: int
    ) -> list[Alert]:
        ids = list(dict.fromkeys(self.find_alert(one).id for one in named))
        router = Router(self.settings.alerts, receiver_kinds(self.settings.notify), Counters())
        changes: list[AlertChange] = []
        with self.state.transaction() as tx:
            for alert_id in ids:
                changes += verb(tx, alert_id)
            router.plan(changes, tx, now)
            router.flush(tx, now)
        return [change.alert for change in changes]

    # ------------------------------------------------------------------------------------------ silences
    def silence(self, matchers: tuple[Matcher, ...], duration: int, comment: str) -> Silence:
        """Mute what all `matchers` match for `duration` microseconds (0: as the settings usually do)."""
        limits = self.settings.alerts.silences
        duration = duration or parse_duration(limits.usual)
        with self.state.transaction() as tx:
            return silences.add(
                tx, matchers, self.operator, comment, self.now(), duration, longest=parse_duration(limits.longest)
            )

    def silences(self, *, ended: bool = False) -> list[Silence]:
        """Silences that still count, or every one ever made."""
        return self.state.silences(self.now(), ended=ended)

    def expire_silence(self, named: str) -> Silence:
        """End the silence with this id, or the only one whose id begins so."""
        found = [one for one in self.silences() if one.id == named]
        if not found:
            _long_enough(named, "silence")
            found = [one for one in self.silences() if one.id.startswith(named)]
        chosen = _only(found, named, "silence", "`vedette alerts silence list` names those that still count")
        with self.state.transaction() as tx:
            return silences.expire(tx, chosen.id, self.now())

    # ------------------------------------------------------------------------------------------ blocks
    def block(self, target: str, lease: int, reason: str, *, override: bool = False) -> tuple[Decision, Carried]:
        """Block an address or network; BlockRefusedError says why not."""
        policy, now = self._policy(), self.now()
        with self.state.transaction() as tx:
            decision, outcome = policy.block(tx, target, lease, reason, self.operator, now, override=override)
        return decision, self._carry_out(outcome)

    def unblock(self, targets: Sequence[str]) -> tuple[list[str], Carried]:
        """Lift the blocks on exactly these, all or none; the targets lifted. BlockRefusedError where one has none."""
        policy, now = self._policy(), self.now()
        together = Outcome()
        with self.state.transaction() as tx:
            # The policy reads what is in force again at each call, our own changes in this transaction too.
            for target in dict.fromkeys(targets):
                together.remove += policy.unblock(tx, target, self.operator, now).remove
        return [one.value for one in together.remove], self._carry_out(together)

    def unblock_all(self) -> tuple[list[str], Carried]:
        """Lift every block, and clear what enforcers still hold; the targets lifted."""
        policy = self._policy()
        with self.state.transaction() as tx:
            outcome = policy.unblock_all(tx, self.operator, self.now())
        return [one.value for one in outcome.remove], self._carry_out(outcome)

    def allow(self, network: str, comment: str) -> tuple[Entry, list[str], Carried]:
        """Put a network on the data folder's allowlist and lift the blocks on it; entry, targets lifted."""
        entry = Entry(_network(network), comment)
        self._keep_allowed([entry])
        policy = self._policy()
        with self.state.transaction() as tx:
            outcome = policy.allow(tx, entry, self.operator, self.now())
        return entry, [one.value for one in outcome.remove], self._carry_out(outcome)

    def adopt(self, found: Imported) -> tuple[Outcome, Carried]:
        """Take over allowlist and blocks of another program; refusals say what was not."""
        self._keep_allowed(found.allowlist)
        policy = self._policy()
        with self.state.transaction() as tx:
            outcome = policy.adopt(tx, found.decisions, self.now())
        return outcome, self._carry_out(outcome)

    def _policy(self) -> Policy:
        responding = self.settings.responding
        return Policy(responding, (), make_guard(responding, [self.folder / ALLOWLIST_FILE]), self.host_id())

    def _keep_allowed(self, entries: Sequence[Entry]) -> None:
        path = self.folder / ALLOWLIST_FILE
        kept = {entry.network: entry for entry in read_allowlist(path)}
        kept.update({entry.network: entry for entry in entries})
        try:
            write_allowlist(path, kept.values())
        except OSError as error:
            raise StateError(
                f"the allowlist {path} cannot be written: {error.strerror}", hint="run this as root"
            ) from None

    # ------------------------------------------------------------------------------------------ enforcing
    def _carry_out(self, outcome: Outcome) -> Carried:
        responding, now = self.settings.responding, self.now()
        if self.running:
            if outcome.enforce and "nftables" in responding.enforcers and table_is_absent():
                words = f"the running `up` has no table inet {TABLE} in the kernel; its log says why"
                return Carried(Effect.FAILED, words)
            return Carried(Effect.LEFT_TO_UP)
        touched = False
        failures = []
        active = self.state.active_decisions(now)
        for name in responding.enforcers:
            if name == "nftables" and not active and table_is_absent():
                continue
            try:
                enforcer = ENFORCERS[name](responding)
                try:
                    touched |= enforcer.sync(active, now) > 0 or bool(outcome.enforce)
                finally:
                    enforcer.close()
            except EnforcementError as error:
                failures.append(f"{name}: {error}")
        if failures:
            return Carried(Effect.FAILED, "; ".join(failures))
        return Carried(Effect.DONE_HERE if touched else Effect.NOTHING_TO_DO)


def table_is_absent() -> bool:
    """Whether it is certain that this network namespace has no table of ours."""
    try:
        done = run(["nft", "list", "tables", "inet"])
    except FileNotFoundError:
        return True
    return done.returncode == 0 and f"table inet {TABLE}".encode() not in done.stdout.splitlines()


def owned_like_folder(folder: Path) -> None:
    """What root made in the folder of an `up` without privileges is given to it: it must read and write it."""
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner = folder.stat()
    give_to(folder, owner.st_uid, owner.st_gid)


def _long_enough(named: str, what: str) -> None:
    if len(named) < SHORTEST_PREFIX:
        raise VedetteError(
            f"{named!r} is too short to name one {what}", hint=f"the first {SHORTEST_PREFIX} characters at least"
        )


def _only(found: Sequence[T], named: str, what: str, hint: str) -> T:
    if not found:
        raise VedetteError(f"there is no {what} {named!r}", hint=hint)
    if len(found) > 1:
        raise VedetteError(f"more than one {what} begins with {named!r}", hint="give more of its id")
    return found[0]


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError as error:
        raise VedetteError(str(error), hint="an address or network; names are never resolved") from None

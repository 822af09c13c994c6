"""The port policy as it stands now: its file and the inventories it asks, joined; the last known where one is down.
Counterpart: `inventory` reads and joins; `app.port_watch` and `cli.ports` look at what comes out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from vedette.inventory.admission import read_drift, told_once
from vedette.inventory.claims import with_last
from vedette.inventory.joining import POLICY, join, widened
from vedette.inventory.kinds import KINDS
from vedette.inventory.yaml import Inventory, read_policy_file
from vedette.model.clock import Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.levels import Level
from vedette.model.ports import DRIFT_LEVELS, Drift, DriftKind, Expectations, InventoryProblem, PortPolicy
from vedette.system.files import write_atomic
from vedette.system.secrets import Secret
from vedette.text.times import duration_text, rfc3339

T = TypeVar("T")
_VERSION_DIGITS = 9
_SHOWN = 3
"""So many of the things that were left out of an inventory are written out."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How one inventory was read. read_at: microseconds UTC, 0 = never; stale: why not now, empty = it was.

    problems: what was left out of it.
    """

    name: str
    kind: str
    read_at: int
    stale: str = ""
    problems: tuple[InventoryProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Gathered:
    """What holds now, what is to be said of it, and how each inventory was read.

    policy: without hosts where an inventory that makes policy was never read: a part of a policy is none.
    whole: whether it is not.
    """

    policy: PortPolicy
    drifts: tuple[Drift, ...]
    inventories: tuple[Heard, ...]
    whole: bool = True
    _keeper: _Keeper | None = None

    def settle(self) -> None:
        """From now on this policy is what the next one is compared with. StateError where it cannot be kept."""
        if self._keeper is not None and self.whole:
            self._keeper.policy.write(self.policy)


def gather(path: Path, clock: Clock, keep: Path | None = None, *, settle: bool = True) -> Gathered:
    """The policy of the file at `path`, with all the inventories it asks. Blocks; of no use within an event loop.

    keep: a folder of our own (made, mode 0700) for what was last known of each inventory, which holds while one is
    down, and for the policy that came out, with which the next one is compared: every widening is said once. Who must
    not lose that where he dies before he has said it takes `settle=False` and calls `Gathered.settle` when he has.
    ConfigError for what is wrong with the policy file itself; StateError where `keep` cannot be used.
    """
    keeper = _Keeper.of(keep, path) if keep is not None else None
    file = read_policy_file(path)
    heard: list[Heard] = []
    said: list[Expectations] = []
    drifts: list[Drift] = []
    whole = True
    for one in file.inventories:
        found, why = _read(one, path.parent, clock, keeper)
        now = clock.now()
        if found is None:
            heard.append(Heard(one.name, one.kind, 0, why))
            drifts.append(_never(one, why, now))
            whole = whole and not KINDS[one.kind].policy
            continue
        heard.append(Heard(one.name, one.kind, found.read_at, found.stale, found.problems))
        said.append(found)
        drifts += _left_out(one, found, now)
        if not KINDS[one.kind].policy and not found.claims:
            drifts.append(_empty(one, now))
        # Read long after now: by a clock that was set back since, so nobody knows how old it is.
        if found.stale and abs(now - found.read_at) > one.stale_after:
            drifts.append(_too_old(one, found, now))
    now = clock.now()
    of_nodes = [one.name for one in file.inventories if KINDS[one.kind].of_nodes]
    joined = join(file.policy, said, now, of_nodes=of_nodes)
    policy = joined.policy if whole else replace(joined.policy, hosts=())
    drifts += joined.drifts if whole else ()
    if whole and file.inventories and not policy.hosts:
        drifts.append(_nobody(path, now))
    if keeper is not None and whole:
        drifts += _widened(keeper, policy, now)
    gathered = Gathered(policy, told_once(drifts), tuple(heard), whole, keeper)
    if settle:
        gathered.settle()
    return gathered


def _read(one: Inventory, folder: Path, clock: Clock, keeper: _Keeper | None) -> tuple[Expectations | None, str]:
    """What an inventory says now, or else said last; None with the reason where neither can be had."""
    kind = KINDS[one.kind]
    paths = {key: _beside(folder, value) for key in kind.paths if (value := getattr(one.words, key))}
    try:
        found = kind.read(one.words.model_copy(update=paths), one.name, clock)
    except (VedetteError, OSError) as error:
        why = str(error)
    else:
        if keeper is not None:
            found = _with_last(keeper.inventory(one), found)
            keeper.inventory(one).write(found)
        return found, ""
    if keeper is None:
        return None, why
    try:
        last = keeper.inventory(one).read()
    except _DamagedError as error:
        return None, f"{why}; what it said before: {error}"
    return (replace(last, stale=why), why) if last is not None else (None, why)


def _beside(folder: Path, value: str | Secret) -> str | Secret:
    """A file as it is found from `folder`; a secret that lies in none stays as it is."""
    if isinstance(value, Secret):
        return value.model_copy(update={"file": str(folder / value.file)}) if value.file else value
    return str(folder / value)


def _with_last(kept: _Kept[Expectations], found: Expectations) -> Expectations:
    """With the claims that were read last in place of those that could not be read now."""
    if found.claims_complete:
        return found
    try:
        last = kept.read()
    except _DamagedError:
        return found
    return found if last is None else with_last(found, last)


def _widened(keeper: _Keeper, policy: PortPolicy, now: int) -> Iterator[Drift]:
    try:
        before = keeper.policy.read()
    except _DamagedError as error:
        advice = f"{error}: whether policy lets in more than it did could not be told"
        yield read_drift(DriftKind.COULD_NOT_TELL, DRIFT_LEVELS[DriftKind.COULD_NOT_TELL], POLICY, advice, now)
        return
    if before is not None:
        yield from widened(before, policy, now)


def _never(one: Inventory, why: str, now: int) -> Drift:
    kind = DriftKind.COULD_NOT_TELL
    what = "so nothing was looked at" if KINDS[one.kind].policy else "so policy was not compared with it"
    advice = f"the inventory {one.name} ({one.origin}) was never read, {what}: {why}"
    return read_drift(kind, DRIFT_LEVELS[kind], POLICY, advice, now, address=one.name)


def _empty(one: Inventory, now: int) -> Drift:
    kind = DriftKind.COULD_NOT_TELL
    advice = f"the inventory {one.name} ({one.origin}) names no host, so policy was not compared with it: is it right?"
    return read_drift(kind, DRIFT_LEVELS[kind], POLICY, advice, now, address=one.name)


def _left_out(one: Inventory, found: Expectations, now: int) -> Iterator[Drift]:
    """That an inventory was not understood whole: for people to know, and no drift from policy by itself."""
    if not found.problems:
        return
    kinds = sorted({problem.reason.value for problem in found.problems})
    first = "; ".join(str(problem) for problem in found.problems[:_SHOWN])
    count = sum(problem.times for problem in found.problems)
    advice = (
        f"the inventory {one.name} ({one.origin}) was not taken whole, left out: {count} ({', '.join(kinds)}): {first}"
        f"{'; and more' if len(found.problems) > _SHOWN else ''}"
    )
    kind = DriftKind.INVENTORIES_DISAGREE
    if KINDS[one.kind].of_nodes and not found.claims_complete:
        # Whether a node allows itself more than policy is then not known, and what is not known is no pass.
        kind = DriftKind.COULD_NOT_TELL
        yield read_drift(kind, DRIFT_LEVELS[kind], POLICY, advice, now, address=one.name)
        return
    yield read_drift(kind, Level.INFORMATIONAL, POLICY, advice, now, address=one.name)


def _nobody(path: Path, now: int) -> Drift:
    kind = DriftKind.COULD_NOT_TELL
    advice = f"neither {path} nor an inventory it asks names a host that may be looked at: nothing was looked at"
    return read_drift(kind, DRIFT_LEVELS[kind], POLICY, advice, now)


def _too_old(one: Inventory, found: Expectations, now: int) -> Drift:
    kind = DriftKind.COULD_NOT_TELL_TOO_LONG
    advice = (
        f"the inventory {one.name} ({one.origin}) cannot be read, what it said {duration_text(now - found.read_at)} "
        f"ago ({rfc3339(found.read_at)}) holds: {found.stale}"
    )
    return read_drift(kind, DRIFT_LEVELS[kind], POLICY, advice, now, address=one.name)


# ------------------------------------------------------------------------------------------------ what is kept


class _DamagedError(Exception):
    """A file that is there and cannot be read."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """One file: a line with name and version, then JSON."""

    path: Path
    name: str
    version: int
    shape: TypeAdapter[T]

    def read(self) -> T | None:
        """What was kept; None where nothing is. StateError for a newer version's, _DamagedError for what is none."""
        try:
            head, _, body = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _DamagedError(f"{self.path} cannot be read ({error.strerror})") from None
        name, _, version = head.decode("ascii", "replace").partition(" ")
        if name != self.name or not version.isdecimal() or len(version) > _VERSION_DIGITS:
            raise _DamagedError(f"{self.path} is damaged")
        if int(version) > self.version:
            raise StateError(
                f"{self.path} is of version {version}, this program knows {self.version}",
                hint="run the newer program, or take the file away: what is read next counts as the first",
            )
        try:
            return self.shape.validate_json(body)
        except (ValidationError, RecursionError):
            raise _DamagedError(f"{self.path} is damaged") from None

    def write(self, value: T) -> None:
        """Keep `value` in place of what was kept; StateError where that cannot be done."""
        data = f"{self.name} {self.version}\n".encode() + self.shape.dump_json(value)
        try:
            if self.path.exists() and self.path.read_bytes() == data:
                return
            write_atomic(self.path, data, follow=False)
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {error.strerror}") from None


_EXPECTATIONS: TypeAdapter[Any] = TypeAdapter(Expectations)
_POLICY: TypeAdapter[Any] = TypeAdapter(PortPolicy)


@dataclass(frozen=True, slots=True)
class _Keeper:
    """The files kept for one policy file."""

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, path: Path) -> _Keeper:
        """In `folder`, which is made if need be; StateError where it is not ours alone: it decides what is right."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise StateError(f"{folder} cannot be used: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise StateError(f"{folder} is not ours alone", hint=f"chmod 700 {folder}, or name another folder")
        # The name it is asked for by: behind a link that is set anew it is the same policy, and may have widened.
        return cls(folder, blake2b(os.fsencode(path.absolute()), digest_size=8).hexdigest())

    def inventory(self, one: Inventory) -> _Kept[Expectations]:
        """What was last known of an inventory. One of another kind under its name is another one."""
        path = self.folder / f"{self.key}-{one.kind}-{one.name}"
        return _Kept(path, "vedette-inventory", 1, _EXPECTATIONS)

    @property
    def policy(self) -> _Kept[PortPolicy]:
        """The policy that was joined last."""
        return _Kept(self.folder / f"{self.key}-policy", "vedette-port-policy", 1, _POLICY)

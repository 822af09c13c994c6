"""Rules and policy for agents as one numbered bundle, the orders by which a host takes one, and what it keeps of them.
Counterpart: `app.bundling` builds on the hub, `app.bundled` makes a host's settings of it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from vedette.fleet.signing import SignedError, SignedKind, SignedReason, opened
from vedette.fleet.subjects import ALL
from vedette.model.errors import StateError
from vedette.system.files import write_atomic

VERSION = 1
STANDING, FOLDER = "bundle.json", "bundle"
MOST_STARTS = 2
"""Starts with a bundle that never ran long enough to be proven; then it is given up."""
_CONTENT, _ORDER, _STANDING = "vedette-bundle", "vedette-order", "vedette-bundle-standing"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class BundleReason(StrEnum):
    """Why a host does not take an order, or gave a bundle up."""

    UNREADABLE = "unreadable"
    NEWER = "newer-version"
    NOT_BELIEVED = "not-believed"
    OF_ANOTHER_HOST = "of-another-host"
    OLDER = "older"
    """A lower number than the one in force, and no order to return."""
    DOES_NOT_LOAD = "does-not-load"
    CRASHED = "crashed-at-start"
    NOISE = "noise"
    OPERATOR = "operator"


class BundleError(Exception):
    """An order that is not taken."""

    def __init__(self, reason: BundleReason, words: str = "", number: int = 0) -> None:
        super().__init__(f"{reason.value}: {words}" if words else reason.value)
        self.reason, self.words, self.number = reason, words, number


class Allowed(msgspec.Struct, frozen=True):
    """An entry of the allowlist."""

    network: str
    comment: str = ""


class PortWatch(msgspec.Struct, frozen=True):
    """A port policy and who looks. policy: text of its file; vantages: host id -> the vantage it is in that policy."""

    policy: str
    vantages: dict[str, str]
    every: str = "15m"
    critical_every: str = "1m"
    confirm_after: str = "3s"


class Content(msgspec.Struct, frozen=True):
    """What is in a bundle; keys that a newer hub adds within this version are ignored.

    files: name -> text of rule files; pipelines: names of ours, or of `pipeline_files`. The others are as in the
    configuration: under `rules:` steps, placeholders, ssh; `respond:`; under `blocking:` allowlist, floor and
    canary_hosts.
    """

    format: str = _CONTENT
    version: int = VERSION
    packs: bool = True
    files: dict[str, str] = {}
    pipelines: tuple[str, ...] = ()
    pipeline_files: dict[str, str] = {}
    steps: dict[str, str] = {}
    placeholders: dict[str, list[str | int]] = {}
    ssh: dict[str, Any] = {}
    respond: dict[str, str] = {}
    allowlist: tuple[Allowed, ...] = ()
    floor: tuple[str, ...] = ()
    canary_hosts: tuple[str, ...] = ()
    ports: PortWatch | None = None


class Order(msgspec.Struct, frozen=True):
    """What a host is to run by. serial: of all orders of this hub, each higher than the one before; number: of the
    bundle, 0 = none, its own configuration; returns: may be lower than what is in force. target: host id, or `all`.
    """

    serial: int
    target: str
    number: int
    content: Content | None = None
    returns: bool = False
    why: str = ""
    at: int = 0
    format: str = _ORDER
    version: int = VERSION


def packed(content: Content) -> bytes:
    """The canonical form: JSON, members by name, no white space."""
    return msgspec.json.encode(content, order="deterministic")


def unpacked(data: bytes) -> Content:
    """BundleError where it is none, or of a newer version."""
    try:
        content = msgspec.json.decode(data, type=Content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(BundleReason.UNREADABLE, str(error)) from None
    _check(content, _CONTENT)
    return content


def digest(data: bytes) -> str:
    """SHA-256 of a packed bundle, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def order_bytes(order: Order) -> bytes:
    """The canonical form of an order, to be signed."""
    return msgspec.json.encode(order, order="deterministic")


def read_order(signed: bytes, authority: bytes) -> Order:
    """What the hub ordered; BundleError where it is not believed, or cannot be understood."""
    try:
        body = opened(signed, SignedKind.BUNDLE, authority)
    except SignedError as error:
        newer = error.reason is SignedReason.NEWER
        raise BundleError(BundleReason.NEWER if newer else BundleReason.NOT_BELIEVED, str(error)) from None
    return understood(body)


def understood(body: bytes) -> Order:
    """The order in a body that is believed; BundleError where there is none."""
    try:
        order = msgspec.json.decode(body, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(BundleReason.UNREADABLE, str(error)) from None
    _check(order, _ORDER)
    if order.content is not None:
        _check(order.content, _CONTENT, order.number)
    if order.serial < 1 or order.number < 0 or (order.content is None) != (order.number == 0):
        raise BundleError(BundleReason.UNREADABLE, "an order that says nothing", order.number)
    return order


def _check(found: Content | Order, wanted: str, number: int = 0) -> None:
    if found.format != wanted:
        raise BundleError(BundleReason.UNREADABLE, "another format", number)
    if found.version > VERSION:
        raise BundleError(BundleReason.NEWER, f"version {found.version}, this host knows {VERSION}", number)


# ------------------------------------------------------------------------------------------------- what a host keeps
class _Standing(msgspec.Struct):
    format: str = _STANDING
    version: int = VERSION
    seen: int = 0
    serial: int = 0
    before: int = 0
    number: int = 0
    proven: bool = True
    starts: int = 0


@dataclass(frozen=True, slots=True)
class InForce:
    """What a host runs by. rules, pipelines: files on its disk."""

    number: int
    content: Content
    rules: tuple[Path, ...]
    pipelines: Mapping[str, Path]


class Kept:
    """What this host keeps of its orders: the one in force, and the one before until it is proven.

    The standing is one small file in the data folder, so that it starts by it with the hub away. StateError
    where the disk refuses. authority: PEM, as it got it at enrolment.
    """

    def __init__(self, folder: Path, host_id: str, authority: bytes) -> None:
        self._place, self._folder = folder / STANDING, folder / FOLDER
        self._host_id, self._authority = host_id, authority
        self._standing = self._read()

    @property
    def number(self) -> int:
        """Of the bundle in force, 0 = none."""
        return self._standing.number

    @property
    def proven(self) -> bool:
        """Whether it ran long enough to be trusted."""
        return self._standing.proven

    def offered(self, signed: bytes) -> Order | None:
        """The order, where it is to be taken; None for one that is known. BundleError says why it is refused."""
        order = read_order(signed, self._authority)
        if order.target not in (self._host_id, ALL):
            raise BundleError(BundleReason.OF_ANOTHER_HOST, number=order.number)
        if order.serial <= self._standing.seen:
            return None
        if order.number < self._standing.number and not order.returns:
            self.pass_over(order)
            raise BundleError(BundleReason.OLDER, f"{self._standing.number} is in force", order.number)
        return order

    def pass_over(self, order: Order) -> None:
        """It was judged, and is not taken; it is not looked at again."""
        self._standing.seen = max(self._standing.seen, order.serial)
        self._write()

    def take(self, order: Order, signed: bytes) -> InForce | None:
        """From the next start on this is in force; what it says, None where that is the host's own configuration."""
        found = self.lay_out(order)
        standing = self._standing
        self._keep(order, signed)
        before = standing.serial if standing.proven else standing.before
        self._standing = _Standing(
            seen=order.serial, serial=order.serial, before=before, number=order.number, proven=False
        )
        self._write()
        self._sweep()
        return found

    def confirm(self, order: Order, signed: bytes) -> None:
        """The bundle in force was ordered anew (on named hosts at first, then on all): nothing has to begin again."""
        if order.content is not None:
            self.lay_out(order)
        self._keep(order, signed)
        self._standing.seen = self._standing.serial = order.serial
        self._write()

    def begin(self) -> tuple[InForce | None, int]:
        """What is in force at this start, and the number of one that was given up for it (0 = none)."""
        given_up = 0
        if self._standing.serial and not self._standing.proven:
            if self._standing.starts >= MOST_STARTS:
                given_up = self._standing.number
                self.give_up()
            else:
                self._standing.starts += 1
                self._write()
        return self.in_force(), given_up

    def ended(self) -> None:
        """This start ended as it was told to, which says nothing against the bundle."""
        if not self._standing.proven and self._standing.starts:
            self._standing.starts -= 1
            self._write()

    def prove(self) -> None:
        """It ran long enough."""
        if not self._standing.proven:
            self._standing.proven, self._standing.before, self._standing.starts = True, 0, 0
            self._write()
            self._sweep()

    def give_up(self) -> None:
        """Back to the one before, or to the host's own configuration; the order is not taken again."""
        before = self._standing.before
        number = 0
        if before:
            try:
                number = self._order(before).number
            except (BundleError, StateError):
                before = 0
        self._standing = _Standing(seen=self._standing.seen, serial=before, number=number)
        self._write()

    def in_force(self) -> InForce | None:
        """What is in force now, from the disk; None = the host's own. BundleError where it is not what was signed."""
        if not self._standing.serial:
            return None
        order = self._order(self._standing.serial)
        if order.content is None:
            return None
        where = self._folder / str(order.serial)
        named = _names(order.content.files, "rule")
        pipelines = _names(order.content.pipeline_files, "pipeline")
        return InForce(
            order.number,
            order.content,
            tuple(where / name for name in named.values()),
            {name: where / file for name, file in pipelines.items()},
        )

    # ---------------------------------------------------------------- inside
    def _order(self, serial: int) -> Order:
        try:
            return read_order((self._folder / f"{serial}.signed").read_bytes(), self._authority)
        except OSError as error:
            raise StateError(f"the bundle in {self._folder}: {error.strerror}") from None

    def _keep(self, order: Order, signed: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._folder / f"{order.serial}.signed", signed, follow=False)
        except OSError as error:
            raise StateError(f"{self._folder}: {error.strerror}") from None

    def lay_out(self, order: Order) -> InForce | None:
        """Its files on the disk, so that they can be loaded; nothing is in force by that."""
        where = self._folder / str(order.serial)
        try:
            where.mkdir(mode=0o700, parents=True, exist_ok=True)
            if order.content is None:
                return None
            files = {name: where / file for name, file in _names(order.content.files, "rule").items()}
            pipelines = {name: where / file for name, file in _names(order.content.pipeline_files, "pipeline").items()}
            for name, place in files.items():
                write_atomic(place, order.content.files[name].encode(), follow=False)
            for name, place in pipelines.items():
                write_atomic(place, order.content.pipeline_files[name].encode(), follow=False)
        except OSError as error:
            raise StateError(f"{where}: {error.strerror}") from None
        return InForce(order.number, order.content, tuple(files.values()), pipelines)

    def _sweep(self) -> None:
        wanted = {str(self._standing.serial), str(self._standing.before)}
        for path in self._folder.iterdir():
            if path.stem not in wanted:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _read(self) -> _Standing:
        try:
            found = msgspec.json.decode(self._place.read_bytes(), type=_Standing)
        except FileNotFoundError:
            return _Standing()
        except (OSError, msgspec.MsgspecError) as error:
            raise StateError(
                f"{self._place} cannot be read: {error}", hint="remove it; the hub says it again"
            ) from None
        if found.format != _STANDING or found.version > VERSION:
            raise StateError(f"{self._place} is of version {found.version}", hint="a newer Vedette wrote it")
        return found

    def _write(self) -> None:
        try:
            write_atomic(self._place, msgspec.json.encode(self._standing), follow=False)
        except OSError as error:
            raise StateError(f"{self._place}: {error.strerror}") from None


def _names(files: Mapping[str, str], kind: str) -> dict[str, str]:
    """Names as they are safe on a disk, in the order of the bundle's."""
    return {
        name: f"{kind}-{index:04d}-{_UNSAFE.sub('_', name)[-80:]}"
        for index, name in enumerate(sorted(files, key=str.encode))
    }


def rates_are_noisy(found: int, hours: float, prior: Sequence[float], *, floor: int, factor: float) -> bool:
    """Whether a bundle makes too many findings on a host.

    found: in `hours` since it was staged; prior: findings an hour by the bundle before, per host. floor: so many an
    hour are never too many; factor: over what is usual.
    """
    # An hour at least: what comes at once after the change is not a rate yet.
    rate = found / max(hours, 1.0)
    usual = sum(prior) / len(prior) if prior else 0.0
    return rate > max(float(floor), usual * factor)

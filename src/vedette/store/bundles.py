"""Bundles of rules and policy in the state, and the orders by which hosts take them.
Counterpart: `app.bundling` decides, `app.hub_control` tells the agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from vedette.model.errors import StateError
from vedette.store.state import State
from vedette.store.tables import BUNDLES

EVERY_HOST = "all"
_OWN = 0
"""Not a bundle: orders by which hosts go back to their own configuration are kept with it."""


class BundleState(StrEnum):
    """How far a bundle has come."""

    BUILT = "built"
    STAGED = "staged"
    """On hosts that were named."""
    EVERYWHERE = "everywhere"
    SUPERSEDED = "superseded"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Ordered:
    """That a target (host id, or EVERY_HOST) is to run by the bundle this stands with. at: microseconds."""

    serial: int
    target: str
    at: int
    by: str
    returns: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle without its content. digest: SHA-256 of that. before: what its hosts return to."""

    number: int
    state: BundleState
    created_at: int
    created_by: str
    digest: str
    note: str = ""
    before: int = 0
    orders: tuple[Ordered, ...] = ()
    ended: str = ""


_DECODER = msgspec.json.Decoder(Bundle)


class Bundles:
    """The bundles of a hub's state. StateError where the disk refuses, or where there is no such bundle."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, content: bytes, digest: str, *, by: str, note: str, now: int) -> Bundle:
        """Keep a new one under the next number."""
        with self._state.writing() as connection:
            number = (connection.execute(select(func.max(BUNDLES.c.number))).scalar() or 0) + 1
            bundle = Bundle(number, BundleState.BUILT, now, by, digest, note)
            connection.execute(insert(BUNDLES).values(number=number, content=content, **_columns(bundle)))
            return bundle

    def all(self) -> Sequence[Bundle]:
        """Every one, newest first."""
        with self._state.reading() as connection:
            return [bundle for bundle in _all(connection) if bundle.number != _OWN]

    def get(self, number: int) -> Bundle:
        """The bundle of this number."""
        found = next((bundle for bundle in self.all() if bundle.number == number), None)
        if found is None:
            raise StateError(f"there is no bundle {number}", hint="`vedette fleet bundle list` names them")
        return found

    def content(self, number: int) -> bytes:
        """As it was built."""
        with self._state.reading() as connection:
            found = connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.number == number)).scalar()
        if found is None:
            raise StateError(f"there is no bundle {number}", hint="`vedette fleet bundle list` names them")
        return bytes(found)

    def in_force(self) -> int:
        """The number that holds for every host without a word of its own; 0 = none."""
        newest = self.newest().get(EVERY_HOST)
        return newest[0] if newest else 0

    def newest(self) -> dict[str, tuple[int, Ordered]]:
        """Target -> number of the bundle, and the last order for it."""
        with self._state.reading() as connection:
            return _newest(_all(connection))

    def order(
        self,
        number: int,
        targets: Sequence[str],
        *,
        by: str,
        now: int,
        returns: bool = False,
        why: str = "",
        state: BundleState | None = None,
    ) -> Sequence[Ordered]:
        """Have these targets run by bundle `number` (0 = their own configuration) from now on.

        state: what the bundle is then; a bundle that is everywhere supersedes the one that was.
        """
        with self._state.writing() as connection:
            known = _all(connection)
            serial = max((one.serial for bundle in known for one in bundle.orders), default=0)
            made = tuple(
                Ordered(serial + place, target, now, by, returns, why) for place, target in enumerate(targets, 1)
            )
            bundle = next((one for one in known if one.number == number), None)
            if bundle is None:
                if number != _OWN:
                    raise StateError(f"there is no bundle {number}", hint="`vedette fleet bundle list` names them")
                bundle = Bundle(_OWN, BundleState.EVERYWHERE, now, by, "")
                connection.execute(insert(BUNDLES).values(number=_OWN, content=b"", **_columns(bundle)))
            newest = _newest(known).get(EVERY_HOST)
            before = newest[0] if newest else 0
            if state is BundleState.EVERYWHERE:
                for one in known:
                    if one.number != number and one.state in (BundleState.EVERYWHERE, BundleState.STAGED):
                        _save(connection, replace(one, state=BundleState.SUPERSEDED))
            changed = replace(bundle, orders=(*bundle.orders, *made))
            if state is not None:
                keeps = before if before != number else bundle.before
                changed = replace(changed, state=state, before=keeps, ended="")
            _save(connection, changed)
            return made

    def end(self, number: int, words: str) -> None:
        """It was returned, and why."""
        with self._state.writing() as connection:
            bundle = next((one for one in _all(connection) if one.number == number), None)
            if bundle is not None:
                _save(connection, replace(bundle, state=BundleState.RETURNED, ended=words))


def _all(connection: Connection) -> list[Bundle]:
    bodies = connection.execute(select(BUNDLES.c.body).order_by(BUNDLES.c.number.desc())).scalars()
    return [_DECODER.decode(body) for body in bodies]


def _newest(bundles: Sequence[Bundle]) -> dict[str, tuple[int, Ordered]]:
    found: dict[str, tuple[int, Ordered]] = {}
    for bundle in bundles:
        for one in bundle.orders:
            if one.target not in found or found[one.target][1].serial < one.serial:
                found[one.target] = (bundle.number, one)
    return found


def _save(connection: Connection, bundle: Bundle) -> None:
    connection.execute(update(BUNDLES).where(BUNDLES.c.number == bundle.number).values(_columns(bundle)))


def _columns(bundle: Bundle) -> dict[str, object]:
    return {
        "state": bundle.state.value,
        "created_at": bundle.created_at,
        "body": msgspec.json.encode(bundle).decode(),
    }

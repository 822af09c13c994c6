"""Blocks for the fleet in the state: what is in force where, and what each host made of it.
Counterpart: `app.hub_control` tells agents and notes their answers, `app.fleet_blocks` adds and lifts."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from vedette.model.errors import StateError
from vedette.store.state import State
from vedette.store.tables import FLEET_ANSWERS, FLEET_BLOCKS


class FleetBlockState(StrEnum):
    """How far a block of the fleet has come."""

    CANARY = "canary"
    """On a few hosts first."""
    HELD = "held"
    """One of those refused it: it goes no further until a person says so."""
    EVERYWHERE = "everywhere"
    LIFTED = "lifted"


IN_FORCE = (FleetBlockState.CANARY, FleetBlockState.HELD, FleetBlockState.EVERYWHERE)


@dataclass(frozen=True, slots=True)
class FleetBlock:
    """A block. group: of agents it is for, "" = all; canaries: host ids first; widens_at: when it goes to the
    others, microseconds. trial: of a rule on the rung canary, lifted by itself where one of those hosts knows better.
    change: counts what is done to any of them. owner: `operator:NAME` or `rule:ID`.
    """

    id: str
    target: str
    owner: str
    reason: str
    starts_at: int
    expires_at: int
    state: FleetBlockState = FleetBlockState.EVERYWHERE
    group: str = ""
    canaries: tuple[str, ...] = ()
    widens_at: int = 0
    change: int = 0
    ended_at: int = 0
    ended_by: str = ""
    trial: bool = False


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What a host made of a block. state: a `BlockAnswer` value; at: microseconds, as the host said it."""

    block_id: str
    host_id: str
    at: int
    state: str
    reason: str


HARM = frozenset({"known-login", "allowlisted", "hard-floor", "lifted-here"})
"""Reasons of a host to refuse that say the block would hit, or hit, somebody who belongs there."""
RETURNED = "returned:"
"""What `ended_by` begins with where a trial was ended so; the host's id and its reason follow."""

_DECODER = msgspec.json.Decoder(FleetBlock)
_LOOK = 10_000
_IN_FORCE = [state.value for state in IN_FORCE]


class FleetBlocks:
    """Blocks of the fleet. StateError where the disk refuses."""

    def __init__(self, state: State) -> None:
        self._state = state

    def in_force(self, now: int) -> Sequence[FleetBlock]:
        """Those with a lease left, oldest first."""
        with self._state.reading() as connection:
            return _in_force(connection, now)

    def change(self) -> int:
        """The last change made to any."""
        with self._state.reading() as connection:
            return _last_change(connection)

    def add(self, block: FleetBlock, now: int, most: int) -> FleetBlock:
        """Put one in force; one on the same target and group keeps its id and takes the longer lease.

        StateError where `most` are in force already.
        """
        with self._state.writing() as connection:
            ended = connection.execute(select(FLEET_BLOCKS.c.body).where(FLEET_BLOCKS.c.id == block.id)).scalar()
            if ended is not None and (before := _DECODER.decode(ended)).state is FleetBlockState.LIFTED:
                return before  # decided anew after a restart: what was lifted stays so
            found = _in_force(connection, now)
            same = next((one for one in found if (one.target, one.group) == (block.target, block.group)), None)
            if same is not None:
                # What somebody says besides the rule that tries it is not for one host to return.
                made = replace(
                    same,
                    expires_at=max(block.expires_at, same.expires_at),
                    trial=same.trial and (block.trial or block.id == same.id),
                )
                return same if made == same else _save(connection, made)
            if len(found) >= most:
                raise StateError(f"{len(found)} blocks of the fleet are active", hint="lift some, or raise the fuse")
            return _save(connection, block)

    def lift(self, target: str, by: str, now: int, owners: Set[str] = frozenset()) -> Sequence[FleetBlock]:
        """End those on exactly this target ("" = all of them), of these owners (none = of any)."""
        with self._state.writing() as connection:
            found = [one for one in _in_force(connection, now) if target in ("", one.target)]
            found = [one for one in found if not owners or one.owner in owners]
            return [
                _save(connection, replace(one, state=FleetBlockState.LIFTED, ended_at=now, ended_by=by))
                for one in found
            ]

    def advance(self, now: int) -> Sequence[FleetBlock]:
        """Those whose canaries have had them long enough: everywhere, or held where one refused it, or none tried a
        trial.

        A trial is lifted at once where one of them refused it for a reason of HARM. After that it is as any other:
        one host of many, which may belong to somebody else, takes it from no others.
        """
        with self._state.writing() as connection:
            changed = []
            for one in _in_force(connection, now):
                if one.state is not FleetBlockState.CANARY:
                    continue
                if one.trial and (by := _harm(connection, one)):
                    changed.append(
                        _save(connection, replace(one, state=FleetBlockState.LIFTED, ended_at=now, ended_by=by))
                    )
                    continue
                if one.widens_at > now:
                    continue
                of = and_(FLEET_ANSWERS.c.block_id == one.id, FLEET_ANSWERS.c.host_id.in_(one.canaries))
                refused = select(func.count()).select_from(FLEET_ANSWERS).where(of, FLEET_ANSWERS.c.state == "refused")
                held = connection.execute(refused).scalar_one() > 0
                if one.trial and not held:
                    # Hosts that are away tried nothing: what nobody had must not go to all others.
                    tried = (
                        select(func.count()).select_from(FLEET_ANSWERS).where(of, FLEET_ANSWERS.c.state == "enforced")
                    )
                    held = connection.execute(tried).scalar_one() == 0
                state = FleetBlockState.HELD if held else FleetBlockState.EVERYWHERE
                changed.append(_save(connection, replace(one, state=state)))
            return changed

    def returned(self, owner: str, since: int) -> FleetBlock | None:
        """The last block of this owner that was returned since then."""
        # Newest first; what is looked through is bounded by what may be in force at one time, many times over.
        lifted = select(FLEET_BLOCKS.c.body).where(FLEET_BLOCKS.c.state == FleetBlockState.LIFTED.value)
        with self._state.reading() as connection:
            bodies = connection.execute(lifted.order_by(FLEET_BLOCKS.c.change.desc()).limit(_LOOK)).scalars()
            for one in map(_DECODER.decode, bodies):
                if one.owner == owner and one.ended_by.startswith(RETURNED) and one.ended_at >= since:
                    return one
        return None

    def widen(self, target: str, now: int) -> Sequence[FleetBlock]:
        """A person says that it goes everywhere."""
        with self._state.writing() as connection:
            found = [one for one in _in_force(connection, now) if one.target == target]
            return [
                _save(connection, replace(one, state=FleetBlockState.EVERYWHERE))
                for one in found
                if one.state is not FleetBlockState.EVERYWHERE
            ]

    def answered(self, answers: Sequence[HostAnswer]) -> None:
        """Note what hosts said; the newest of each counts, of blocks nobody knows nothing is kept."""
        with self._state.writing() as connection:
            known = set(connection.execute(select(FLEET_BLOCKS.c.id)).scalars())
            for one in answers:
                if one.block_id not in known:
                    continue
                which = and_(FLEET_ANSWERS.c.block_id == one.block_id, FLEET_ANSWERS.c.host_id == one.host_id)
                at = connection.execute(select(FLEET_ANSWERS.c.at).where(which)).scalar()
                values = {"at": one.at, "state": one.state, "reason": one.reason}
                if at is None:
                    ids = {"block_id": one.block_id, "host_id": one.host_id}
                    connection.execute(insert(FLEET_ANSWERS).values(**ids, **values))
                elif at <= one.at:
                    connection.execute(update(FLEET_ANSWERS).where(which).values(values))

    def answers(self, block_ids: Sequence[str]) -> Sequence[HostAnswer]:
        """What hosts made of these."""
        with self._state.reading() as connection:
            rows = connection.execute(select(FLEET_ANSWERS).where(FLEET_ANSWERS.c.block_id.in_(block_ids)))
            return [HostAnswer(row.block_id, row.host_id, row.at, row.state, row.reason) for row in rows]

    def forget(self, before: int) -> None:
        """Let go of those that ended before then; the last change stays, for its number."""
        with self._state.writing() as connection:
            gone = and_(FLEET_BLOCKS.c.expires_at < before, FLEET_BLOCKS.c.change < _last_change(connection))
            ids = list(connection.execute(select(FLEET_BLOCKS.c.id).where(gone).limit(1000)).scalars())
            connection.execute(delete(FLEET_ANSWERS).where(FLEET_ANSWERS.c.block_id.in_(ids)))
            connection.execute(delete(FLEET_BLOCKS).where(FLEET_BLOCKS.c.id.in_(ids)))


def _in_force(connection: Connection, now: int) -> list[FleetBlock]:
    which = and_(FLEET_BLOCKS.c.state.in_(_IN_FORCE), FLEET_BLOCKS.c.expires_at > now)
    bodies = connection.execute(select(FLEET_BLOCKS.c.body).where(which).order_by(FLEET_BLOCKS.c.id)).scalars()
    return [_DECODER.decode(body) for body in bodies]


def _harm(connection: Connection, block: FleetBlock) -> str:
    of = and_(
        FLEET_ANSWERS.c.block_id == block.id,
        FLEET_ANSWERS.c.host_id.in_(block.canaries),
        FLEET_ANSWERS.c.state == "refused",
        FLEET_ANSWERS.c.reason.in_(HARM),
    )
    found = connection.execute(select(FLEET_ANSWERS).where(of).order_by(FLEET_ANSWERS.c.at).limit(1)).one_or_none()
    return "" if found is None else f"{RETURNED}{found.host_id}:{found.reason}"


def _last_change(connection: Connection) -> int:
    return int(connection.execute(select(func.max(FLEET_BLOCKS.c.change))).scalar() or 0)


def _save(connection: Connection, block: FleetBlock) -> FleetBlock:
    block = replace(block, change=_last_change(connection) + 1)
    values = {
        "target": block.target,
        "state": block.state.value,
        "change": block.change,
        "expires_at": block.expires_at,
        "body": msgspec.json.encode(block).decode(),
    }
    changed = connection.execute(update(FLEET_BLOCKS).where(FLEET_BLOCKS.c.id == block.id).values(values))
    if not changed.rowcount:
        connection.execute(insert(FLEET_BLOCKS).values(id=block.id, **values))
    return block

"""Which hosts cosign the ledger's heads, by which key, and the last head each of them cosigned.
Counterpart: `app.hub_control` notes it, `vedette fleet witnesses` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import delete, insert, select

from vedette.store.state import State
from vedette.store.tables import WITNESSES


@dataclass(frozen=True, slots=True)
class Seen:
    """key: verifier key as text; size: leaves of the last head it cosigned; at: microseconds."""

    key: str
    size: int
    at: int


_DECODER = msgspec.json.Decoder(Seen)


class Witnesses:
    """The witnesses of a hub's state. StateError where the disk refuses."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, host_id: str) -> Seen | None:
        """What is known of this one."""
        with self._state.reading() as connection:
            body = connection.execute(select(WITNESSES.c.body).where(WITNESSES.c.host_id == host_id)).scalar()
            return None if body is None else _DECODER.decode(body)

    def save(self, host_id: str, seen: Seen) -> None:
        """Note it in place of what was there."""
        body = msgspec.json.encode(seen).decode()
        with self._state.writing() as connection:
            connection.execute(delete(WITNESSES).where(WITNESSES.c.host_id == host_id))
            connection.execute(insert(WITNESSES).values(host_id=host_id, body=body))

    def all(self) -> Mapping[str, Seen]:
        """Host id -> what is known of it."""
        with self._state.reading() as connection:
            rows = connection.execute(select(WITNESSES.c.host_id, WITNESSES.c.body)).all()
            return {row.host_id: _DECODER.decode(row.body) for row in rows}

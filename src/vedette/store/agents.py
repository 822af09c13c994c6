"""Agents and join tokens in the state: who is in the fleet, and what lets others in.
Counterpart: `model.fleet.Roll`; `fleet.enrolment` asks it, the command line changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from vedette.model.errors import StateError
from vedette.model.fleet import Agent, AgentState, EnrolReason, Joining, JoinToken, Sighting
from vedette.store.state import State
from vedette.store.tables import AGENTS, JOIN_TOKENS

_AGENT = msgspec.json.Decoder(Agent)
_TOKEN = msgspec.json.Decoder(JoinToken)


class Agents:
    """`model.fleet.Roll` on the state, and what a person does to it."""

    def __init__(self, state: State) -> None:
        self._state = state

    # ---------------------------------------------------------------- joining
    def join(self, joining: Joining, *, enrolment: str, now: int) -> tuple[EnrolReason, Agent | None]:
        """Use the token up by one and take the host in, in one transaction; None where it is refused."""
        with self._state.writing() as connection:
            token = _token_of(connection, joining.digest)
            if token is None:
                return EnrolReason.UNKNOWN_TOKEN, None
            known = _agent_of(connection, joining.host_id)
            if known is not None and known.state is AgentState.REVOKED:
                return EnrolReason.REVOKED, None
            if known is not None and known.state is AgentState.ACTIVE:
                same = known.key_hash == joining.key_hash and known.token == token.id
                return (EnrolReason.REPEATED, known) if same else (EnrolReason.HOST_ID_TAKEN, None)
            if token.expires_at <= now:
                return EnrolReason.TOKEN_ENDED, None
            if token.uses_left < 1:
                return EnrolReason.TOKEN_USED_UP, None
            agent = Agent(
                joining.host_id,
                joining.name,
                token.group,
                AgentState.ACTIVE,
                enrolment,
                serial="",
                key_hash=joining.key_hash,
                enrolled_at=now,
                expires_at=0,
                token=token.id,
                changed_at=now,
            )
            _save_token(connection, replace(token, uses_left=token.uses_left - 1))
            _save_agent(connection, agent)
            return EnrolReason.ENROLLED, agent

    def certified(self, host_id: str, *, enrolment: str, serial: str, key_hash: str, expires_at: int) -> bool:
        """Note the newest certificate; False where this enrolment is not active any more."""
        with self._state.writing() as connection:
            agent = _agent_of(connection, host_id)
            if agent is None or agent.state is not AgentState.ACTIVE or agent.enrolment != enrolment:
                return False
            _save_agent(connection, replace(agent, serial=serial, key_hash=key_hash, expires_at=expires_at))
            return True

    # ---------------------------------------------------------------- who is there
    def agent(self, host_id: str) -> Agent | None:
        """The agent of this host id."""
        with self._state.reading() as connection:
            return _agent_of(connection, host_id)

    def agents(self) -> Sequence[Agent]:
        """Every agent there is or was, by name and host id."""
        with self._state.reading() as connection:
            statement = select(AGENTS.c.body).order_by(AGENTS.c.name, AGENTS.c.host_id)
            return [_AGENT.decode(body) for body in connection.execute(statement).scalars()]

    def find(self, named: str) -> Agent:
        """The agent with this host id or name, or the only one whose id begins so. StateError where there is none."""
        found = [agent for agent in self.agents() if named in (agent.host_id, agent.name)]
        if not found and len(named) >= 4:
            found = [agent for agent in self.agents() if agent.host_id.startswith(named)]
        if len(found) == 1:
            return found[0]
        if found:
            raise StateError(f"{len(found)} agents are called {named!r}", hint="give the host id")
        raise StateError(f"no agent is called {named!r}", hint="`vedette fleet list` names them")

    def saw(self, seen: Mapping[str, Sighting]) -> None:
        """Note what agents last said; of hosts nobody knows nothing is kept."""
        with self._state.writing() as connection:
            for host_id, sighting in seen.items():
                agent = _agent_of(connection, host_id)
                if agent is not None and agent.seen.at <= sighting.at:
                    _save_agent(connection, replace(agent, seen=sighting))

    def change(self, host_id: str, state: AgentState, *, by: str, note: str, now: int) -> Agent | None:
        """Retire or revoke an agent; as it is then, None where it already was so. StateError where there is none.

        A revoked one stays revoked.
        """
        with self._state.writing() as connection:
            agent = _agent_of(connection, host_id)
            if agent is None:
                raise StateError(f"no agent has the host id {host_id}", hint="`vedette fleet list` names them")
            if agent.state in (state, AgentState.REVOKED):
                return None
            changed = replace(agent, state=state, changed_at=now, changed_by=by, note=note)
            _save_agent(connection, changed)
            return changed

    # ---------------------------------------------------------------- tokens
    def add_token(self, token: JoinToken) -> None:
        """Keep a new token."""
        with self._state.writing() as connection:
            _save_token(connection, token)

    def tokens(self) -> Sequence[JoinToken]:
        """Every token, the one that ends first in front."""
        with self._state.reading() as connection:
            statement = select(JOIN_TOKENS.c.body).order_by(JOIN_TOKENS.c.expires_at, JOIN_TOKENS.c.id)
            return [_TOKEN.decode(body) for body in connection.execute(statement).scalars()]

    def remove_token(self, token_id: str) -> bool:
        """Take a token back; whether it was there."""
        with self._state.writing() as connection:
            return connection.execute(delete(JOIN_TOKENS).where(JOIN_TOKENS.c.id == token_id)).rowcount > 0

    def forget_tokens(self, before: int) -> int:
        """Delete tokens that ended before then (microseconds); how many."""
        with self._state.writing() as connection:
            return connection.execute(delete(JOIN_TOKENS).where(JOIN_TOKENS.c.expires_at < before)).rowcount


def _agent_of(connection: Connection, host_id: str) -> Agent | None:
    body = connection.execute(select(AGENTS.c.body).where(AGENTS.c.host_id == host_id)).scalar()
    return None if body is None else _AGENT.decode(body)


def _token_of(connection: Connection, digest: str) -> JoinToken | None:
    body = connection.execute(select(JOIN_TOKENS.c.body).where(JOIN_TOKENS.c.id == digest[:32])).scalar()
    token = None if body is None else _TOKEN.decode(body)
    return token if token is not None and token.digest == digest else None


def _save_agent(connection: Connection, agent: Agent) -> None:
    values = {
        "name": agent.name,
        "group_name": agent.group,
        "state": agent.state.value,
        "serial": agent.serial,
        "enrolled_at": agent.enrolled_at,
        "body": msgspec.json.encode(agent).decode(),
    }
    changed = connection.execute(update(AGENTS).where(AGENTS.c.host_id == agent.host_id).values(values))
    if not changed.rowcount:
        connection.execute(insert(AGENTS).values(host_id=agent.host_id, **values))


def _save_token(connection: Connection, token: JoinToken) -> None:
    values = {
        "group_name": token.group,
        "uses_left": token.uses_left,
        "expires_at": token.expires_at,
        "body": msgspec.json.encode(token).decode(),
    }
    changed = connection.execute(update(JOIN_TOKENS).where(JOIN_TOKENS.c.id == token.id).values(values))
    if not changed.rowcount:
        connection.execute(insert(JOIN_TOKENS).values(id=token.id, **values))

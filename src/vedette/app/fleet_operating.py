"""What a person does to the fleet: tokens, and who belongs to it; each verb one transaction on the hub's state.
Counterpart: `fleet.membership` in a running hub notices the foreign commit and tells the broker; `cli.fleet` prints."""

from __future__ import annotations

from pathlib import Path

from vedette.app.operating import Operating
from vedette.fleet.authority import Authority
from vedette.fleet.enrolment import new_token
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.model.fleet import Agent, AgentState, JoinToken
from vedette.store.agents import Agents

AUTHORITY_FOLDER, BROKER_FOLDER = "authority", "broker"
"""Folders of the hub's data folder: what must be kept safe, and what may be lost."""
_KEPT_TOKENS = 30 * 86_400_000_000


def authority_of(folder: Path) -> Authority:
    """The fleet's authority of a hub's data folder, made at first."""
    return Authority.open(folder / AUTHORITY_FOLDER, SystemClock())


class FleetOperating:
    """A person at the fleet of one hub. VedetteError says why something was not done."""

    def __init__(self, at: Operating) -> None:
        self._at = at
        self._agents = Agents(at.state)

    def agents(self, state: AgentState | None = None) -> list[Agent]:
        """Who belongs to it, by name; of one state, or all."""
        return [agent for agent in self._agents.agents() if state is None or agent.state is state]

    def make_token(self, group: str, uses: int, life: int) -> tuple[str, JoinToken]:
        """A new join token: its text, shown this once, and what is kept. life: microseconds."""
        now = self._at.now()
        text, token = new_token(
            authority_of(self._at.folder).fingerprint,
            group,
            uses=uses,
            expires_at=now + life,
            by=self._at.operator,
            now=now,
        )
        self._agents.forget_tokens(now - _KEPT_TOKENS)
        self._agents.add_token(token)
        return text, token

    def tokens(self) -> list[JoinToken]:
        """Every token that is kept, without its secret."""
        return list(self._agents.tokens())

    def remove_token(self, named: str) -> JoinToken:
        """Take a token back, by its id or the beginning of it."""
        found = [token for token in self._agents.tokens() if named and token.id.startswith(named)]
        if len(found) != 1:
            what = f"{len(found)} tokens begin" if found else "no token begins"
            raise VedetteError(f"{what} with {named!r}", hint="`vedette fleet tokens` names them")
        self._agents.remove_token(found[0].id)
        return found[0]

    def retire(self, named: str, note: str) -> Agent:
        """The host is gone on purpose; nobody is told that it is absent, and it may enrol again."""
        return self._change(named, AgentState.RETIRED, note)

    def revoke(self, named: str, note: str) -> Agent:
        """Its identity is believed no more: a running hub cuts it at once, and it may never enrol again."""
        return self._change(named, AgentState.REVOKED, note)

    def _change(self, named: str, state: AgentState, note: str) -> Agent:
        agent = self._agents.find(named)
        changed = self._agents.change(agent.host_id, state, by=self._at.operator, note=note, now=self._at.now())
        if changed is None:
            raise VedetteError(f"{agent.name} is {agent.state.value} already")
        return changed

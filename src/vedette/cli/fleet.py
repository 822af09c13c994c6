"""`vedette fleet list|bundle|token|tokens|forget|retire|revoke|coverage|witnesses`: who belongs to the fleet.
Counterpart: `app.fleet_operating` carries the verbs out on the state that a running hub shares."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vedette.cli.fleet_bundle import app as bundle
from vedette.cli.fleet_coverage import coverage
from vedette.cli.options import Config, Data, Output, duration
from vedette.cli.output import Format, note, say, table, write_json
from vedette.cli.state import operator
from vedette.model.errors import VedetteError
from vedette.model.fleet import Agent, AgentState, JoinToken
from vedette.text.escape import terminal
from vedette.text.times import duration_text, rfc3339

app = typer.Typer(
    help="The fleet: list, bundle, token, tokens, forget, retire, revoke, coverage, witnesses.", no_args_is_help=True
)
app.command("coverage")(coverage)
app.add_typer(bundle, name="bundle")

Host = Annotated[str, typer.Argument(help="host name, host id, or the beginning of one that no other has")]
Words = Annotated[str, typer.Option("--note", help="words to keep with it")]


@app.command("list")
def list_agents(
    state: Annotated[str, typer.Option("--state", help="active, retired, revoked; all")] = "active",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Hosts of the fleet: group, state, when last heard of, version, rules in force."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data) as at:
        found, now = FleetOperating(at).agents(_state(state)), at.now()
        if output is Format.JSON:
            write_json(_agent_record(agent) for agent in found)
            return
        table(
            ("HOST", "ID", "GROUP", "STATE", "LAST SEEN", "VERSION", "BUNDLE"),
            [
                (
                    agent.name,
                    agent.host_id,
                    agent.group,
                    agent.state.value,
                    f"{duration_text(max(now - agent.seen.at, 0))} ago" if agent.seen.at else "never",
                    agent.seen.version or "-",
                    agent.seen.bundle or "-",
                )
                for agent in found
            ],
        )


@app.command("token")
def make_token(
    group: Annotated[str, typer.Option("--group", help="the group hosts join")] = "default",
    uses: Annotated[int, typer.Option("--uses", min=1, max=100_000, help="how many hosts may join by it")] = 1,
    life: Annotated[str, typer.Option("--for", help="how long it lets hosts join")] = "1h",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Make a join token; its text is shown this once, and given to `vedette enrol` on the host."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data, create=True) as at:
        text, token = FleetOperating(at).make_token(group, uses, duration(life, "--for"))
        if output is Format.JSON:
            write_json([{"token": text, **_token_record(token)}])
            return
        say(text)
        hosts = "one host" if uses == 1 else f"{uses} hosts"
        note(f"lets {hosts} join group {group} until {rfc3339(token.expires_at)}; it is not shown again")


@app.command("tokens")
def list_tokens(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Join tokens there are, without what makes them work."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data) as at:
        found = FleetOperating(at).tokens()
        if output is Format.JSON:
            write_json(_token_record(token) for token in found)
            return
        rows = [
            (
                token.id[:12],
                token.group,
                f"{token.uses_left} of {token.uses}",
                rfc3339(token.expires_at),
                token.created_by,
            )
            for token in found
        ]
        table(("TOKEN", "GROUP", "LEFT", "ENDS", "BY"), rows)


@app.command("forget")
def forget_token(
    token: Annotated[str, typer.Argument(help="id of the token, or the beginning of it")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Take a join token back: nobody joins by it any more."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data) as at:
        gone = FleetOperating(at).remove_token(token)
        say(f"taken back: {gone.id[:12]}, {gone.uses_left} of {gone.uses} left")


@app.command("retire")
def retire(host: Host, words: Words = "", config: Config = None, data: Data = None) -> None:
    """The host is gone on purpose: nobody is told that it is absent."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data) as at:
        gone = FleetOperating(at).retire(host, words)
        say(terminal(f"retired: {gone.name} ({gone.host_id})"))


@app.command("revoke")
def revoke(host: Host, words: Words = "", config: Config = None, data: Data = None) -> None:
    """Believe this host no more: it is cut off at once, and its host id may never enrol again."""
    from vedette.app.fleet_operating import FleetOperating

    with operator(config, data) as at:
        gone = FleetOperating(at).revoke(host, words)
        say(terminal(f"revoked: {gone.name} ({gone.host_id})"))


@app.command("witnesses")
def list_witnesses(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Hosts that cosign the ledger's heads: key, last head. The key is what `ledger verify --witness` takes."""
    from vedette.store.agents import Agents
    from vedette.store.witnesses import Witnesses

    with operator(config, data) as at:
        names = {agent.host_id: agent.name for agent in Agents(at.state).agents()}
        found = sorted(Witnesses(at.state).all().items(), key=lambda one: (names.get(one[0], ""), one[0]))
        if output is Format.JSON:
            write_json(
                {
                    "host.id": host_id,
                    "host.name": names.get(host_id),
                    "key": seen.key,
                    "size": seen.size,
                    "at": rfc3339(seen.at),
                }
                for host_id, seen in found
            )
            return
        rows = [
            (names.get(host_id, host_id), seen.size, rfc3339(seen.at)[:19] + "Z", seen.key) for host_id, seen in found
        ]
        table(("HOST", "LEAVES", "COSIGNED", "KEY"), rows)


def _state(text: str) -> AgentState | None:
    if text == "all":
        return None
    try:
        return AgentState(text)
    except ValueError:
        raise VedetteError(f"--state: {text!r} is none of active, retired, revoked, all") from None


def _agent_record(agent: Agent) -> dict[str, Any]:
    return {
        "host.id": agent.host_id,
        "host.name": agent.name,
        "group": agent.group,
        "state": agent.state.value,
        "enrolled": rfc3339(agent.enrolled_at),
        "certificate_ends": rfc3339(agent.expires_at),
        "last_seen": rfc3339(agent.seen.at) if agent.seen.at else None,
        "agent.version": agent.seen.version or None,
        "bundle": agent.seen.bundle or None,
        "changed": rfc3339(agent.changed_at),
        "changed_by": agent.changed_by or None,
        "note": agent.note or None,
    }


def _token_record(token: JoinToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "group": token.group,
        "uses": token.uses,
        "uses_left": token.uses_left,
        "created": rfc3339(token.created_at),
        "ends": rfc3339(token.expires_at),
        "created_by": token.created_by or None,
    }

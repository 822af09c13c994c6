"""`vedette operators`: who may look and change, their roles, and tokens for programs.
Counterpart: `app.operators` carries the verbs out; docs/operators.md says how to begin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from vedette.cli.hub import needs_hub
from vedette.cli.options import Config, Data, Output, duration
from vedette.cli.output import Format, errors_said, note, say, table, write_json
from vedette.cli.state import settings_of
from vedette.model.clock import SystemClock
from vedette.model.operators import Role
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.app.operators import Desk, Secrets

app = typer.Typer(cls=TyperGroup, help="Operators: add, list, role, reset, remove, token.", no_args_is_help=True)
tokens = typer.Typer(cls=TyperGroup, help="Tokens for programs: add, list, revoke.", no_args_is_help=True)
app.add_typer(tokens, name="token")

Name = Annotated[str, typer.Argument(help="the operator")]
RoleOption = Annotated[Role, typer.Option("--role", help="viewer, responder, rule-author or admin")]


@contextmanager
def _desk(config: Config, data: Data, *, create: bool = False) -> Iterator[Desk]:
    with errors_said():
        needs_hub()
        from vedette.app.host import operator_name
        from vedette.app.operators import desk

        with desk(settings_of(config, data), SystemClock(), who=operator_name(), create=create) as at:
            yield at


@app.command("add")
def add(name: Name, role: RoleOption, config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Take somebody in; their password and the secret of their codes are shown this once."""
    with _desk(config, data, create=True) as at:
        _shown(name, at.add(name, role, root=os.geteuid() == 0), output)


@app.command("reset")
def reset(name: Name, config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """A new password and a new secret of codes, shown this once; sessions end."""
    with _desk(config, data) as at:
        _shown(name, at.reset(name), output)


@app.command("list")
def list_operators(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Who there is."""
    with _desk(config, data) as at:
        found = at.operators.operators()
    if output is Format.JSON:
        write_json(
            {
                "name": one.name,
                "role": one.role.value,
                "created": rfc3339(one.created_at),
                "created_by": one.created_by,
                "last_login": rfc3339(one.last_login) if one.last_login else None,
            }
            for one in found
        )
        return
    rows = [(one.name, one.role.value, one.created_by, _time(one.last_login)) for one in found]
    table(("NAME", "ROLE", "MADE BY", "LAST LOGIN"), rows)


@app.command("role")
def change_role(
    name: Name,
    role: Annotated[Role, typer.Argument(help="viewer, responder, rule-author or admin")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Another role for somebody, from their next command on."""
    with _desk(config, data) as at:
        before = at.change_role(name, role)
        say(f"{name} is {role.value}, before {before.value}")


@app.command("remove")
def remove(name: Name, config: Config = None, data: Data = None) -> None:
    """Let somebody go, with every session and token, at once."""
    with _desk(config, data) as at:
        at.remove(name)
        say(f"{name} is no operator any more")


@tokens.command("add")
def add_token(
    operator: Annotated[str, typer.Argument(help="in whose name the program acts")],
    name: Annotated[str, typer.Argument(help="what it is for")],
    role: RoleOption = Role.VIEWER,
    lasts: Annotated[str, typer.Option("--for", help="how long it counts")] = "90d",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """A token for a program, shown this once; it goes into $VEDETTE_TOKEN."""
    with _desk(config, data) as at:
        token, kept = at.add_token(operator, name, role, duration(lasts, "--for"))
        if output is Format.JSON:
            write_json([{"id": kept.id, "token": token, "expires": rfc3339(kept.expires_at)}])
            return
        say(token)
        note(f"token {kept.id}, {role.value} at most, until {_time(kept.expires_at)}; it is not shown again")


@tokens.command("list")
def list_tokens(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """The tokens of programs, the one that ends first in front."""
    with _desk(config, data) as at:
        found = at.operators.tokens()
    if output is Format.JSON:
        write_json(
            {
                "id": one.id,
                "operator": one.operator,
                "name": one.name,
                "role": one.role.value,
                "expires": rfc3339(one.expires_at),
            }
            for one in found
        )
        return
    rows = [(one.id, one.operator, one.name, one.role.value, _time(one.expires_at)) for one in found]
    table(("TOKEN", "OPERATOR", "NAME", "ROLE", "UNTIL"), rows)


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="its id, as `vedette operators token list` says")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Take a token back; it counts no more from now on."""
    with _desk(config, data) as at:
        kept = at.revoke_token(token_id)
        say(f"the token {kept.name} of {kept.operator} counts no more")


def _shown(name: str, made: Secrets, output: Format) -> None:
    if output is Format.JSON:
        write_json([{"name": name, "password": made.password, "totp": made.totp, "uri": made.uri}])
        return
    say(f"password     {made.password}")
    say(f"codes        {made.totp}")
    say(f"as a link    {made.uri}")
    note(f"none of this is shown again; `vedette login {name} --new-password` chooses another password")


def _time(at: int) -> str:
    return f"{rfc3339(at)[:19]}Z" if at else "never"

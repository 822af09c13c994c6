"""`vedette login` and `vedette logout`: a session of this account, by password and code.
Counterpart: `app.operators` lets in; `cli.admission` keeps the session and shows it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vedette.cli.admission import keep_session, kept_session, session_file
from vedette.cli.options import Config, Data
from vedette.cli.output import errors_said, note, say
from vedette.cli.state import settings_of
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.text.times import rfc3339


def login(
    name: Annotated[str, typer.Argument(help="the operator")],
    new_password: Annotated[bool, typer.Option("--new-password", help="and choose another password")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """Log in as an operator, with password and code; the session holds for this account."""
    with errors_said():
        from vedette.app.host import account_name
        from vedette.app.operators import desk

        with desk(settings_of(config, data), SystemClock(), who=name) as at:
            if not at.operators.any():
                raise VedetteError(
                    "nobody has to log in here: there are no operators",
                    hint="root makes the first one: `vedette operators add NAME --role admin`",
                )
            password, place = _asked("Password"), f"local:{account_name()}"
            token, kept = at.log_in(name, password, _asked("Code"), place)
            if new_password:
                chosen = _asked("New password")
                if _asked("The same again") != chosen:
                    raise VedetteError("these are two different passwords", hint="nothing was changed")
                at.set_password(name, chosen, keep=kept.id)
            path = keep_session(token)
        say(f"{name} is logged in as {kept.role.value} until {rfc3339(kept.expires_at)[:19]}Z")
        note(f"the session is in {path}; `vedette logout` ends it")


def logout(config: Config = None, data: Data = None) -> None:
    """End the session of this account."""
    with errors_said():
        from vedette.app.operators import desk

        token = kept_session()
        if not token:
            raise VedetteError("nobody is logged in from this account")
        session_file().unlink(missing_ok=True)
        with desk(settings_of(config, data), SystemClock()) as at:
            at.log_out(token)
        say("logged out")


def _asked(what: str) -> str:
    if not sys.stdin.isatty():
        given = sys.stdin.readline().rstrip("\r\n")
    else:
        try:
            given = typer.prompt(what, hide_input=True, err=True)
        except typer.Abort:
            given = ""
    if not given:
        raise VedetteError(f"{what}: nothing was given", hint="programs use a token in $VEDETTE_TOKEN")
    return given

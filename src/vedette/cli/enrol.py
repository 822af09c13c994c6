"""`vedette enrol`: this host joins the fleet of a hub.
Counterpart: `fleet.enrolment` does it; a hub's `vedette fleet token` made the token."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Annotated

import typer

from vedette.cli.options import Config, Data
from vedette.cli.output import errors_said, note, say
from vedette.cli.state import settings_of
from vedette.model.errors import VedetteError
from vedette.text.escape import terminal
from vedette.text.times import rfc3339

_ENV = "VEDETTE_JOIN_TOKEN"


def enrol(
    hub: Annotated[str, typer.Argument(help="https://HOST:PORT of the hub")],
    token: Annotated[str, typer.Argument(help=f"the join token; - reads it from standard input; none: ${_ENV}")] = "",
    name: Annotated[str, typer.Option("--name", help="what people call this host; default: its host name")] = "",
    again: Annotated[bool, typer.Option("--again", help="also where this host belongs to a fleet already")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """Join the fleet of a hub by a join token; its key is made here and stays here."""
    with errors_said():
        from vedette.app.host import host_id, prepare_folder
        from vedette.fleet.enrolment import Membership
        from vedette.fleet.enrolment import enrol as join

        settings = settings_of(config, data)
        folder = prepare_folder(settings.data_folder(), settings.user if os.geteuid() == 0 else "")
        if not again and (known := Membership.load(folder)) is not None:
            raise VedetteError(
                f"this host belongs to a fleet already (host id {known.host_id})", hint="--again enrols it anew"
            )
        given = sys.stdin.readline(4096) if token == "-" else token or os.environ.get(_ENV, "")
        member = asyncio.run(join(hub, given, folder, host_id=host_id(folder), name=name or socket.gethostname()))
        say(f"enrolled: host id {member.host_id}")
        say(f"ships to: {terminal(' '.join(member.urls))}")
        note(f"certificate until {rfc3339(member.certificate.expires_at)}, renewed by itself before that")

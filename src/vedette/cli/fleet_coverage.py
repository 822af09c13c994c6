"""`vedette fleet coverage`: which minutes of which host are not covered, and why.
Counterpart: `app.coverage` finds it out; search results say the same in one line."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import FOUND, Format, note, say, table, write_json
from vedette.cli.searching import lake_folder, moment, opened
from vedette.cli.state import operator
from vedette.model.errors import VedetteError
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vedette.model.coverage import Gap

Named = Annotated[list[str] | None, typer.Argument(help="host names or host ids; none: all")]


def coverage(
    hosts: Named = None,
    since: Annotated[str, typer.Option("--since", help="a time, or how long ago")] = "24h",
    until: Annotated[str, typer.Option("--until", help="a time, or how long ago; none: now")] = "",
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Which minutes of which host are not covered, and why; ends with 1 where there are some."""
    with operator(config, data) as at:
        from vedette.app.coverage import statement
        from vedette.app.fleet_operating import FleetOperating

        now, hub = at.now(), at.host_id()
        begin = moment(since, "--since", now)
        end = moment(until, "--until", now) if until else now
        if begin >= end:
            raise VedetteError(f"nothing lies between {rfc3339(begin)} and {rfc3339(end)}", hint="--since, --until")
        names = {hub: socket.gethostname(), **{agent.host_id: agent.name for agent in FleetOperating(at).agents()}}
        with opened(lake_folder(config, data)) as lake:
            known = {*names, *(host_id for host_id, _ in lake.stored())}
            wanted = {_host(named, names, known) for named in hosts or ()}
            found = statement(lake, wanted, begin, end, now, hub=hub, names=names)
        if output is Format.JSON:
            write_json(_record(gap) for gap in found.gaps)
        elif found.complete:
            say("complete")
        else:
            table(
                ("HOST", "SINCE", "UNTIL", "MINUTES", "WHY", "STREAM", "DETAIL"),
                [
                    (
                        gap.host_name or gap.host_id,
                        rfc3339(gap.since)[:19],
                        rfc3339(gap.until)[:19],
                        gap.minutes,
                        gap.reason.value.replace("-", " "),
                        gap.stream or "-",
                        gap.detail or "-",
                    )
                    for gap in found.gaps
                ],
            )
        for words in found.words:
            note(words)
        if not found.complete:
            raise typer.Exit(FOUND)


def _host(named: str, names: Mapping[str, str], known: set[str]) -> str:
    """The host id of a name or an id, or of the beginning of one."""
    found = {one for one in known if named and (names.get(one) == named or one == named)}
    found = found or {one for one in known if named and one.startswith(named)}
    if len(found) != 1:
        what = f"{len(found)} hosts are called" if found else "no host is called"
        raise VedetteError(f"{what} {named!r}", hint="`vedette fleet list` names them")
    return found.pop()


def _record(gap: Gap) -> dict[str, Any]:
    return {
        "host.id": gap.host_id,
        "host.name": gap.host_name or None,
        "since": rfc3339(gap.since),
        "until": rfc3339(gap.until),
        "minutes": gap.minutes,
        "reason": gap.reason.value,
        "stream": gap.stream or None,
        "detail": gap.detail or None,
    }

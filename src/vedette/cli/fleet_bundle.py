"""`vedette fleet bundle build|list|show|stage|promote|return`: rules and policy on their way to agents.
Counterpart: `app.bundling` carries it out; a running hub tells its agents within a moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import Format, note, say, table, write_json
from vedette.cli.state import operator, settings_of
from vedette.text.escape import terminal
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from vedette.store.bundles import Bundle

app = typer.Typer(help="Bundles of rules and policy: build, list, show, stage, promote, return.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(min=1, help="number of the bundle")]


@app.command("build")
def build(
    policy: Annotated[
        Path | None, typer.Option("--policy", help="configuration file whose rules and policy go in; none: this hub's")
    ] = None,
    words: Annotated[str, typer.Option("--note", help="words to keep with it")] = "",
    vantage: Annotated[
        list[str] | None,
        typer.Option("--vantage", help="HOST=VANTAGE that looks by the port policy; may be given several times"),
    ] = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Make a bundle of a configuration: rules, packs, steps, `respond:`, allowlist, floor. Nobody takes it yet."""
    from vedette.app.bundling import BundleOperating

    with operator(config, data) as at:
        given = at.settings if policy is None else settings_of(policy, at.folder)
        made = BundleOperating(at).build(given, words, vantage or [])
        if output is Format.JSON:
            write_json([_record(made)])
            return
        say(f"built: bundle {made.number}   {made.digest[:16]}")
        note(f"`vedette fleet bundle stage {made.number} --host NAME` tries it on named hosts")


@app.command("list")
def list_bundles(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Bundles there are, and how far each has come."""
    from vedette.app.bundling import BundleOperating

    with operator(config, data) as at:
        found = BundleOperating(at).bundles()
        if output is Format.JSON:
            write_json(_record(one) for one in found)
            return
        rows = [
            (one.number, one.state.value, rfc3339(one.created_at)[:19] + "Z", one.created_by, one.ended or one.note)
            for one in found
        ]
        table(("BUNDLE", "STATE", "BUILT", "BY", "NOTE"), rows)


@app.command("show")
def show(number: Number, config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """A bundle: what is in it, who was told to take it, who runs by it."""
    from vedette.app.bundling import BundleOperating
    from vedette.fleet.bundles import unpacked

    with operator(config, data) as at:
        bundle, content, running = BundleOperating(at).show(number)
        inside = unpacked(content)
        if output is Format.JSON:
            hosts = [{"host.id": agent.host_id, "host.name": agent.name} for agent in running]
            write_json([{**_record(bundle), "files": sorted(inside.files), "respond": inside.respond, "hosts": hosts}])
            return
        say(f"bundle {bundle.number}   {bundle.state.value}   {bundle.digest}")
        if bundle.ended:
            say(terminal(f"taken back: {bundle.ended}"))
        for name in sorted(inside.files):
            say(terminal(f"rules      {name}"))
        for rule_id, rung in sorted(inside.respond.items()):
            say(terminal(f"respond    {rule_id}: {rung}"))
        for entry in inside.allowlist:
            say(terminal(f"allowlist  {entry.network} {entry.comment}"))
        for one in bundle.orders:
            what = "return to it" if one.returns else "take it"
            say(terminal(f"ordered    {rfc3339(one.at)[:19]}Z {one.target}: {what}, by {one.by}"))
        for agent in running:
            say(terminal(f"runs by it {agent.name} ({agent.host_id})"))


@app.command("stage")
def stage(
    number: Number,
    host: Annotated[list[str] | None, typer.Option("--host", help="name or id; may be given several times")] = None,
    group: Annotated[str, typer.Option("--group", help="all active hosts of this group")] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Have named hosts run by a bundle first; it is taken back by itself where it does harm."""
    from vedette.app.bundling import BundleOperating

    with operator(config, data) as at:
        for agent in BundleOperating(at).stage(number, host or [], group):
            say(terminal(f"staged: bundle {number} on {agent.name} ({agent.host_id})"))


@app.command("promote")
def promote(
    number: Number,
    untried: Annotated[bool, typer.Option("--untried", help="also one that was not staged")] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """Have every host run by a bundle."""
    from vedette.app.bundling import BundleOperating

    with operator(config, data) as at:
        BundleOperating(at).promote(number, untried=untried)
        say(f"promoted: bundle {number} for every host")


@app.command("return")
def take_back(
    to: Annotated[int | None, typer.Option("--to", min=0, help="number; 0: each host's own configuration")] = None,
    words: Annotated[str, typer.Option("--note", help="why")] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Take the newest bundle in force back: its hosts return to the one before, by a signed order."""
    from vedette.app.bundling import BundleOperating

    with operator(config, data) as at:
        bundle, number = BundleOperating(at).take_back(words or f"returned by {at.operator}", to)
        goes = f"bundle {number}" if number else "their own configuration"
        say(f"returned: hosts of bundle {bundle.number} go back to {goes}")


def _record(one: Bundle) -> dict[str, Any]:
    return {
        "bundle": one.number,
        "state": one.state.value,
        "built": rfc3339(one.created_at),
        "built_by": one.created_by,
        "digest": one.digest,
        "note": one.note or None,
        "before": one.before or None,
        "ended": one.ended or None,
        "orders": [
            {
                "serial": order.serial,
                "target": order.target,
                "at": rfc3339(order.at),
                "by": order.by,
                "returns": order.returns,
                "why": order.why or None,
            }
            for order in one.orders
        ],
    }

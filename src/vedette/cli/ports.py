"""`vedette ports check|learn|explain|schema`: what answers, against what policy says.
Counterpart: `app.ports` looks and judges; docs/ports.md explains the policy and the kinds of drift."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from vedette.app.inventories import Gathered, gather
from vedette.app.port_inside import inside_of
from vedette.app.ports import check_ports, here, learn_policy
from vedette.cli.options import Output
from vedette.cli.output import OK, WRONG, Format, errors_said, note, say, table, write_json
from vedette.inventory.yaml import parse_range, policy_lines, schema
from vedette.model.clock import Clock, SystemClock
from vedette.model.errors import VedetteError
from vedette.model.ports import Attention, Drift, Listener, PortPolicy, PortRange, Protocol, TargetCondition, Vantage
from vedette.sources.ports.judge import exit_code, expected
from vedette.sources.ports.listeners import story
from vedette.sources.ports.prober import Limits
from vedette.sources.ports.records import listener_fields, where
from vedette.text.addresses import canonical, contains, parse_network
from vedette.text.times import rfc3339

app = typer.Typer(help="Ports: check, learn, explain, schema.", no_args_is_help=True)

Policy = Annotated[Path, typer.Option("--policy", help="the port policy")]
From = Annotated[str, typer.Option("--vantage", help="which vantage of the policy this machine is")]
Rate = Annotated[float, typer.Option("--rate", min=0, help="connections a second; 0 = as fast as is answered")]
Keep = Annotated[
    Path | None,
    typer.Option("--keep", help="folder for what inventories said last: holds while one is down, shows what widened"),
]
Services = Annotated[bool, typer.Option("--services", help="ask open TCP ports what they are; needs nmap")]


@app.command("check")
def check(
    policy: Policy,
    vantage: From = "",
    rate: Rate = 0.0,
    services: Services = False,
    syn: Annotated[bool, typer.Option("--syn", help="half-open instead of by connecting; needs nmap and root")] = False,
    keep: Keep = None,
    output: Output = Format.TEXT,
) -> None:
    """Look at every host of the policy and its inventories. Exit 0 = as they say, 1 = drift, 2 = could not tell."""
    with errors_said():
        clock = SystemClock()
        gathered = _gathered(policy, clock, keep)
        read = gathered.policy
        if not read.hosts and not gathered.drifts:
            raise VedetteError("the policy names no host: nothing was looked at", hint="add `hosts`")
        if not read.attention.tcp and not read.attention.udp:
            raise VedetteError("the policy probes no port: nothing was looked at", hint="leave `probe` out for all TCP")
        place, limits, inside = _vantage(read, vantage), Limits(rate=rate), inside_of(read, clock)
        checked = check_ports(read, clock, vantage=place, limits=limits, inside=inside, syn=syn, services=services)
        drifts = (*gathered.drifts, *checked.drifts)
        if output is Format.JSON:
            write_json(_record(one) for one in drifts)
        else:
            for one in drifts:
                say(f"{one.level.label}: {one.host} {where(one)} {one.kind.value}: {one.advice}{_origin(one)}")
        effort = checked.effort
        note(
            f"{len(read.hosts)} hosts, {len(checked.surveys)} looks, {effort.connections} connections "
            f"in {effort.seconds:.1f} s, {len(drifts)} drifts"
        )
        # Not before all of it is said: what widened is said once.
        sys.stdout.flush()
        gathered.settle()
        raise SystemExit(exit_code(drifts))


@app.command("learn")
def learn(
    hosts: Annotated[list[str], typer.Argument(help="addresses or names of one's own")],
    own: Annotated[list[str], typer.Option("--own", help="a network that is one's own; nothing outside is looked at")],
    ports: Annotated[str, typer.Option("--ports", help="which TCP ports")] = "1-65535",
    rate: Rate = 0.0,
) -> None:
    """Write a first policy, of what is open now, for a person to edit."""
    with errors_said():
        try:
            networks = [parse_network(one) for one in own]
            span = parse_range(ports)
        except ValueError as error:
            raise VedetteError(str(error)) from None
        for one in hosts:
            if canonical(one) is not None and not contains(networks, one):
                raise VedetteError(f"{one} is outside --own: only what is one's own is looked at")
        learned = learn_policy(hosts, networks, SystemClock(), tcp=(span,), limits=Limits(rate=rate))
        for line in policy_lines(learned.policy):
            say(line)
        untold = [one for one in learned.surveys if one.condition is not TargetCondition.ANSWERS]
        for survey in untold:
            note(f"{survey.host} {survey.address}: {survey.condition.value} ({survey.rest_why.value}): nothing learned")
        raise SystemExit(WRONG if untold else OK)


@app.command("explain")
def explain(
    host: Annotated[str, typer.Argument(help="a host of the policy: its name or address")],
    port: Annotated[str, typer.Argument(help="443, or 53/udp")],
    policy: Policy,
    vantage: From = "",
    services: Services = False,
    keep: Keep = None,
    output: Output = Format.TEXT,
) -> None:
    """What policy says of one port, what is seen of it from here and inside, and what follows."""
    with errors_said():
        clock = SystemClock()
        gathered = _gathered(policy, clock, keep)
        read = gathered.policy
        found = read.host(host)
        if found is None:
            raise VedetteError(f"the policy names no host {host}", hint=", ".join(one.name for one in read.hosts[:9]))
        number, _, name = port.partition("/")
        try:
            span = parse_range(number)
            protocol = Protocol(name or "tcp")
        except ValueError as error:
            raise VedetteError(str(error)) from None
        place = _vantage(read, vantage) or here(read)
        only = (PortRange(span.first, span.first),)
        attention = Attention(only, ()) if protocol is Protocol.TCP else Attention((), only)
        found = replace(found, openings=found.covering(span.first, protocol))
        one_host = replace(read, hosts=(found,), attention=attention)
        inside = inside_of(one_host, clock)
        checked = check_ports(one_host, clock, vantage=place, inside=inside, services=services)
        read_of_it = [one for one in gathered.drifts if one.host == found.name and one.port in (0, span.first)]
        drifts = (*read_of_it, *checked.drifts)
        listeners = [
            one for view in inside for one in view.listeners if (one.port, one.protocol) == (span.first, protocol)
        ]
        records: list[dict[str, Any]] = []
        for survey in checked.surveys:
            seen = survey.observed(span.first)
            want = expected(checked.policy, found, survey, span.first, place)
            opening = want.opening or want.expired
            records.append(
                {
                    "host.name": found.name,
                    "destination.address": survey.address,
                    "destination.port": span.first,
                    "network.transport": protocol.value,
                    "vedette.ports.vantage": survey.vantage,
                    "vedette.ports.expected": want.state.value if want.state else "either",
                    "vedette.ports.seen": seen.state.value if seen else survey.rest.value,
                    "vedette.ports.why": seen.why.value if seen else survey.rest_why.value,
                    "vedette.ports.service": (seen.service if seen else "") or None,
                    "vedette.ports.sources": list(opening.sources) if opening else [],
                    "vedette.ports.owner": opening.owner if opening else None,
                    "vedette.ports.reason": opening.reason if opening else None,
                    "vedette.ports.origin": str(opening.origin) if opening else None,
                }
            )
        if output is Format.JSON:
            write_json([*records, *map(_listener_record, listeners)])
        else:
            keys = list(records[0]) if records else []
            table([key.rpartition(".")[2] for key in keys], [[str(one[key] or "") for key in keys] for one in records])
            view = inside[0] if inside else None
            for address in dict.fromkeys(one.address for one in checked.surveys):
                for line in story(view, address, span.first, protocol):
                    say(line)
            for drift in drifts:
                say(f"{drift.level.label}: {where(drift)} {drift.kind.value}: {drift.advice}{_origin(drift)}")
        raise SystemExit(exit_code(drifts))


@app.command("schema")
def print_schema() -> None:
    """The JSON Schema of the port policy, for editors."""
    with errors_said():
        for line in orjson.dumps(schema(), option=orjson.OPT_INDENT_2).decode().splitlines():
            say(line)


def _gathered(policy: Path, clock: Clock, keep: Path | None) -> Gathered:
    """The policy and its inventories; how each of these was read is noted. What widened is news until it is settled."""
    gathered = gather(policy, clock, keep, settle=False)
    for one in gathered.inventories:
        note(f"inventory {one.name}: {f'not read: {one.stale}' if one.stale else 'read'}")
        for problem in one.problems:
            note(f"inventory {one.name}: left out: {problem}")
    return gathered


def _vantage(policy: PortPolicy, name: str) -> Vantage | None:
    if not name:
        return None
    found = policy.vantage(name)
    if found is None:
        raise VedetteError(f"the policy has no vantage {name}", hint=", ".join(one.name for one in policy.vantages))
    return found


def _origin(drift: Drift) -> str:
    return f" [{drift.opening.origin}]" if drift.opening is not None else ""


def _listener_record(one: Listener) -> dict[str, Any]:
    return {
        "host.name": one.host,
        "destination.address": one.address,
        "destination.port": one.port,
        "network.transport": one.protocol.value,
        "vedette.ports.vantage": "inside",
        **listener_fields(one),
    }


def _record(drift: Drift) -> dict[str, Any]:
    opening = drift.opening
    return {
        "@timestamp": rfc3339(drift.at),
        "kind": drift.kind.value,
        "level": drift.level.label,
        "host.name": drift.host,
        "destination.address": drift.address,
        "destination.port": drift.port or None,
        "network.transport": drift.protocol.value,
        "vedette.ports.vantage": drift.vantage,
        "vedette.ports.expected": drift.expected.value if drift.expected else None,
        "vedette.ports.seen": drift.seen.value,
        "vedette.ports.why": drift.why.value,
        "vedette.ports.owner": opening.owner if opening else None,
        "vedette.ports.origin": str(opening.origin) if opening else None,
        **(listener_fields(drift.listener) if drift.listener is not None else {}),
        "advice": drift.advice,
    }

"""`vedette block list|add|remove --fleet`: blocks that the hub has its agents carry out.
Counterpart: `app.fleet_blocks` does it; `cli.block` comes here where `--fleet` is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vedette.cli.output import Format, note, say, table, write_json
from vedette.model.errors import VedetteError
from vedette.text.escape import terminal
from vedette.text.times import duration_text, rfc3339

if TYPE_CHECKING:
    from vedette.app.operating import Operating
    from vedette.store.fleet_blocks import FleetBlock, HostAnswer


def add_block(
    at: Operating,
    target: str,
    lease: int,
    reason: str,
    *,
    group: str,
    canary: int | None,
    everywhere: bool,
    output: Format,
) -> None:
    """Block on the fleet, or have what is on a few hosts go everywhere."""
    from vedette.app.fleet_blocks import FleetBlocking

    blocking = FleetBlocking(at)
    if everywhere and (widened := blocking.widen(target)):
        say(f"everywhere: {widened[0].target}")
        return
    made = blocking.add(target, lease, reason, group=group, canary=0 if everywhere else canary)
    if output is Format.JSON:
        write_json([_record(made, (), {})])
        return
    where = f"group {made.group}" if made.group else "the fleet"
    say(f"blocked on {where}: {made.target} until {rfc3339(made.expires_at)[:19]}Z   {made.id}")
    if made.canaries:
        note(f"{len(made.canaries)} hosts first, the others from {rfc3339(made.widens_at)[:19]}Z on")
    _need_hub(at)


def remove_blocks(at: Operating, targets: Sequence[str]) -> None:
    """Lift blocks of the fleet, all where none is named."""
    from vedette.app.fleet_blocks import FleetBlocking

    for target in FleetBlocking(at).lift(targets):
        say(f"lifted on the fleet: {target}")
    _need_hub(at)


def list_fleet_blocks(at: Operating, output: Format) -> None:
    """What is in force, and what each host made of it."""
    from vedette.app.fleet_blocks import FleetBlocking

    found, answers, names = FleetBlocking(at).standing()
    if output is Format.JSON:
        write_json(_record(one, answers[one.id], names) for one in found)
        return
    now = at.now()
    rows = []
    for one in found:
        left = duration_text((one.expires_at - now) // 1_000_000 * 1_000_000)
        state = f"{one.state.value} {one.group}".strip()
        rows.append((one.target, state, left, "", one.owner, one.reason))
        for answer in sorted(answers[one.id], key=lambda said: names.get(said.host_id, said.host_id)):
            name = names.get(answer.host_id, answer.host_id)
            rows.append(("", answer.state, "", terminal(name), "", answer.reason))
    table(("TARGET", "STATE", "LEFT", "HOST", "OWNER", "REASON"), rows)


def check_options(fleet: bool, given: Sequence[object]) -> None:
    """VedetteError where an option is given that means nothing without `--fleet`."""
    if not fleet and any(given):
        raise VedetteError("--group, --canary and --everywhere go with --fleet")


def _need_hub(at: Operating) -> None:
    if at.running:
        note("the running `vedette hub` tells its agents within a moment")
    else:
        note(f"no `vedette hub` runs on {at.folder}: agents are told when one does")


def _record(one: FleetBlock, answers: Sequence[HostAnswer], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "decision.id": one.id,
        "target": one.target,
        "state": one.state.value,
        "group": one.group or None,
        "owner": one.owner,
        "reason": one.reason,
        "starts_at": rfc3339(one.starts_at),
        "expires_at": rfc3339(one.expires_at),
        "canaries": list(one.canaries),
        "hosts": [
            {
                "host.id": answer.host_id,
                "host.name": names.get(answer.host_id),
                "state": answer.state,
                "reason": answer.reason or None,
                "at": rfc3339(answer.at),
            }
            for answer in answers
        ],
    }

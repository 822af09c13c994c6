"""The tables of `bench.rules` as Markdown, with what was asked for beside what was measured.
Counterpart: `bench.report` writes the rest of docs/benchmarks.md."""

from __future__ import annotations

from bench.report import table, verdict
from bench.rules import SINGLES, WORKERS, Measured, contender

SYSMON_MUST, AUDIT_MUST = 40_000, 100_000
"""Events a second through all rules."""


def rules_section(measured: Measured, load: float) -> list[str]:
    """All rules of SigmaHQ."""
    lines = [
        "## All rules of SigmaHQ",
        "",
        f"{measured.rules:,} rules (SigmaHQ's three folders and our packs). Events by `bench/events.py`, every command"
        " line distinct; the same bytes for the same seed. Wall time is that of the whole process, start-up included;"
        " `events/s after the start` takes off what a replay of ten events costs. Compiled rules and automata are kept"
        " from the run before.",
        "",
        "```sh",
        f"{contender().shown} > /dev/null",
        "```",
        "",
    ]
    rows = []
    for one in measured.replays:
        steady = one.events / max(one.wall - one.start, 1e-9)
        must = AUDIT_MUST if one.kind == "audit" else SYSMON_MUST
        rows.append(
            [
                "Linux audit" if one.kind == "audit" else f"Sysmon, {one.kind}",
                f"{one.events:,}",
                f"{one.megabytes:.0f}",
                f"{one.wall:.2f}",
                f"{one.cpu:.2f}",
                f"{one.events / one.wall:,.0f}",
                f"{steady:,.0f}",
                f"{must:,}: {verdict(one.events / one.wall >= must).lower()}",
                f"{one.largest:.0f}",
                f"{one.findings:,}",
            ]
        )
    head = ["events", "number", "MB", "wall s (median)", "CPU s", "events/s", "events/s after the start"]
    head += ["must", "largest process MiB", "findings"]
    lines += [f"{WORKERS} workers. The one-minute load average was {load:.1f} when the runs began.", ""]
    lines += table(head, rows)
    lines += [f"### One event by itself, through all rules ({SINGLES:,} of them, must: p99 under 3 ms)", ""]
    lines += table(
        ["events", "median ms", "p99 ms", "worst ms"],
        [[one.what, f"{one.middle:.2f}", f"{one.p99:.2f}", f"{one.worst:.2f}"] for one in measured.singles],
    )
    lines += ["### All rules against ten", "", "CPU microseconds a record, parsing included, one process.", ""]
    lines += table(
        ["records", "10 rules", "all rules", "times", "must"],
        [
            [one.what, f"{one.few:.2f}", f"{one.many:.2f}", f"{one.many / one.few:.2f}", must]
            for one, must in zip(measured.compared, ("1.3", "3"), strict=True)
        ],
    )
    lines += ["### Start and memory", "", "A replay of ten events, whole process.", ""]
    lines += table(
        ["compiled rules", "wall s (median)", "must", "MiB"],
        [
            ["kept" if one.kept else "not there", f"{one.wall:.2f}", "1" if one.kept else "15", f"{one.largest:.0f}"]
            for one in measured.starts
        ],
    )
    return [
        *lines,
        f"One process with all rules and every automaton made: {measured.built_mib:.0f} MiB (must: 400).",
        "",
    ]

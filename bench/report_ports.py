"""What was measured of looking at ports, as Markdown.
Counterpart: `bench.ports` gives the figures; `bench.report` joins the sections."""

from __future__ import annotations

from collections.abc import Sequence

from bench.ports import LOSS, Seen
from bench.report import table, verdict

GOAL = 2.0
"""Times nmap's wall time that a look may take."""


def ports_section(compared: Sequence[Seen], grown: Sequence[Seen], load: float) -> list[str]:
    """The prober beside nmap."""
    lines = [
        "## Looking at ports",
        "",
        "From one network namespace at another, over a veth pair: five listeners, everything else refuses, or is"
        f" dropped where the table says so. Loss: nftables drops {LOSS} % of the packets in each direction (`numgen"
        " random`), so that every tenth attempt stays without an answer. Wall time and CPU seconds are those of the"
        " whole process, start-up included. The programs ran in turns, with loss once each."
        " *Wrong* are ports whose verdict is not what there is, in the worst run. Packets are counted on the device of"
        " the one who looks.",
        "",
        "```sh",
        "nmap -sT -n -Pn -p 1-65535 -oX - ADDRESS...",
        "```",
        "",
    ]
    rows = []
    for one in compared:
        peer = next((other for other in compared if other.task is one.task and other.program != one.program), None)
        ours = one.program == "vedette" and peer is not None
        rows.append(
            [
                one.task.name,
                one.program,
                f"{one.wall:.2f}",
                f"{one.wall / peer.wall:.2f}" if ours and peer is not None else "",
                f"{one.cpu:.2f}",
                f"{one.cpu / one.task.ports * 1e6:.1f}",
                f"{one.sent:.2f} / {one.got:.2f}",
                "did not end" if one.wrong < 0 else str(one.wrong),
            ]
        )
    head = ["task", "program", "wall s (median)", "times nmap's", "CPU s", "CPU µs a port"]
    lines += table([*head, "packets a port (sent / got)", "wrong"], rows)
    times = [float(row[3]) for row in rows if row[3]]
    if times:
        lines += [
            f"Goal: within {GOAL:.0f} times nmap's wall time. {verdict(max(times) <= GOAL)} ({max(times):.2f}).",
            "",
        ]
    lines += [f"The one-minute load average was {load:.1f} when the runs began.", "", "### Cost against size", ""]
    rows = [
        [
            one.task.name,
            f"{one.task.ports:,}",
            f"{one.wall:.2f}",
            f"{one.cpu:.2f}",
            f"{one.cpu / one.task.ports * 1e6:.1f}",
        ]
        for one in grown
    ]
    return [*lines, *table(["hosts x ports", "ports", "wall s (median)", "CPU s", "CPU µs a port"], rows)]

"""`python -m bench`: run the benchmarks, print the tables as Markdown, or write them to a file.
Counterpart: `make bench` calls it; docs/benchmarks.md is what it wrote last."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.scenarios.parts import netns

from bench import ports, replay, report, report_ports, report_rules, rules, time_to_block

_ALL = ("replay", "rules", "ports", "block")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Exit 0 when everything that can run here ran; what cannot is said and left out."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Vedette and its peers here.")
    parser.add_argument("what", nargs="*", help=f"of {', '.join(_ALL)}; default: all")
    parser.add_argument("--runs", type=int, default=10, help="runs each of the attack (default 10)")
    parser.add_argument("--replays", type=int, default=5, help="runs each of replay and of a look at ports (default 5)")
    parser.add_argument("--small", action="store_true", help="without the file of 4,000,000 lines")
    parser.add_argument("--write", type=Path, help="write the tables to this file instead of printing them")
    given = parser.parse_args()
    wanted = given.what or list(_ALL)
    if unknown := set(wanted) - set(_ALL):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(_ALL)}")
    sections = []
    if "replay" in wanted:
        if not replay.sshguard():
            _say("sshguard is not installed: replay without it (make bench installs it as root)")
        load = os.getloadavg()[0]
        sections.append(report.replay_section(replay.all_of(given.replays, big=not given.small, say=_say), load))
    if "rules" in wanted and rules.folders():
        load = os.getloadavg()[0]
        measured = rules.measure(given.replays, count=20_000 if given.small else 200_000, say=_say)
        sections.append(report_rules.rules_section(measured, load))
    elif "rules" in wanted:
        _say("SigmaHQ's rules are not here (VEDETTE_CORPUS names their folder): left out")
    if "ports" in wanted:
        sections += _ports(given.replays)
    if "block" in wanted:
        sections += _block(given.runs)
    text = report.whole(sections)
    if given.write:
        given.write.write_text(text)
    else:
        print(text, end="")
    return 0


def _ports(runs: int) -> list[list[str]]:
    if (why := netns.available()) is not None:
        _say(f"looking at ports is left out: {why}")
        return []
    load = os.getloadavg()[0]
    return [report_ports.ports_section(*ports.measure(runs, _say), load)]


def _block(runs: int) -> list[list[str]]:
    if (why := netns.available()) is not None:
        _say(f"time to block is left out: {why}")
        return []
    load = os.getloadavg()[0]
    return [report.block_section(time_to_block.compare(time_to_block.setups(), runs, say=_say), load)]


if __name__ == "__main__":
    sys.exit(main())

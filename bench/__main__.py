"""`python -m bench`: run the benchmarks, print the tables as Markdown, or write them to a file.
Counterpart: `make bench` calls it; docs/benchmarks.md is what it wrote last."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.scenarios.parts import netns

from bench import (
    logging_fleet,
    logging_lake,
    logging_syslog,
    ports,
    replay,
    report,
    report_logging,
    report_ports,
    report_rules,
    rules,
    time_to_block,
)

_ALL = ("replay", "rules", "ports", "block", "logging")
_LOGGING = ("syslog", "ship", "long", "disk", "search")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Exit 0 when everything that can run here ran; what cannot is said and left out."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Vedette and its peers here.")
    parser.add_argument("what", nargs="*", help=f"of {', '.join(_ALL)}; default: all")
    parser.add_argument("--runs", type=int, default=10, help="runs each of the attack (default 10)")
    parser.add_argument("--replays", type=int, default=5, help="runs each of replay and of a look at ports (default 5)")
    parser.add_argument("--small", action="store_true", help="little of each: to see that it runs")
    parser.add_argument("--lines", type=int, default=50_000_000, help="of the lake that is searched (50,000,000)")
    parser.add_argument("--days", type=int, default=5, help="so many days these lines are of (default 5)")
    parser.add_argument("--filling", type=float, default=60, help="no further day is begun after so many minutes (60)")
    parser.add_argument("--minutes", type=float, default=10, help="of the hub with 50 agents (default 10)")
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=_LOGGING,
        default=_LOGGING,
        help=f"of logging: {', '.join(_LOGGING)} (default all)",
    )
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
    if "logging" in wanted:
        sections += _logging(given)
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


def _logging(given: argparse.Namespace) -> list[list[str]]:
    small, parts = given.small, given.parts
    sections = [report_logging.head(os.getloadavg()[0])]
    if (why := netns.available()) is not None:
        _say(f"syslog and fleet are left out: {why}")
        parts = [part for part in parts if part in ("disk", "search")]
    if "syslog" in parts:
        found = logging_syslog.measure(100_000 if small else 1_000_000, 1 if small else 3, _say)
        sections.append(report_logging.syslog_section(found))
    if "ship" in parts:
        shipped = [logging_fleet.ship(100_000 if small else 1_000_000, _say) for _ in range(1 if small else 3)]
        resting = logging_fleet.rest(1000, 10 if small else 60, _say)
        sections.append(report_logging.shipped_section(shipped, resting))
    if "long" in parts:
        sections.append(report_logging.long_section(logging_fleet.long(0.2 if small else given.minutes, _say)))
    if "disk" in parts:
        sections.append(report_logging.kept_section(logging_lake.sizes(100_000 if small else 1_000_000, _say)))
    if "search" in parts:
        lines = 480_000 if small else given.lines
        large = logging_lake.searched(lines, 2 if small else given.days, given.filling, 1 if small else 3, _say)
        sections.append(report_logging.searched_section(large))
    return sections


if __name__ == "__main__":
    sys.exit(main())

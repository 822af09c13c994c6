"""Times rules of OSSEC and Wazuh: a whole replay of the generated auth.log, and a start, in CPU seconds.
Counterpart: `bench.authlog` makes the log; the rules are the corpus's. `python -m bench.ossec [LINES]`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import authlog

ANALYSISD = 31_000
"""Lines per CPU-second of OSSEC's analysisd with its own rules over the same log."""
WANTED = 3 * ANALYSISD


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. seconds: user and system time of the process; start: of one with a single line."""

    what: str
    lines: int
    seconds: float
    start: float

    @property
    def rate(self) -> float:
        """Lines per CPU-second, the start not counted."""
        return self.lines / max(self.seconds - self.start, 0.001)


def rule_sets(corpus: Path) -> dict[str, list[Path]]:
    """What stands under `--rules`, by name."""
    return {
        "OSSEC, as its server is configured": [corpus / "ossec/etc/ossec-server.conf"],
        "Wazuh, all rules": [corpus / "wazuh" / name for name in ("rules", "decoders", "lists")],
    }


def measure(lines: int, corpus: Path) -> list[Measured]:
    """Each set of rules over so many lines, one worker; the second start, so that what is kept is there."""
    log = authlog.cached(lines)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "one.log"
        with log.open("rb") as source:
            single.write_bytes(source.readline())
        for what, paths in rule_sets(corpus).items():
            _replay(single, paths)
            start = _replay(single, paths)
            found.append(Measured(what, lines, _replay(log, paths), start))
    return found


def _replay(log: Path, rules: list[Path]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "vedette", "replay", str(log), "--no-packs", "--workers", "1", "--output", "json"]
    for path in rules:
        command += ["--rules", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(found: list[Measured]) -> list[str]:
    """The outcome as Markdown."""
    lines = ["| rules | lines | CPU s | start, CPU s | lines/CPU s | of analysisd |", "|---|---:|---:|---:|---:|---:|"]
    for one in found:
        lines.append(
            f"| {one.what} | {one.lines:,} | {one.seconds:.1f} | {one.start:.1f} | {one.rate:,.0f}"
            f" | {one.rate / ANALYSISD:.2f} |"
        )
    return lines


def main() -> None:
    """Measure and print."""
    corpus = Path(os.environ.get("VEDETTE_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "data")
    for line in table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, corpus)):
        print(line)


if __name__ == "__main__":
    main()

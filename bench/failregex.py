"""Times fail2ban's sshd filter over the generated auth.log: `vedette replay`, one process, its processor seconds.
Counterpart: `bench.authlog` makes the input; run as `python -m bench.failregex FILTER.CONF [runs]`."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench import authlog

LINES = 1_000_000
FAIL2BAN_REGEX = 36_000
"""Lines per CPU-second of fail2ban-regex 1.0.2 with the same filter, on a quiet machine."""


def seconds(log: Path, rule: Path) -> float:
    """User and system seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-m", "vedette", "replay", str(log), "--rules", str(rule), "--no-packs", "--workers", "1"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print one line of Markdown a rule file."""
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "auth.log"
        authlog.write(log, LINES)
        took = median(seconds(log, Path(sys.argv[1])) for _ in range(runs))
    rate = LINES / took
    print(f"| {Path(sys.argv[1]).name} | {took:.2f} | {rate:,.0f} | {rate / FAIL2BAN_REGEX:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

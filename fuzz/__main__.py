"""`python -m fuzz TARGET [SECONDS]`: feed one target with mutated seeds; what it must not do is kept in fuzz/found.
Counterpart: `make fuzz` runs every target; .fuzz/ keeps what was interesting for the next run."""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vedette"]):
    from fuzz.targets import TARGETS

HERE = Path(__file__).parent
HANGS_AFTER = 10
"""Seconds for one input that small."""
MEGABYTES = 2048


def main() -> None:
    """Ends by itself, with another exit code than 0 where something was found."""
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{','.join(TARGETS)}}} [SECONDS]")
    name, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 20
    target = TARGETS[name]
    kept, found = HERE.parent / ".fuzz" / name, HERE / "found" / name
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (kept / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[: target.longest])
    warnings.simplefilter("error")
    options = {
        "max_total_time": seconds,
        "timeout": HANGS_AFTER,
        "rss_limit_mb": MEGABYTES,
        "max_len": target.longest,
        "artifact_prefix": f"{found}/",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(kept)]
    atheris.Setup(arguments, target.judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

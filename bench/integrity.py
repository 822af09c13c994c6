"""Takes a tree down and checks it, with Vedette and with AIDE in turns: `python -m bench.integrity [--files N]`.
Counterpart: docs/integrity.md says what is compared; the tree is warm, and the same for both."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.scenarios.parts.processes import short_folder

_PROGRAM = Path(sys.executable).with_name("vedette")
_SIZE = 21_474
"""Bytes of a file: 100,000 of them are 2 GiB."""
_TOGETHER = 100


def make_tree(top: Path, files: int) -> None:
    """Files of one size, a hundred to a folder, no two alike."""
    filling = os.urandom(_SIZE)
    for number in range(files):
        folder = top / f"d{number // _TOGETHER:05}"
        if number % _TOGETHER == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number % _TOGETHER:03}").write_bytes(number.to_bytes(8, "big") + filling[8:])


def timed(name: str, *command: str | Path, ends: tuple[int, ...] = (0,)) -> str:
    """A row of the table: wall and CPU seconds. RuntimeError where it ended otherwise than it should."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, check=False)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode not in ends:
        raise RuntimeError(f"{name} ended with {ran.returncode}: {ran.stderr[-500:]!r}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"| {name} | {took:.1f} | {cpu:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.integrity", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    given = parser.parse_args()
    with short_folder() as folder:
        top, file, config = folder / "tree", folder / "baseline", folder / "aide.conf"
        make_tree(top, given.files)
        base = f"{folder}/aide.db"
        config.write_text(
            f"database_in=file:{base}\ndatabase_out=file:{base}\nreport_url=stdout\n"
            f"{top} p+ftype+i+n+u+g+s+m+c+acl+xattrs+caps+sha256\n"
        )
        print("| command | wall s | CPU s |\n|---|---|---|")
        trees = ("--tree", top, "--baseline", file)
        print(timed("vedette integrity init", _PROGRAM, "integrity", "init", *trees), flush=True)
        if shutil.which("aide"):
            print(timed("aide --init", "aide", "--init", "-c", config), flush=True)
        print(timed("vedette integrity check", _PROGRAM, "integrity", "check", *trees), flush=True)
        print(timed("vedette integrity check --full", _PROGRAM, "integrity", "check", "--full", *trees), flush=True)
        if shutil.which("aide"):
            print(timed("aide --check", "aide", "--check", "-c", config), flush=True)


if __name__ == "__main__":
    main()

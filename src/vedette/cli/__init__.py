"""The command line: words for people, JSON lines for programs; holds no rule of its own.
Counterpart: `app` does the work; `output` is the only way text gets to a terminal."""

from __future__ import annotations

import os


def main() -> None:
    """Entry point of the `vedette` program."""
    # Matching works on many short columns, where numpy's thread pools only cost; set before numpy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from vedette.cli.commands import run

    run()

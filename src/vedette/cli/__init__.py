"""The command line: words for people, JSON lines for programs; holds no rule of its own.
Counterpart: `app` does the work; `output` is the only way text gets to a terminal."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Entry point of the `vedette` program; Ctrl-C ends it without a word, also while it is still being loaded."""
    try:
        _main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _main() -> None:
    # Matching works on many short columns, where numpy's thread pools only cost; set before numpy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Nor is every installed package asked whether it extends pydantic: that takes longer than pydantic does.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # What is imported stays: the collector would only look through it, again and again.
    gc.disable()
    if sys.argv[1:2] == ["replay"] and "_VEDETTE_COMPLETE" not in os.environ:
        from vedette.cli.plain import plain_replay

        given = plain_replay(sys.argv[2:])
        if given is not None:
            from vedette.cli.replaying import replay_files

            replay_files(given.pop("files"), **given)
            return
    from vedette.cli.commands import run

    run()

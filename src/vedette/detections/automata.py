"""Hyperscan automata, kept between runs where making them anew would take longer than reading them.
Counterpart: `scan` and `prefilter` say what they look for; `system.kept` says which folder may be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import hyperscan

from vedette.system import kept

Written = tuple[Sequence[bytes], Sequence[int], Sequence[int]]
"""Expressions, their numbers, their flags."""

# Automata of at least so many atoms are kept between runs: compiling fewer takes no time.
_WORTH_KEEPING = 100
_KEPT_AUTOMATA = 64
_NAME, _VERSION = "vedette-automaton", 2


def automaton(write: Callable[[], Written], size: int, about: object, where: Path | None) -> hyperscan.Database:
    """The automaton of what `write` gives: the one kept in the folder `where`, else made now.

    size: how many expressions these are; about: what they depend on.
    """
    if where is None or size < _WORTH_KEEPING:
        return _compiled(*write())
    # Not by way of importlib.metadata, which takes longer to import than all automata take to be read.
    version = hyperscan.__version__  # type: ignore[attr-defined]
    name = f"{kept.key_of((), _NAME, _VERSION, version, about)}.automaton"
    head = f"{_NAME} {_VERSION}\n".encode()
    data = kept.read(name, where) or b""
    if data.startswith(head):
        # The library refuses what was made for another processor or by another version of its own.
        with suppress(hyperscan.HyperscanError, ValueError):
            database = hyperscan.loadb(data[len(head) :], hyperscan.HS_MODE_BLOCK)
            database.scratch = hyperscan.Scratch(database)
            return database
    database = _compiled(*write())
    kept.write(name, head + hyperscan.dumpb(database), where, most=_KEPT_AUTOMATA)
    return database


def _compiled(expressions: Sequence[bytes], numbers: Sequence[int], flags: Sequence[int]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=list(expressions), ids=list(numbers), flags=list(flags))
    return database

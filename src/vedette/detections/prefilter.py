"""One multi-pattern scan of a block proposes the records a keyword may be in.
Counterpart: `match` confirms each proposal on the message itself; a scan hit decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

import hyperscan
import numpy as np

from vedette.detections.predicates import like_literals
from vedette.model.batch import Batch, Int64
from vedette.model.rules import Raw

# Shorter literals hit nearly every record, so that scanning for them only costs.
_SHORTEST_ATOM = 3


def atom_of(raw: Raw) -> str:
    """The longest literal that must occur where the keyword matches; "" where there is none to scan for.

    Caseless atoms are kept to ASCII: beyond it the scan's idea of case differs from ours.
    """
    if raw.regex:
        return ""
    runs = like_literals(raw.pattern)
    if not raw.cased:
        runs = [run for literal in runs for run in _ascii_runs(literal)]
    longest = max(runs, key=len, default="")
    return longest if len(longest) >= _SHORTEST_ATOM else ""


def _ascii_runs(literal: str) -> list[str]:
    return "".join(character if character.isascii() else "\n" for character in literal).split("\n")


# The two characters beyond ASCII that fold to an ASCII letter (Kelvin sign to k, dotted I to i): an ASCII scan cannot
# see them as such, so the records that hold them are proposed for every caseless keyword.
_FOLD_TO_ASCII = ("\u212a".encode(), "\u0130".encode())


def _rows_of(batch: Batch, ends: list[int]) -> Int64:
    """The distinct records that the bytes before `ends` lie in."""
    last_bytes = np.asarray(ends, dtype=np.int64) - 1
    rows = np.unique(np.searchsorted(batch.starts, last_bytes, side="right") - 1)
    return rows[rows >= 0]


def _occurrences(block: bytes, needle: bytes) -> list[int]:
    ends = []
    position = block.find(needle)
    while position >= 0:
        ends.append(position + len(needle))
        position = block.find(needle, position + len(needle))
    return ends


class Prefilter:
    """The atoms of all keywords in one automaton. Not safe for use by two threads at once (one scratch)."""

    def __init__(self, raws: Sequence[Raw]) -> None:
        self._raws = list(dict.fromkeys(raws))
        atoms = [(index, atom_of(raw), raw.cased) for index, raw in enumerate(self._raws)]
        self._scanned = [atom for atom in atoms if atom[1]]
        self.without_atom = [self._raws[index] for index, atom, _ in atoms if not atom]
        self._database: hyperscan.Database | None = None
        if self._scanned:
            self._database = hyperscan.Database()
            self._database.compile(
                expressions=[_escape(atom).encode() for _, atom, _ in self._scanned],
                ids=[index for index, _, _ in self._scanned],
                flags=[0 if cased else hyperscan.HS_FLAG_CASELESS for _, _, cased in self._scanned],
            )

    def candidates(self, batch: Batch) -> dict[Raw, Int64]:
        """Per keyword the sorted rows that may hold it; a keyword without an atom may be in any."""
        everywhere = np.arange(len(batch), dtype=np.int64)
        found: dict[Raw, Int64] = dict.fromkeys(self.without_atom, everywhere)
        if self._database is not None and len(batch):
            hits: dict[int, list[int]] = {}

            def on_match(identifier: int, _start: int, end: int, _flags: int, _context: object) -> None:
                hits.setdefault(identifier, []).append(end)

            self._database.scan(batch.block, match_event_handler=on_match)
            folding = [end for needle in _FOLD_TO_ASCII for end in _occurrences(batch.block, needle)]
            for identifier, _, cased in self._scanned:
                ends = hits.get(identifier, [])
                if not cased:
                    ends = ends + folding
                if ends:
                    found[self._raws[identifier]] = _rows_of(batch, ends)
        return found


def _escape(literal: str) -> str:
    """A literal as a Hyperscan expression: every byte that is no letter or digit is written in hex."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in literal.encode())

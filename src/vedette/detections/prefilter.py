"""One multi-pattern scan of a block proposes the records a keyword may be in.
Counterpart: `match` has each proposal confirmed on the message itself; a scan hit decides nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache as remembered
from pathlib import Path

import hyperscan
import numpy as np

from vedette.detections.atoms import Atom
from vedette.detections.automata import automaton
from vedette.model.batch import Batch, Int64

# Shorter literals hit nearly every record, so that scanning for them only costs.
_SHORTEST = 3


class Prefilter:
    """The atoms of keywords in one automaton. Not safe for use by two threads at once (one scratch).

    keywords: by a number of the caller's each keyword with its atoms, of which one must occur in the folded text.
    json: the block holds text as JSON writes it. cache: a folder to keep the automaton in.
    """

    def __init__(
        self, keywords: Mapping[int, Sequence[Atom]], *, json: bool = False, cache: Path | None = None
    ) -> None:
        self.without_atom: list[int] = []
        self._owners: list[int] = []
        expressions: list[bytes] = []
        for number, atoms in keywords.items():
            literals = ["" if atom.pattern else _plain_literal(atom.text, _JSON if json else _ASCII) for atom in atoms]
            if not literals or not all(literals):
                self.without_atom.append(number)
                continue
            for literal in literals:
                self._owners.append(number)
                expressions.append(_escape(literal))
        self._database: hyperscan.Database | None = None
        if expressions:
            flags = [hyperscan.HS_FLAG_CASELESS] * len(expressions)
            if json:
                expressions.append(_NUMBERED)
                flags.append(hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_DOTALL)
            written = expressions, range(len(expressions)), flags
            self._database = automaton(lambda: written, len(expressions), (expressions, flags), cache)

    def candidates(self, batch: Batch) -> tuple[dict[int, Int64], Int64]:
        """Per keyword the sorted rows that may hold it, and the rows that hold text this scan cannot read.

        A keyword without an atom may be in any row.
        """
        everywhere = np.arange(len(batch), dtype=np.int64)
        found: dict[int, Int64] = dict.fromkeys(self.without_atom, everywhere)
        unread: list[int] = []
        if self._database is None or not len(batch):
            return found, _rows_of(batch, unread)
        hits: dict[int, list[int]] = {}

        def on_match(identifier: int, _start: int, end: int, _flags: int, _context: object) -> None:
            hits.setdefault(identifier, []).append(end)

        self._database.scan(batch.block, match_event_handler=on_match)
        ends: dict[int, list[int]] = {}
        for identifier, of in hits.items():
            if identifier < len(self._owners):
                ends.setdefault(self._owners[identifier], []).extend(of)
            else:
                unread += of
        if not batch.block.isascii():
            unread += places_of_folding(batch.block)
        for number, of in ends.items():
            found[number] = _rows_of(batch, of)
        return found, _rows_of(batch, unread)


# Beyond ASCII the scan's idea of case differs from ours; JSON has other ways to write the rest.
_ASCII = re.compile("[\x00-\x7f]+")
_JSON = re.compile(r"[ !#-.0-\[\]-~]+")
# A letter written as its number; the backslash before the u is not itself one that was escaped.
_NUMBERED = rb"[^\\](?:\\\\)*\\u[0-9a-f]{4}"


def _plain_literal(text: str, plain: re.Pattern[str]) -> str:
    """The longest run of a folded literal that stands in the block as it is."""
    longest: str = max(plain.findall(text), key=len, default="")
    return longest if len(longest) >= _SHORTEST else ""


def places_of_folding(block: bytes) -> list[int]:
    """Where characters beyond ASCII end that fold to text with an ASCII letter (long s, Kelvin sign, ligatures, ...).

    An ASCII scan cannot see them as such.
    """
    ends: list[int] = []
    _folding().scan(block, match_event_handler=lambda _identifier, _start, end, *_: ends.append(end))
    return ends


@remembered
def _folding() -> hyperscan.Database:
    found = (chr(code) for code in range(0x80, 0x20000) if not 0xD800 <= code < 0xE000)
    letters = [one for one in found if one.casefold() != one and any(map(str.isascii, one.casefold()))]
    database = hyperscan.Database()
    expressions = ["".join(f"\\x{byte:02x}" for byte in one.encode()).encode() for one in letters]
    database.compile(expressions=expressions, ids=list(range(len(letters))), flags=[0] * len(letters))
    return database


def _rows_of(batch: Batch, ends: Iterable[int]) -> Int64:
    """The distinct records that the bytes before `ends` lie in."""
    last_bytes = np.asarray(list(ends), dtype=np.int64) - 1
    rows = np.unique(np.searchsorted(batch.starts, last_bytes, side="right") - 1)
    return rows[rows >= 0]


def _escape(literal: str) -> bytes:
    """A literal as a Hyperscan expression: every byte that is no letter or digit is written in hex."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in literal.encode()
    ).encode()

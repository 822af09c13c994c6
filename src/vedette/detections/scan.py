"""The atoms that rules look for in one field, as one automaton: which distinct values hold which.
Counterpart: `clauses` chose the atoms; `match` turns what is found into candidate rows of rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import hyperscan
import numpy as np

from vedette.detections.atoms import AFTER, BEFORE, PATTERN_FLAGS, Atom
from vedette.detections.automata import Written, automaton
from vedette.detections.predicates import as_text, fold
from vedette.detections.prefilter import places_of_folding
from vedette.model.events import Texts, Value

_SEPARATOR = AFTER + BEFORE

# A field whose values repeat is scanned once per value and not once per batch: so many of them are kept ...
_KEPT = 4_096
# ... none longer than this many characters, ...
_KEPT_LENGTH = 256
# ... unless, after so many, fewer than one in four was seen before.
_TRIAL = 4_096

Found = dict[int, list[int]]
"""Per atom (its place among the atoms given) the places of the values that hold it."""


class FieldScan:
    """All atoms looked for in one field. Not safe for use by two threads at once (one scratch).

    Values are scanned folded, each between two control characters, so that a literal at the start or the end
    of a value is a plain literal. What holds these characters itself is found more often than it should be
    (never less): `odd` values only propose.
    """

    def __init__(self, atoms: Sequence[Atom]) -> None:
        self.atoms = list(atoms)
        self._whole: dict[bytes, list[int]] = {}
        self._scanned: list[int] = []
        for place, atom in enumerate(self.atoms):
            if atom.whole:
                self._whole.setdefault(folded(atom.text), []).append(place)
            else:
                self._scanned.append(place)
        self._patterns = [place for place in self._scanned if self.atoms[place].pattern]
        self._database: hyperscan.Database | None = None
        self._known: dict[str, tuple[int, ...]] | None = {}
        self._asked = self._seen = 0

    def prepare(self, where: Path | None = None) -> None:
        """Make the automaton, or take the one kept in the folder `where`; once, later calls do nothing."""
        if not self._scanned or self._database is not None:
            return
        about = [(place, atom.text, atom.at_start, atom.at_end, atom.pattern) for place, atom in enumerate(self.atoms)]
        self._database = automaton(self._written, len(self._scanned), about, where)

    def _written(self) -> Written:
        atoms = [self.atoms[place] for place in self._scanned]
        return list(map(_expression, atoms)), self._scanned, [PATTERN_FLAGS if atom.pattern else 0 for atom in atoms]

    def find(self, values: Sequence[Value]) -> tuple[Found, set[int]]:
        """Which atoms are found in which of `values`, and the places of the odd ones."""
        found: Found = {}
        texts: list[str] = []
        owners: list[int] = []
        known = self._known
        for place, value in enumerate(values):
            if type(value) is str:
                if known is not None and (atoms := known.get(value)) is not None:
                    self._seen += 1
                    for atom in atoms:
                        found.setdefault(atom, []).append(place)
                    continue
                texts.append(value)
                owners.append(place)
            elif isinstance(value, tuple):
                for one in value:
                    if one is not None:
                        texts.append(as_text(one))
                        owners.append(place)
            elif value is not None:
                texts.append(as_text(value))
                owners.append(place)
        odd: set[int] = set()
        if texts:
            fresh: Found = {}
            self._scan(texts, fresh, odd)
            self._keep(texts, fresh)
            for atom, held in fresh.items():
                found.setdefault(atom, []).extend([owners[at] for at in held])
            odd = {owners[at] for at in odd}
        return found, odd

    def _scan(self, texts: list[str], found: Found, odd: set[int]) -> None:
        joined = BEFORE + _SEPARATOR.join(texts) + AFTER
        pieces: list[bytes] | None = None
        if joined.count(BEFORE) != len(texts) or joined.count(AFTER) != len(texts):
            odd.update(at for at, text in enumerate(texts) if BEFORE in text or AFTER in text)
            pieces = [folded(text) for text in texts]
            block = b"\x01" + b"\x02\x01".join(pieces) + b"\x02"
        else:
            block = folded(joined)
        if self._whole:
            whole = self._whole
            for at, piece in enumerate(pieces or block[1:-1].split(b"\x02\x01")):
                if piece in whole:
                    for atom in whole[piece]:
                        found.setdefault(atom, []).append(at)
        self._propose_beyond_ascii(texts, found)
        self._hits(block, texts, found)

    def _propose_beyond_ascii(self, texts: Sequence[str], found: Found) -> None:
        """Beyond ASCII a scan of folded text is not to be trusted with a pattern: the pattern itself is asked."""
        beyond = [at for at, text in enumerate(texts) if not text.isascii()] if self._patterns else []
        for atom in self._patterns if beyond else ():
            found.setdefault(atom, []).extend(beyond)

    def find_in(self, rows: Sequence[tuple[str, ...]]) -> Found:
        """Which atoms are found in which of `rows`, each of them several texts. Only for atoms that may be anywhere."""
        found: Found = {}
        texts = list(map(_SEPARATOR.join, rows))
        block = folded(BEFORE + _SEPARATOR.join(texts) + AFTER)
        self._propose_beyond_ascii(texts, found)
        self._hits(block, texts, found)
        return found

    @property
    def plain(self) -> bool:
        """Whether all atoms are ASCII text that may be anywhere, as `find_written` wants it."""
        return all(
            atom.text.isascii() and not (atom.pattern or atom.whole or atom.at_start or atom.at_end)
            for atom in self.atoms
        )

    def find_written(self, texts: Texts) -> tuple[Found, list[int]]:
        """Which atoms are found in which rows of texts that are not decoded, and rows that must be.

        Decoding and folding leave ASCII alone but for its case, whatever the other bytes are, and make no letter of
        it from them: but for those that fold to some.
        """
        if self._database is None or not len(texts.starts):
            return {}, []
        raw: list[int] = []
        append = raw.append

        def on_match(identifier: int, _start: int, end: int, _flags: int, _context: object) -> None:
            append(end)
            append(identifier)

        self._database.scan(texts.block.lower(), match_event_handler=on_match)
        found: Found = {}
        if raw:
            pairs = np.array(raw, dtype=np.int64).reshape(-1, 2)
            lengths = np.array([len(atom.text) for atom in self.atoms], dtype=np.int64)
            begin, end = pairs[:, 0] - lengths[pairs[:, 1]], pairs[:, 0]
            piece = np.searchsorted(texts.starts, begin, side="right") - 1
            inside = np.flatnonzero((piece >= 0) & (end <= texts.ends[piece]))
            of, rows = pairs[inside, 1].tolist(), texts.rows[piece[inside]].tolist()
            for atom, row in zip(of, rows, strict=True):
                found.setdefault(atom, []).append(row)
        if texts.block.isascii():
            return found, []
        ends = np.array(places_of_folding(texts.block), dtype=np.int64)
        piece = np.searchsorted(texts.starts, ends - 1, side="right") - 1
        return found, texts.rows[piece[piece >= 0]].tolist()

    def _hits(self, block: bytes, texts: Sequence[str], found: Found) -> None:
        """Scan `block`, which is `texts` folded, each between the two characters."""
        if self._database is None:
            return
        raw: list[int] = []
        append = raw.append

        def on_match(identifier: int, _start: int, end: int, _flags: int, _context: object) -> None:
            append(end)
            append(identifier)

        self._database.scan(block, match_event_handler=on_match)
        if not raw:
            return
        if len(texts) == 1:
            for identifier in set(raw[1::2]):
                found.setdefault(identifier, []).append(0)
            return
        pairs = np.array(raw, dtype=np.int64).reshape(-1, 2)
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        # Folding and encoding never shorten a text, so that one sum says whether they lengthened any.
        if int(lengths.sum()) + 2 * len(texts) != len(block):
            for at, text in enumerate(texts):
                if not text.isascii():
                    lengths[at] = len(folded(text))
        # The end of the piece a value stands in: itself and the two characters round it.
        bounds = np.cumsum(lengths + 2)
        piece = np.searchsorted(bounds, pairs[:, 0], side="left")
        keys = np.unique(pairs[:, 1] * len(texts) + piece)
        atoms, places = np.divmod(keys, len(texts))
        cuts = np.flatnonzero(np.diff(atoms)) + 1
        for begin, part in zip([0, *cuts.tolist()], np.split(places, cuts), strict=True):
            found.setdefault(int(atoms[begin]), []).extend(part.tolist())

    def _keep(self, texts: list[str], fresh: Found) -> None:
        if self._known is None:
            return
        self._asked += len(texts)
        if self._asked > _TRIAL and self._seen * 4 < self._asked + self._seen:
            self._known = None
            return
        if len(self._known) + len(texts) > _KEPT:
            self._known.clear()
        of: dict[int, list[int]] = {}
        for atom, held in fresh.items():
            for at in held:
                of.setdefault(at, []).append(atom)
        for at, text in enumerate(texts):
            if len(text) <= _KEPT_LENGTH and len(self._known) < _KEPT and BEFORE not in text and AFTER not in text:
                self._known[text] = tuple(of.get(at, ()))


_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
# With more distinct letters than these to fold one by one, folding the whole text is faster.
_LETTERS = 8


def folded(text: str) -> bytes:
    """`fold(text)` in UTF-8, faster where little of it is beyond ASCII: bytes are lowered far faster than text."""
    if not text.isascii():
        letters = [letter for letter in set(_BEYOND_ASCII.findall(text)) if fold(letter) != letter]
        if len(letters) > _LETTERS:
            return fold(text).encode("utf-8", "surrogatepass")
        for letter in letters:
            text = text.replace(letter, fold(letter))
    return text.encode("utf-8", "surrogatepass").lower()


# Each byte as an expression: one that is no letter or digit is written in hex.
_BYTES = [(chr(byte) if byte < 128 and chr(byte).isalnum() else f"\\x{byte:02x}").encode() for byte in range(256)]


def _expression(atom: Atom) -> bytes:
    """An atom as a Hyperscan expression."""
    if atom.pattern:
        return atom.text.encode()
    text = (BEFORE if atom.at_start else "") + atom.text + (AFTER if atom.at_end else "")
    return b"".join(map(_BYTES.__getitem__, text.encode("utf-8", "surrogatepass")))

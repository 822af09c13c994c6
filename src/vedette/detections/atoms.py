"""Literals that must occur where a test holds, and how common each is likely to be in what people log.
Counterpart: `clauses` chooses by these what is worth looking for; `scan` looks for it."""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any as Anything
from typing import NamedTuple

import hyperscan

from vedette.detections.predicates import as_text, fold
from vedette.model.rules import Op, Raw, Test

LONGEST = 64
"""More characters than these make a literal no rarer."""

# What stands round each value when it is scanned (see `scan`): no literal with one of them is looked for.
BEFORE, AFTER = "\x01", "\x02"


class Atom(NamedTuple):
    """A folded literal that must occur in the folded value: at its start, its end, as all of it, or anywhere.

    decides: that it occurs is the verdict; else it only proposes the value.
    """

    text: str
    at_start: bool = False
    at_end: bool = False
    decides: bool = False
    pattern: bool = False
    """`text` is a regular expression without a literal worth looking for, as it was written."""

    @property
    def whole(self) -> bool:
        """Whether it is the whole value."""
        return self.at_start and self.at_end


def atoms_of(leaf: Test | Raw) -> tuple[Atom, ...] | None:
    """Atoms of which one at least must occur where the leaf holds; None where there are none to look for."""
    if isinstance(leaf, Raw):
        return _keyword_atoms(leaf)
    if leaf.part is not None:
        return None
    found: list[Sequence[Atom]] = []
    for value in leaf.values:
        atoms = _value_atoms(leaf.op, as_text(value), leaf.cased)
        if atoms is None or not all(map(_usable, atoms)):
            if leaf.all:
                continue
            return None
        found.append(atoms)
    if not found:
        return None
    if leaf.all and len(leaf.values) > 1:
        rarest = min(found, key=commonness)
        return tuple(atom._replace(decides=False) for atom in rarest)
    return tuple(dict.fromkeys(atom for atoms in found for atom in atoms))


# One such character alone says little of a value.
_EVERYWHERE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789 /\\.-:,;=\"'()_%&?")


def _usable(atom: Atom) -> bool:
    if BEFORE in atom.text or AFTER in atom.text:
        return False
    if atom.whole or atom.pattern or len(atom.text) + atom.at_start + atom.at_end >= 2:
        return True
    return bool(atom.text) and atom.text not in _EVERYWHERE


def _value_atoms(op: Op, text: str, cased: bool) -> Sequence[Atom] | None:
    folded = fold(text)
    if op is Op.EQUALS:
        return (Atom(folded, True, True, not cased),)
    if op is Op.CONTAINS:
        return (_cut(folded, decides=not cased),)
    if op is Op.STARTSWITH:
        return (_cut(folded, at_start=True, decides=not cased),)
    if op is Op.ENDSWITH:
        return (_cut(folded, at_end=True, decides=not cased),)
    if op is Op.LIKE:
        return _like_atoms(folded, cased)
    if op is Op.REGEX:
        return regex_atoms(text)
    return None


def _cut(text: str, *, at_start: bool = False, at_end: bool = False, decides: bool) -> Atom:
    if len(text) <= LONGEST:
        return Atom(text, at_start, at_end, decides)
    return Atom(text[-LONGEST:] if at_end else text[:LONGEST], at_start, at_end)


def like_runs(pattern: str) -> list[str]:
    """What stands between the wildcards of an Op.LIKE pattern, unescaped; "" at an end where one begins or ends it."""
    runs, run = [], ""
    characters = iter(pattern)
    for character in characters:
        if character in "*?":
            runs.append(run)
            run = ""
        else:
            run += next(characters, "\\") if character == "\\" else character
    return [*runs, run]


def _like_atoms(pattern: str, cased: bool) -> Sequence[Atom] | None:
    runs = like_runs(pattern)
    if len(runs) == 1:
        return (Atom(runs[0], True, True, not cased),)
    atoms = [_cut(run, decides=False) for run in runs[1:-1] if run]
    if runs[0]:
        atoms.append(_cut(runs[0], at_start=True, decides=False))
    if runs[-1]:
        atoms.append(_cut(runs[-1], at_end=True, decides=False))
    atoms = [atom for atom in atoms if _usable(atom)]
    return (min(atoms, key=lambda atom: commonness((atom,))),) if atoms else None


def _keyword_atoms(raw: Raw) -> tuple[Atom, ...] | None:
    if raw.regex:
        found: Sequence[Atom] | None = regex_atoms(raw.pattern)
    else:
        runs = [fold(run) for run in like_runs(raw.pattern)]
        exact = len(runs) == 1 and not raw.cased
        atoms = [_cut(run, decides=exact) for run in runs if run]
        atoms = [atom for atom in atoms if _usable(atom)]
        found = (min(atoms, key=lambda atom: commonness((atom,))),) if atoms else None
    return tuple(found) if found and all(map(_usable, found)) else None


# ------------------------------------------------------------------------------------------------ regular expressions

_MOST = 64
"""More alternatives than these are not worth looking for one by one."""


def regex_atoms(pattern: str) -> tuple[Atom, ...] | None:
    """Folded literals of which one must occur in the folded text where the pattern matches; None: not known.

    Python's parser reads it; what the dialects write differently is left alone, so that nothing is taken wrongly.
    """
    if "[:" in pattern or "\\Q" in pattern or "\\C" in pattern:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = sre_parser.parse(pattern)
    except (re.error, Warning, RecursionError, OverflowError):
        return None
    literals = _required(parsed, bool(parsed.state.flags & sre.SRE_FLAG_IGNORECASE))
    if literals is not None:
        atoms = tuple(dict.fromkeys(_cut(literal, decides=False) for literal in literals))
        if all(map(_usable, atoms)):
            return atoms
    if _closed_under_case(parsed) and parsed and not _ends_openly(parsed[-1]) and scannable(pattern):
        return (Atom(pattern, pattern=True),)
    return None


def _closed_under_case(parts: Iterable[Anything]) -> bool:
    """Whether, taken without regard to case, the pattern matches the folded text wherever it matches the text (ASCII).

    What excludes letters does not, and what looks at the ends of a value cannot be asked of joined ones.
    """
    for op, argument in parts:
        if op in (sre.LITERAL, sre.ANY):
            continue
        if op is sre.IN:
            if argument[0][0] is sre.NEGATE and any(kind in (sre.LITERAL, sre.RANGE) for kind, _ in argument):
                return False
        elif op is sre.SUBPATTERN:
            if not _closed_under_case(argument[3]):
                return False
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            if not _closed_under_case(argument[2]):
                return False
        elif op is sre.BRANCH:
            if not all(map(_closed_under_case, argument[1])):
                return False
        elif op is not sre.AT or argument is not sre.AT_BOUNDARY:
            return False
    return True


def _ends_openly(part: Anything) -> bool:
    """Whether a pattern that ends so could match at every place of a long value."""
    op, argument = part
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return bool(argument[1] > 64)
    if op is sre.SUBPATTERN:
        return not len(argument[3]) or _ends_openly(argument[3][-1])
    return op not in (sre.LITERAL, sre.IN, sre.ANY)


PATTERN_FLAGS = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_DOTALL
"""How such a pattern is scanned for: so that it finds more than it matches, never less."""


@lru_cache(maxsize=1024)
def scannable(pattern: str) -> bool:
    """Whether the scan takes the pattern."""
    if not pattern.isascii():
        return False
    try:
        hyperscan.Database().compile(expressions=[pattern.encode()], ids=[0], flags=[PATTERN_FLAGS])
    except hyperscan.HyperscanError:
        return False
    return True


def _required(parts: Iterable[Anything], caseless: bool) -> list[str] | None:
    """Of the sets of literals a sequence must hold one of, the one that is likely to be rarest."""
    best: list[str] | None = None
    run = ""

    def consider(literals: list[str] | None) -> None:
        nonlocal best
        if literals is None or not all(literals) or len(literals) > _MOST:
            return
        if best is None or _cost(literals) < _cost(best):
            best = literals

    for op, argument in parts:
        if op is sre.LITERAL and (argument < 128 or not caseless):
            run += fold(chr(argument))
            continue
        if run:
            consider([run])
            run = ""
        if op is sre.SUBPATTERN:
            _, add, drop, inner = argument
            inside = (caseless or bool(add & sre.SRE_FLAG_IGNORECASE)) and not drop & sre.SRE_FLAG_IGNORECASE
            consider(_required(inner, inside))
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and argument[0] >= 1:
            consider(_required(argument[2], caseless))
        elif op is sre.BRANCH:
            consider(_union(argument[1], caseless))
    if run:
        consider([run])
    return best


def _union(branches: Iterable[Anything], caseless: bool) -> list[str] | None:
    union: list[str] = []
    for branch in branches:
        literals = _required(branch, caseless)
        if literals is None:
            return None
        union += literals
    return union


def _cost(literals: Iterable[str]) -> float:
    return sum(_share(literal, False, False) for literal in literals)


# ------------------------------------------------------------------------------------------------ how common they are

# Share of the values of a field that hold such a word, roughly, on hosts nobody attacks: steers work, never a verdict.
_COMMON: dict[str, float] = {
    **dict.fromkeys(("exe", "windows", "microsoft", "c", "system32", "system", "corporation", "true", "false"), 0.4),
    **dict.fromkeys(("dll", "program", "files", "x86", "users", "appdata", "local", "0x3e7", "s", "18"), 0.3),
    **dict.fromkeys(("temp", "tmp", "roaming", "programdata", "http", "https", "com", "www", "usr", "bin", "etc"), 0.2),
    **dict.fromkeys(("software", "hklm", "hku", "currentversion", "services", "currentcontrolset", "run", "txt"), 0.2),
    **dict.fromkeys(("public", "syswow64", "desktop", "downloads", "documents", "root", "user", "admin", "high"), 0.1),
    **dict.fromkeys(("svchost", "explorer", "cmd", "powershell", "conhost", "chrome", "msedge", "wmiprvse"), 0.05),
    **dict.fromkeys(("bash", "sh", "python", "python3", "sudo", "systemd", "cron", "var", "log", "lib", "dev"), 0.1),
    **dict.fromkeys(("get", "post", "net", "reg", "service", "process", "install", "update", "authority", "nt"), 0.1),
    **dict.fromkeys(("rundll32", "lsass", "msiexec", "wscript", "cscript", "mshta", "taskhostw", "dllhost"), 0.02),
}
_LETTER_BITS = 1.6
_RARE_BITS = 2.0
_WORD = re.compile(r"[a-z0-9]+")
_RARE = re.compile(r"""[^a-z0-9 \\/.:\-_="',;()]""")


@lru_cache(maxsize=65_536)
def _share(text: str, at_start: bool, at_end: bool) -> float:
    """The estimated share of values that hold this atom: that of its rarest word, less for rare punctuation."""
    if not text.isascii():
        return 1e-5
    words = _WORD.findall(text)
    share = min(
        (_COMMON.get(word, 2.0 ** (-_LETTER_BITS * min(max(len(word) - 1, 0.6), 12))) for word in words), default=0.8
    )
    bits = _RARE_BITS * len(_RARE.findall(text))
    bits += 0.5 * (text.count(" ") + text.count("-")) + (0.7 if at_start or at_end else 0.0)
    return float(share * 2.0 ** -min(bits, 10.0))


def commonness(atoms: Iterable[Atom]) -> float:
    """How many hits a value may be expected to have with these."""
    return sum(0.2 if atom.pattern else _share(atom.text, atom.at_start, atom.at_end) for atom in atoms)


def literals_of(atoms: Iterable[Atom]) -> Iterator[str]:
    """The texts of atoms, as people are shown them."""
    for atom in atoms:
        yield (
            f"/{atom.text}/"
            if atom.pattern
            else f"{'^' if atom.at_start else ''}{atom.text}{'$' if atom.at_end else ''}"
        )

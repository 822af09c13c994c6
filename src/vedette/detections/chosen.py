"""What is looked for on behalf of a set of rules: chosen once, and kept between runs, for choosing takes long.
Counterpart: `clauses` and `atoms` say what may be chosen; `search` looks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from vedette.detections import atoms, clauses, predicates
from vedette.detections.atoms import Atom
from vedette.detections.clauses import beside, clause_of, demanded
from vedette.detections.leaves import Leaves
from vedette.model.rules import Raw, Rule, Test
from vedette.system import kept

_NAME, _VERSION = "vedette-search", 1
_KEPT = 32
_WORTH_KEEPING = 500
"""Rules; for fewer, choosing takes no time."""


class Wanted(msgspec.Struct, array_like=True):
    """The atoms looked for in one field, and whose they are. postings: per atom (leaf, whether it decides)."""

    atoms: list[Atom] = msgspec.field(default_factory=list)
    postings: list[list[tuple[int, bool]]] = msgspec.field(default_factory=list)


class Chosen(msgspec.Struct, array_like=True):
    """What is looked for. clauses: by rule its clause's leaves and cost, None where it has none, in order of the rules.

    found: the leaves that are looked for; fields: by field what is; keywords: in whole records, keyword_rules: on
    behalf of which rules.
    """

    clauses: list[tuple[tuple[int, ...], float] | None]
    found: list[int]
    fields: dict[str, Wanted]
    keywords: Wanted
    keyword_rules: list[int]


_DECODER = msgspec.msgpack.Decoder(tuple[str, int, Chosen])


def chosen(rules: Sequence[Rule], roots: Sequence[int], leaves: Leaves, where: Path | None, key: str) -> Chosen:
    """What is looked for on behalf of the rules at `roots`; kept in the folder `where` under `key`, if there is one.

    key: of nothing but the rules, in this order.
    """
    if where is None or not key or len(roots) < _WORTH_KEEPING:
        return choose(rules, roots, leaves)
    try:
        # What is chosen depends on these, whatever version they say they are of.
        ours = [Path(module.__file__ or "") for module in (atoms, clauses, predicates)] + [Path(__file__)]
        name = f"{kept.key_of(ours, _NAME, _VERSION, key, len(rules), len(leaves.leaves))}.search"
    except OSError:
        return choose(rules, roots, leaves)
    data = kept.read(name, where)
    try:
        title, version, found = _DECODER.decode(data or b"")
        if (title, version) == (_NAME, _VERSION) and len(found.clauses) == len(roots):
            return found
    except (msgspec.MsgspecError, ValueError):
        pass  # nothing is kept, or not as it was written
    found = choose(rules, roots, leaves)
    try:
        data = msgspec.msgpack.encode((_NAME, _VERSION, found))
    except (msgspec.MsgspecError, ValueError):
        return found  # a text that is no Unicode
    kept.write(name, data, where, most=_KEPT)
    return found


def choose(rules: Sequence[Rule], roots: Sequence[int], leaves: Leaves) -> Chosen:
    """What is looked for on behalf of the rules at `roots`."""
    return _Choice(rules, leaves).of(roots)


def looked_for(numbers: Iterable[int], leaves: Leaves) -> dict[str, Wanted]:
    """By field what is looked for on behalf of these leaves, all of which are tests and have atoms."""
    choice = _Choice((), leaves)
    for number in numbers:
        choice.find(number)
    return choice.fields


class _Choice:
    def __init__(self, rules: Sequence[Rule], leaves: Leaves) -> None:
        self._rules = rules
        self._leaves = leaves
        self._found: dict[int, None] = {}
        self.fields: dict[str, Wanted] = {}
        self._keywords = Wanted()
        self._keyword_rules: dict[int, None] = {}
        self._places: dict[tuple[str | None, str, bool, bool, bool], int] = {}

    def of(self, roots: Sequence[int]) -> Chosen:
        told = [clause_of(self._rules[index].when, self._leaves) for index in roots]
        for index, clause in zip(roots, told, strict=True):
            when = self._rules[index].when
            for number in clause.leaves if clause else ():
                self.find(number)
            for number in beside(when, clause, self._leaves) if clause else ():
                # In a field nothing else asks for, finding costs more than asking.
                leaf = self._leaves.leaves[number]
                if isinstance(leaf, Test) and leaf.field in self.fields:
                    self.find(number)
            for number in demanded(when, self._leaves):
                # All keywords are looked for in one scan of the record; asking for each by itself is what costs.
                if isinstance(self._leaves.leaves[number], Raw) and self._leaves.atoms(number) is not None:
                    self.find(number)
                    self._keyword_rules[index] = None
        return Chosen(
            [None if clause is None else (clause.leaves, clause.cost) for clause in told],
            list(self._found),
            self.fields,
            self._keywords,
            list(self._keyword_rules),
        )

    def find(self, number: int) -> None:
        """Have a leaf looked for."""
        if number in self._found:
            return
        self._found[number] = None
        leaf = self._leaves.leaves[number]
        field = None if isinstance(leaf, Raw) else leaf.field
        wanted = self._keywords if field is None else self.fields.setdefault(field, Wanted())
        for atom in self._leaves.atoms(number) or ():
            key = (field, atom.text, atom.at_start, atom.at_end, atom.pattern)
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = len(wanted.atoms)
                wanted.atoms.append(atom)
                wanted.postings.append([])
            wanted.postings[place].append((number, atom.decides))

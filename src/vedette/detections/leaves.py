"""Every leaf of a set of rules, numbered: each is compiled once, however many rules have it, and when first asked.
Counterpart: `clauses` and `conditions` name leaves by number; `judge` keeps what is known of each on one batch."""

from __future__ import annotations

from collections.abc import Hashable

from vedette.detections.atoms import Atom, atoms_of, commonness
from vedette.detections.patterns import Backtracking
from vedette.detections.predicates import Predicate, TextJudge, compile_keyword
from vedette.model.rules import FIELDREFS, Op, Raw, Test

Leaf = Test | Raw
LeafJudge = Predicate | TextJudge | None
"""A test's predicate, a keyword's search; None for what compares two fields of one record."""

# What can be no mistake of whoever wrote the rule is compiled when it is first asked.
_ALWAYS_RIGHT = frozenset({Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE, Op.NULL, Op.EXISTS} | FIELDREFS)


class Leaves:
    """The leaves of all rules of one matcher."""

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self._numbers: dict[Hashable, int] = {}
        # Hashing a test with many values costs more than all else that is done with it here.
        self._by_identity: dict[int, int] = {}
        self._kept: list[Leaf] = []
        self._judges: dict[int, LeafJudge] = {}
        self._atoms: dict[int, tuple[Atom, ...] | None] = {}
        self._costs: dict[int, float] = {}
        self._limited: list[Predicate | Backtracking] = []
        self._undecided_before: dict[int, int] = {}

    def add(self, leaf: Leaf) -> int:
        """The number of `leaf`; RuleError where it cannot be used."""
        number = self._by_identity.get(id(leaf))
        if number is not None:
            return number
        # 1 and True are equal to Python and two texts to a test.
        key = leaf if isinstance(leaf, Raw) else (leaf, tuple(map(type, leaf.values)))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.leaves)
            self.leaves.append(leaf)
            plain = not leaf.regex if isinstance(leaf, Raw) else leaf.op in _ALWAYS_RIGHT and leaf.part is None
            if not plain:
                self.judge(number)
        self._by_identity[id(leaf)] = number
        self._kept.append(leaf)  # an identity must not be given to another object
        return number

    def judge(self, number: int) -> LeafJudge:
        """What decides the leaf."""
        if number not in self._judges:
            leaf = self.leaves[number]
            judge: LeafJudge
            if isinstance(leaf, Raw):
                judge = compile_keyword(leaf)
            else:
                judge = None if leaf.op in FIELDREFS else Predicate(leaf)
            if isinstance(judge, Backtracking) or (isinstance(judge, Predicate) and judge.limited):
                self._limited.append(judge)
            self._judges[number] = judge
        return self._judges[number]

    def atoms(self, number: int) -> tuple[Atom, ...] | None:
        """As `atoms_of`."""
        if number not in self._atoms:
            self._atoms[number] = atoms_of(self.leaves[number])
        return self._atoms[number]

    def cost(self, number: int) -> float:
        """How many hits a value may be expected to have with the leaf's atoms; the leaf must have some."""
        cost = self._costs.get(number)
        if cost is None:
            cost = self._costs[number] = commonness(self.atoms(number) or ())
        return cost

    @property
    def undecided(self) -> int:
        """How many values could not be decided within the match limit."""
        return sum(judge.undecided for judge in self._limited)

    def undecided_since(self) -> list[Leaf]:
        """Whose values could not be decided since this was last asked."""
        found = []
        for number, judge in self._judges.items():
            if isinstance(judge, Predicate | Backtracking) and judge.undecided > self._undecided_before.get(number, 0):
                self._undecided_before[number] = judge.undecided
                found.append(self.leaves[number])
        return found

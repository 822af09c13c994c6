"""Which leaves of a condition to look for: of every set of which one leaf must hold, the one that holds most rarely.
Counterpart: `atoms` says what each leaf is found by; `match` looks only at rules of which a chosen leaf was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vedette.detections.atoms import Atom, atoms_of, commonness
from vedette.model.rules import All, Any, Node, Not, Raw, Test

Leaf = Test | Raw

# Above this a clause is no clause: looking at every covered record costs less than the hits would.
_HOPELESS = 64.0


@dataclass(frozen=True, slots=True)
class Clause:
    """Leaves of which one at least holds wherever the condition does, each with the atoms it is found by."""

    leaves: tuple[tuple[Leaf, tuple[Atom, ...]], ...]
    cost: float

    def atoms(self) -> Iterator[Atom]:
        """Every atom, leaf by leaf."""
        for _, atoms in self.leaves:
            yield from atoms


def clause_of(node: Node) -> Clause | None:
    """The cheapest clause to look for; None where the condition can hold with nothing to be found."""
    match node:
        case All(parts):
            return min(
                (clause for part in parts if (clause := clause_of(part)) is not None),
                key=lambda clause: clause.cost,
                default=None,
            )
        case Any(parts):
            return _union([clause_of(part) for part in parts])
        case Not():
            return None
        case Test() | Raw():
            atoms = atoms_of(node)
            if atoms is None:
                return None
            cost = commonness(atoms)
            return Clause(((node, atoms),), cost) if cost < _HOPELESS else None


# What holds in more than this share of values is cheaper to decide where it is asked than to find everywhere.
_WORTH_FINDING = 0.05
# Per rule so many leaves beside its clause are looked for, so that candidates are turned away without a question.
_BESIDE = 4


def beside(node: Node, clause: Clause) -> list[tuple[Leaf, tuple[Atom, ...]]]:
    """Leaves that must hold too, apart from those of `clause`, and are worth finding in the same scan; rarest first."""
    chosen = {leaf for leaf, _ in clause.leaves}
    found = [
        (commonness(atoms), leaf, atoms)
        for leaf in _demanded(node)
        if leaf not in chosen and (atoms := atoms_of(leaf)) is not None
    ]
    found = [one for one in found if one[0] < _WORTH_FINDING]
    found.sort(key=lambda one: one[0])
    return [(leaf, atoms) for _, leaf, atoms in found[:_BESIDE]]


def _demanded(node: Node) -> Iterator[Leaf]:
    """The leaves a condition asks to hold, alone or among others; those it asks not to hold are left out."""
    match node:
        case All(parts) | Any(parts):
            for part in parts:
                yield from _demanded(part)
        case Test() | Raw():
            yield node


def _union(clauses: Sequence[Clause | None]) -> Clause | None:
    leaves: dict[Leaf, tuple[Atom, ...]] = {}
    cost = 0.0
    for clause in clauses:
        if clause is None:
            return None
        for leaf, atoms in clause.leaves:
            if leaf not in leaves:
                leaves[leaf] = atoms
        cost += clause.cost
    return Clause(tuple(leaves.items()), cost) if cost < _HOPELESS else None

"""Which leaves of a condition to look for: of every set of which one leaf must hold, the one that holds most rarely.
Counterpart: `leaves` says what each is found by; `match` looks only at rules of which a chosen leaf was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vedette.detections.atoms import literals_of
from vedette.detections.leaves import Leaves
from vedette.model.rules import All, Any, Node, Not

# Above this a clause is no clause: looking at every covered record costs less than the hits would.
_HOPELESS = 64.0
# What holds in more than this share of values is cheaper to decide where it is asked than to find everywhere.
_WORTH_FINDING = 0.05
# Per rule so many leaves beside its clause are looked for, so that candidates are turned away without a question.
_BESIDE = 4


@dataclass(frozen=True, slots=True)
class Clause:
    """Numbers of leaves of which one at least holds wherever the condition does. cost: hits to expect a record."""

    leaves: tuple[int, ...]
    cost: float


def clause_of(node: Node, leaves: Leaves) -> Clause | None:
    """The cheapest clause to look for; None where the condition can hold with nothing to be found."""
    match node:
        case All(parts):
            best: Clause | None = None
            for part in parts:
                clause = clause_of(part, leaves)
                if clause is not None and (best is None or clause.cost < best.cost):
                    best = clause
            return best
        case Any(parts):
            return _union([clause_of(part, leaves) for part in parts])
        case Not():
            return None
        case _:
            number = leaves.add(node)
            if leaves.atoms(number) is None:
                return None
            cost = leaves.cost(number)
            return Clause((number,), cost) if cost < _HOPELESS else None


def beside(node: Node, clause: Clause, leaves: Leaves) -> list[int]:
    """Leaves beside those of `clause` that may have to hold too and are worth finding in one scan; rarest first."""
    numbers = dict.fromkeys(demanded(node, leaves))
    worth = [
        (leaves.cost(number), number)
        for number in numbers
        if number not in clause.leaves and leaves.atoms(number) is not None
    ]
    return [number for cost, number in sorted(worth) if cost < _WORTH_FINDING][:_BESIDE]


def looked_for(node: Node) -> tuple[str, ...]:
    """What the scan looks for on behalf of a condition, as `literals_of` writes it; () where it looks at every record.

    RuleError where a part of the condition cannot be used.
    """
    leaves = Leaves()
    return told(clause_of(node, leaves), leaves)


def told(clause: Clause | None, leaves: Leaves) -> tuple[str, ...]:
    """A clause as people are shown it; () where there is none."""
    return tuple(text for leaf in clause.leaves for text in literals_of(leaves.atoms(leaf) or ())) if clause else ()


def demanded(node: Node, leaves: Leaves) -> Iterator[int]:
    """The leaves a condition asks to hold, alone or among others; those it asks not to hold are left out."""
    match node:
        case All(parts) | Any(parts):
            for part in parts:
                yield from demanded(part, leaves)
        case Not():
            return
        case _:
            yield leaves.add(node)


def _union(clauses: Sequence[Clause | None]) -> Clause | None:
    leaves: dict[int, None] = {}
    cost = 0.0
    for clause in clauses:
        if clause is None:
            return None
        leaves.update(dict.fromkeys(clause.leaves))
        cost += clause.cost
    return Clause(tuple(leaves), cost) if cost < _HOPELESS else None

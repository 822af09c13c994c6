"""Why each rule does or does not match one record: its tests, one by one, with the values they saw.
Counterpart: `cli.explain` prints it; the verdicts are those of `match` itself, not a second opinion."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.detections.match import Matcher, Scan, covered_rows, looks_at_records
from vedette.detections.prefilter import atom_of
from vedette.model.batch import Batch
from vedette.model.events import Value
from vedette.model.rules import All, Any, Node, Not, Raw, Rule, Test, tests_of


@dataclass(frozen=True, slots=True)
class TestVerdict:
    """One leaf of a condition. value: what the field held (None for keywords)."""

    __test__ = False

    words: str
    value: Value
    held: bool


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """One rule on one record. covered: the record is of the rule's log source. feeds: correlations it counts for."""

    rule: Rule
    covered: bool
    matched: bool
    tests: tuple[TestVerdict, ...]
    atoms: tuple[str, ...]
    feeds: tuple[str, ...]


def explain(matcher: Matcher, batch: Batch) -> list[RuleVerdict]:
    """Every rule that judges records, on the first record of `batch`; matching ones first, then load order."""
    scan = matcher.scan(batch)
    hits = matcher.match(batch).hits
    verdicts = []
    for index, rule in enumerate(matcher.rules):
        if not looks_at_records(rule):
            continue
        covering = covered_rows(scan.table, rule.logsource)
        covered = covering is None or bool(covering[0])
        leaves = list(dict.fromkeys(tests_of(rule.when)))
        verdicts.append(
            RuleVerdict(
                rule=rule,
                covered=covered,
                matched=covered and (index in hits or (bool(rule.parents) and _holds(scan, rule.when))),
                tests=tuple(_tested(scan, leaf) for leaf in leaves) if covered else (),
                atoms=tuple(atom for leaf in leaves if isinstance(leaf, Raw) and (atom := atom_of(leaf))),
                feeds=tuple(
                    other.id
                    for other in matcher.rules
                    if other.correlate is not None and {rule.id, *rule.groups} & set(other.correlate.of)
                ),
            )
        )
    return sorted(verdicts, key=lambda verdict: (not verdict.matched, not verdict.covered))


def _tested(scan: Scan, leaf: Test | Raw) -> TestVerdict:
    rows = scan.leaf(leaf)
    held = rows is not None and bool(rows[0])
    if isinstance(leaf, Raw):
        return TestVerdict(f"message has {leaf.pattern!r}", None, held)
    values = ", ".join(repr(value) for value in leaf.values[:5]) + (", ..." if len(leaf.values) > 5 else "")
    every = " (all)" if leaf.all else ""
    return TestVerdict(f"{leaf.field} {leaf.op.value}{every} {values}", scan.table.column(leaf.field).value(0), held)


def _holds(scan: Scan, node: Node) -> bool:
    match node:
        case All(parts):
            return all(_holds(scan, part) for part in parts)
        case Any(parts):
            return any(_holds(scan, part) for part in parts)
        case Not(part):
            return not _holds(scan, part)
        case _:
            rows = scan.leaf(node)
            return rows is not None and bool(rows[0])

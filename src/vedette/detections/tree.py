"""Which rules are children of which, in the order they are tried.
Counterpart: `match` walks it down with the records a parent has matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vedette.model.errors import RuleError
from vedette.model.rules import Rule


def looks_at_records(rule: Rule) -> bool:
    """Whether the rule judges records itself; a plain correlation only counts the matches of others."""
    return rule.correlate is None or rule.correlate.preceding or bool(rule.parents)


def children_of(rules: Sequence[Rule]) -> dict[int, list[int]]:
    """Children by parent, in the order they are tried; a parent is named by id or by one of its groups.

    RuleError with the rule's place where a parent is missing, a correlation, or the rule itself.
    """
    by_group: dict[str, list[int]] = {}
    for index, rule in enumerate(rules):
        for name in (rule.id, *rule.groups):
            by_group.setdefault(name, []).append(index)
    children: dict[int, list[int]] = {}
    for index, rule in enumerate(rules):
        for name in rule.parents:
            if name not in by_group:
                raise RuleError(f"rule {rule.id}: no parent {name!r}", location=rule.origin)
            for parent in by_group[name]:
                if rules[parent].correlate is not None:
                    raise RuleError(
                        f"rule {rule.id}: a child of the correlation {rules[parent].id} is not supported yet",
                        location=rule.origin,
                    )
                if index not in children.setdefault(parent, []):
                    children[parent].append(index)
    for parent, siblings in children.items():
        children[parent] = siblings = [index for index in siblings if looks_at_records(rules[index])]
        siblings.sort(key=lambda index: (-rules[index].order, index))
    _check_cycles(rules, children)
    return children


def _check_cycles(rules: Sequence[Rule], children: Mapping[int, list[int]]) -> None:
    state: dict[int, int] = {}
    for root in range(len(rules)):
        stack = [(root, iter(children.get(root, ())))]
        if state.setdefault(root, 1) == 2:
            continue
        while stack:
            index, rest = stack[-1]
            child = next(rest, None)
            if child is None:
                state[index] = 2
                stack.pop()
            elif state.get(child) == 1:
                rule = rules[child]
                raise RuleError(f"rule {rule.id} is its own ancestor", location=rule.origin)
            elif child not in state:
                state[child] = 1
                stack.append((child, iter(children.get(child, ()))))

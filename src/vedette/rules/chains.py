"""What a correlation may count: rules and other correlations, never itself, and of those only fields of their keys.
Counterpart: `linking` asks for every reference; the correlator does the same for rules made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from vedette.model.errors import Location, RuleError
from vedette.model.rules import Clause, Correlate
from vedette.rules.compiled import Compiled


def renamed(correlate: Correlate, id_of: Callable[[str], str]) -> Correlate:
    """The correlation with every rule by id."""
    return replace(
        correlate,
        of=tuple(map(id_of, correlate.of)),
        aliases=tuple((alias, id_of(of), name) for alias, of, name in correlate.aliases),
        clauses=tuple(
            Clause(tuple(map(id_of, clause.needs)), tuple(map(id_of, clause.without))) for clause in correlate.clauses
        ),
    )


def check_counted(one: Compiled, reference: str, where: Location, names: Mapping[str, Compiled]) -> None:
    """Whether `one` may count the rule it calls `reference`; RuleError where it says so.

    names: all rules by id and name.
    """
    counted = names[reference]
    if counted is one:
        raise RuleError("a rule cannot count itself", location=where)
    if counted.rule.correlate is None:
        return
    if (through := _way_back(one, counted, names)) is not None:
        raise RuleError(f"a rule cannot count itself, here through {', '.join(through)}", location=where)
    _check_fields(one, reference, counted)


def key_names(one: Compiled, names: Mapping[str, Compiled]) -> set[str]:
    """The fields of the keys of the correlations that `one` counts, which need be in no registry."""
    counted = (names[reference].rule.correlate for reference in one.reference_paths if reference in names)
    return {name for correlate in counted if correlate is not None for name in correlate.group_by}


def _way_back(one: Compiled, counted: Compiled, names: Mapping[str, Compiled]) -> list[str] | None:
    """By which rules `counted` comes to count `one`; None where it does not."""
    seen, waiting = {counted.rule.id}, [(counted, [counted.rule.id])]
    while waiting:
        at, way = waiting.pop()
        for reference in at.rule.correlate.of if at.rule.correlate else ():
            other = names.get(reference)
            if other is one:
                return way
            if other is not None and other.rule.id not in seen:
                seen.add(other.rule.id)
                waiting.append((other, [*way, other.rule.id]))
    return None


def _check_fields(one: Compiled, reference: str, counted: Compiled) -> None:
    """A finding has the fields of its key and no others."""
    correlate, inner, document = one.rule.correlate, counted.rule.correlate, one.document
    assert correlate is not None
    assert inner is not None
    aliases = {alias: name for alias, rule, name in correlate.aliases if rule == reference}
    top = ("vedette", "after") if correlate.preceding else ("correlation",)
    wanted: list[tuple[str, tuple[str | int, ...]]] = [
        (name, (*top, "group-by", index)) for index, name in enumerate(correlate.group_by)
    ]
    wanted += [(name, (*top, "condition", "field")) for name in correlate.fields]
    for name, path in wanted:
        if aliases.get(name, name) not in inner.group_by:
            place = (*top, "aliases", name, reference) if name in aliases else path
            key = ", ".join(inner.group_by)
            raise document.error(
                f"findings of {reference!r} have no {aliases.get(name, name)!r}",
                *place,
                hint=f"they have the fields of its key: {key}" if key else "it groups by nothing: its key is empty",
            )

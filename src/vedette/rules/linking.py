"""Compiled rules of all files tied together: references by id, what leans on a missing rule falls.
Counterpart: `loading` reads the files; what comes out of here is what runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vedette.model.errors import RuleError
from vedette.model.fields import FIELDS
from vedette.model.rules import LogSource, Rule, RuleKind
from vedette.rules.cases import Case
from vedette.rules.chains import check_counted, key_names, renamed
from vedette.rules.compiled import Compiled
from vedette.rules.filters import Filter, apply_filters
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean
from vedette.rules.sigma import unknown_field

if TYPE_CHECKING:
    from vedette.rules.pipelines import Pipelines


def link(
    compiled: Sequence[Compiled],
    filters: Iterable[Filter],
    off: set[str],
    problems: list[Problem],
    pipelines: Pipelines | None = None,
) -> tuple[list[Rule], list[Case]]:
    """Give references their ids and drop what cannot stand, in load order; problems are told.

    off: ids and names of rules that are off by settings; grows by those that need one of them.
    """
    standing = _without_duplicates(compiled, problems)
    apply_filters(filters, standing, off, problems)
    # A correlation that loses a rule it names falls with it, and so may what names that one: until nothing changes.
    while True:
        names = _names(standing)
        groups = frozenset(group for one in standing for group in one.rule.groups)
        kept = []
        for one in standing:
            try:
                _check_references(one, names, groups, off)
            except _OffError:
                off.update(filter(None, (one.rule.id, one.name)))
            except RuleError as error:
                problems.append(Problem.from_error(error, one.rule.id, ProblemKind.MISSING_REFERENCE))
            else:
                kept.append(one)
        if len(kept) == len(standing):
            break
        standing = kept
    if pipelines is not None:
        standing = [one for one in standing if _renamed(one, names, pipelines, problems)]
    linked: list[tuple[Compiled, Rule]] = []
    for one in standing:
        strict = one.strict or any(names[reference].strict for reference in one.reference_paths)
        unknown = [
            unknown_field(name, where, one.rule.id, strict=strict)
            for name, where in one.fields
            if name not in FIELDS and name not in key_names(one, names)
        ]
        problems.extend(unknown)
        if any(problem.severity is Severity.ERROR for problem in unknown):
            continue
        linked.append((one, _with_ids(one.rule, names)))
    # A base rule is heard alone only where a correlation over it says `generate`.
    over = [
        (rule.correlate.of, one.generate) for one, rule in linked if rule.correlate and not rule.correlate.preceding
    ]
    based = {reference for of, _generate in over for reference in of}
    heard = {reference for of, generate in over if generate for reference in of}
    rules = [replace(rule, silent=True) if rule.id in based - heard else rule for _one, rule in linked]
    needed = {word for rule in rules for word in (*rule.parents, *(rule.correlate.of if rule.correlate else ()))}
    # A rule written only to be counted is not run where nothing counts it (its correlation is off by settings).
    rules = [rule for rule in rules if not rule.silent or needed & {rule.id, *rule.groups}]
    return rules, [case for one, _rule in linked for case in one.cases]


def _renamed(one: Compiled, names: Mapping[str, Compiled], pipelines: Pipelines, problems: list[Problem]) -> bool:
    """Give a correlation the fields that the pipelines gave the rules it counts; False, and told, where they differ."""
    correlate = one.rule.correlate
    if correlate is None or one.detects:
        return True
    sources: dict[str, LogSource | None] = {}
    waiting, known = [*one.reference_paths], set[str]()
    while waiting:
        reference = waiting.pop()
        if reference in known or reference not in names:
            continue
        known.add(reference)
        counted = names[reference]
        if counted.detects:
            sources[reference] = counted.given if counted.piped else None
        else:
            waiting += counted.reference_paths
    try:
        correlate = pipelines.correlate(correlate, sources, one.document.at("correlation"))
    except RuleError as error:
        problems.append(Problem.from_error(error, one.rule.id))
        return False
    one.rule = replace(one.rule, correlate=correlate, key=correlate.group_by)
    shown = {name for names_there in (correlate.group_by, correlate.fields) for name in names_there}
    shown |= {name for _alias, _rule, name in correlate.aliases}
    one.fields = [(name, where) for name, where in one.fields if name in shown]
    return True


class _OffError(Exception):
    """A rule needs another that is off by settings, so it is off too."""


def _without_duplicates(compiled: Sequence[Compiled], problems: list[Problem]) -> list[Compiled]:
    first: dict[str, Compiled] = {}
    kept = []
    for one in compiled:
        taken = next((first[word] for word in (one.rule.id, one.name) if word and word in first), None)
        if taken is not None:
            word = one.rule.id if one.rule.id in first else one.name
            problems.append(
                Problem(
                    ProblemKind.BROKEN,
                    Severity.ERROR,
                    one.document.at("id" if one.rule.id in first else "name"),
                    one.rule.id,
                    f"{word!r} is there twice, first in {taken.rule.origin}",
                )
            )
            continue
        kept.append(one)
        for word in filter(None, (one.rule.id, one.name)):
            first[word] = one
    return kept


def _names(compiled: Sequence[Compiled]) -> dict[str, Compiled]:
    names: dict[str, Compiled] = {}
    for one in compiled:
        for word in filter(None, (one.rule.id, one.name)):
            names[word] = one
    return names


def _check_references(one: Compiled, names: Mapping[str, Compiled], groups: frozenset[str], off: set[str]) -> None:
    rule, document = one.rule, one.document
    for reference, where in one.reference_paths.items():
        if reference not in names:
            if reference in off:
                raise _OffError
            hint = did_you_mean(reference, names)
            raise RuleError(f"there is no rule {reference!r}", location=where, hint=hint)
        check_counted(one, reference, where, names)
    if rule.clears:
        cleared = names.get(rule.clears)
        if cleared is None:
            if rule.clears in off:
                raise _OffError
            hint = did_you_mean(rule.clears, names)
            raise document.error(f"there is no rule {rule.clears!r} to clear", "vedette", "clears", hint=hint)
        if cleared.rule.kind is not RuleKind.CONDITION:
            raise document.error(f"{rule.clears!r} is no condition: nothing clears it", "vedette", "clears")
    for parent in rule.parents:
        if parent not in names and parent not in groups:
            if parent in off:
                raise _OffError
            hint = did_you_mean(parent, [*names, *groups])
            raise document.error(f"there is no rule or group {parent!r}", "vedette", "parents", hint=hint)


def _with_ids(rule: Rule, names: Mapping[str, Compiled]) -> Rule:
    """The rule with every reference by id."""

    def id_of(word: str) -> str:
        return names[word].rule.id if word in names else word

    correlate = rule.correlate
    if correlate is not None:
        correlate = renamed(correlate, id_of)
    return replace(rule, correlate=correlate, clears=id_of(rule.clears), parents=tuple(map(id_of, rule.parents)))

"""Sigma filters: documents apart from the rules that say what rules leave out here (specification 2.1, filters).
Counterpart: `loading` reads them in any order, `linking` has them applied once every rule is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from vedette.model.errors import Location, RuleError
from vedette.model.fields import FIELDS
from vedette.model.rules import All, Any, LogSource, Node, Not
from vedette.rules.compiled import Compiled, check_keys
from vedette.rules.conditions import compile_parts, read_parts
from vedette.rules.documents import Document
from vedette.rules.items import Placeholders
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean
from vedette.rules.sigma import KNOWN_KEYS, metadata_of, read_logsource, unknown_field

if TYPE_CHECKING:
    from vedette.rules.pipelines import Pipelines

_KEYS = (*(key for key in KNOWN_KEYS if key not in ("detection", "correlation", "vedette")), "filter")
_ANY = "any"

FILTERS_LIMIT = 1_000
"""Filters of one run; each is asked of every rule."""


@dataclass(slots=True)
class Filter:
    """A condition that is ANDed to that of every rule it is for, as pySigma does it.

    rules: ids or names, with their places; None: every rule of the log source.
    """

    name: str
    document: Document
    logsource: LogSource
    rules: Mapping[str, Location] | None
    when: Node
    fields: list[tuple[str, Location]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def covers(self, logsource: LogSource) -> bool:
        """Whether a rule of `logsource` is within this filter's: each word the filter says, the rule says too."""
        own = self.logsource
        return (
            own.product in ("", logsource.product)
            and own.category in ("", logsource.category)
            and own.service in ("", logsource.service)
        )


def read_filter(
    document: Document, *, placeholders: Placeholders | None = None, pipelines: Pipelines | None = None
) -> Filter:
    """The filter in `document`; RuleError with file:line:column where it cannot be used as written."""
    data = document.data
    check_keys(document, data, _KEYS, ())
    for key in ("detection", "correlation", "vedette"):
        if key in data:
            raise document.error(f"a filter has no {key!r}", key)
    metadata = metadata_of(document)
    name = metadata.title
    logsource = read_logsource(document)
    parts = read_parts(document, ("filter",), placeholders or {}, besides=("rules",), left_open=pipelines is not None)
    if parts.listed:
        raise document.error("a filter has one condition", "filter", "condition")
    if pipelines is not None:
        pipelines.change(document, logsource, metadata.values, parts)
    fields: list[tuple[str, Location]] = []
    detection = compile_parts(document, parts, lambda field_name, where: fields.append((field_name, where)))
    found = Filter(name, document, logsource, _rules(document), detection.when, fields)
    for unused in detection.unused:
        _warn(found, ProblemKind.UNUSED_DETECTION, ("filter", unused), f"{unused!r} is never used by the condition")
    if not _leaves_out(detection.when):
        _warn(
            found,
            ProblemKind.FILTER_KEEPS,
            ("filter", "condition"),
            "the rules keep only what this filter finds: what it is to leave out stands behind 'not'",
        )
    return found


def _warn(found: Filter, kind: ProblemKind, path: tuple[str, ...], message: str) -> None:
    found.problems.append(Problem(kind, Severity.WARNING, found.document.at(*path), found.name, message))


def _rules(document: Document) -> Mapping[str, Location] | None:
    given = document.data.get("filter")
    assert isinstance(given, dict)
    if "rules" not in given:
        raise document.error("'filter' has no 'rules': ids or names, or 'any'", "filter")
    value = given["rules"]
    if value == [] or (isinstance(value, str) and value.lower() == _ANY):
        return None
    several = value if isinstance(value, list) else [value]
    rules: dict[str, Location] = {}
    for index, one in enumerate(several):
        path = ("filter", "rules", index) if isinstance(value, list) else ("filter", "rules")
        if not isinstance(one, str) or not one:
            raise document.error("'rules' are ids or names of rules, or 'any'", *path)
        try:
            one = str(UUID(one))
        except ValueError:
            pass
        rules[one] = document.at(*path)
    return rules


def _leaves_out(node: Node) -> bool:
    match node:
        case All(parts) | Any(parts):
            return any(map(_leaves_out, parts))
        case Not():
            return True
    return False


def apply_filters(
    filters: Iterable[Filter], compiled: Sequence[Compiled], off: set[str], problems: list[Problem]
) -> None:
    """Narrow the rules that filters are for, in place; what a filter cannot be applied to is told.

    A rule that is not loaded is a warning where it is named by a UUID (a set of others may be only partly here),
    an error where by a name or slug, which is a slip. off: ids and names of rules that are off by settings.
    """
    by_name = {word: one for one in compiled for word in (one.rule.id, one.name) if word}
    narrowed: dict[str, list[Node]] = {}
    for number, each in enumerate(filters):
        problems.extend(each.problems)
        if number == FILTERS_LIMIT:
            message = f"more than {FILTERS_LIMIT} filters: this one and what follows is left out"
            problems.append(Problem(ProblemKind.BROKEN, Severity.ERROR, each.document.start, each.name, message))
            break
        try:
            found = _targets(each, compiled, by_name, off, problems)
            _judge_fields(each, found, problems)
        except RuleError as error:
            problems.append(Problem.from_error(error, each.name))
            continue
        for one in found:
            narrowed.setdefault(one.rule.id, []).append(each.when)
    for rule_id, conditions in narrowed.items():
        one = by_name[rule_id]
        own = one.rule.when.parts if isinstance(one.rule.when, All) else (one.rule.when,)
        one.rule = replace(one.rule, when=All((*own, *conditions)))


def _targets(
    each: Filter,
    compiled: Sequence[Compiled],
    by_name: Mapping[str, Compiled],
    off: set[str],
    problems: list[Problem],
) -> list[Compiled]:
    if each.rules is None:
        found = [one for one in compiled if one.detects and each.covers(one.given)]
        if not found:
            message = "no loaded rule is of the log source of this filter"
            where = each.document.at("logsource")
            problems.append(Problem(ProblemKind.MISSING_REFERENCE, Severity.WARNING, where, each.name, message))
        return found
    found = []
    for reference, where in each.rules.items():
        one = by_name.get(reference)
        if one is None:
            if reference not in off:
                problems.append(_missing(each, reference, where, by_name))
            continue
        if not one.detects:
            raise RuleError(f"{reference!r} is a correlation: filter the rules it counts", location=where)
        if not each.covers(one.given):
            raise RuleError(
                f"{reference!r} is of another log source than this filter", location=where, hint=_words(one.given)
            )
        if one not in found:
            found.append(one)
    return found


def _words(logsource: LogSource) -> str:
    parts = {"product": logsource.product, "category": logsource.category, "service": logsource.service}
    return "it is of " + ", ".join(f"{key}: {word}" for key, word in parts.items() if word)


def _missing(each: Filter, reference: str, where: Location, by_name: Mapping[str, Compiled]) -> Problem:
    try:
        UUID(reference)
    except ValueError:
        severity, hint = Severity.ERROR, did_you_mean(reference, by_name)
    else:
        severity, hint = Severity.WARNING, ""
    message = f"there is no rule {reference!r} to filter"
    return Problem(ProblemKind.MISSING_REFERENCE, severity, where, each.name, message, hint)


def _judge_fields(each: Filter, found: Sequence[Compiled], problems: list[Problem]) -> None:
    strict = any(one.strict for one in found)
    noted: set[str] = set()
    for name, where in each.fields:
        if name in FIELDS or name in noted:
            continue
        noted.add(name)
        problem = unknown_field(name, where, each.name, strict=strict)
        if problem.severity is Severity.ERROR:
            raise problem.as_error()
        problems.append(problem)

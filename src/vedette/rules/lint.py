"""What loads and still is not right: rules without cases or advice, fields nobody gives, unsafe responses.
Counterpart: `loading` tells what does not load; `cli` prints both as data with file:line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vedette.model.errors import Location
from vedette.model.fields import FIELDS, FieldType
from vedette.model.rules import Op, Raw, Rule, Test, tests_of
from vedette.rules.cases import Case
from vedette.rules.loading import LoadResult
from vedette.rules.problems import Problem, ProblemKind, Severity

ATOM_LENGTH = 3
"""A literal shorter than this is in so many records that scanning for it finds nothing out."""

_PREFIXES = frozenset({"vedette.source.prefix", "vedette.source.prefix_56"})
_FROM_ANYWHERE = frozenset({"header", "journal", "derived", "pam"})
"""Who gives fields to records of every service: PAM speaks inside each program that uses it."""
_NOT_LITERAL = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|\(\?[^:)]*[:)]")
_LITERAL_RUN = re.compile(r"[A-Za-z0-9 _/=:,;@%&~\"'<>#!-]+(?![?*{])")


def lint(result: LoadResult) -> list[Problem]:
    """Every problem of a load and of the rules that came out of it, by file and line."""
    problems = list(result.problems)
    cases: dict[str, list[Case]] = {}
    for case in result.cases:
        cases.setdefault(case.rule, []).append(case)
    for rule in result.rules:
        problems += _tested(rule, cases.get(rule.id, []))
        problems += _advised(rule)
        problems += _response(rule)
        problems += _fields(rule)
        problems += _patterns(rule)
    problems += _names(result.rules)
    problems += _references(result.rules)
    return sorted(problems, key=lambda problem: (problem.location.file, problem.location.line, problem.location.column))


def _problem(rule: Rule, kind: ProblemKind, severity: Severity, message: str, hint: str = "") -> Problem:
    return Problem(kind, severity, rule.origin, rule.id, message, hint)


def _tested(rule: Rule, cases: list[Case]) -> Iterator[Problem]:
    if rule.silent:
        return
    for wanted, what in ((True, "it fires"), (False, "it does not fire")):
        if not any(case.positive is wanted for case in cases):
            yield _problem(
                rule, ProblemKind.NO_CASE, Severity.WARNING, f"no case in which {what}", "write it under vedette: cases"
            )


def _advised(rule: Rule) -> Iterator[Problem]:
    if not rule.silent and not rule.advice:
        hint = "one sentence under vedette: advice for the person who is woken"
        yield _problem(rule, ProblemKind.NO_ADVICE, Severity.WARNING, "no advice", hint)


def _response(rule: Rule) -> Iterator[Problem]:
    if rule.response is None:
        return
    target = rule.response.target
    field = FIELDS.get(target)
    if field is None or field.attacker_text:
        message = f"blocks {target!r}, whose text an attacker may choose"
    elif field.type is not FieldType.IP and target not in _PREFIXES:
        message = f"blocks {target!r}, which is neither an address nor a prefix of one"
    else:
        return
    yield _problem(rule, ProblemKind.UNSAFE_RESPONSE, Severity.ERROR, message, "block source.ip or a prefix of it")


def _fields(rule: Rule) -> Iterator[Problem]:
    service = rule.logsource.service
    parsers = {parser for field in FIELDS.values() for parser in field.given_by} - _FROM_ANYWHERE
    for name in dict.fromkeys(leaf.field for leaf in tests_of(rule.when) if isinstance(leaf, Test)):
        field = FIELDS.get(name)
        if field is None:
            continue
        if not field.given_by:
            yield _problem(rule, ProblemKind.FIELD_NOT_GIVEN, Severity.WARNING, f"no parser gives {name!r}")
        elif service in parsers and not {service, *_FROM_ANYWHERE} & set(field.given_by):
            given = ", ".join(field.given_by)
            message = f"{name!r} is not given by the parser of {service!r} (but by {given})"
            yield _problem(rule, ProblemKind.FIELD_NOT_GIVEN, Severity.WARNING, message)


def _patterns(rule: Rule) -> Iterator[Problem]:
    for leaf in tests_of(rule.when):
        if isinstance(leaf, Raw):
            if not leaf.regex and longest_literal(leaf.pattern) < ATOM_LENGTH:
                message = f"keyword {leaf.pattern!r} has no {ATOM_LENGTH} characters together to look for"
                yield _problem(rule, ProblemKind.NO_ATOM, Severity.WARNING, message)
            elif leaf.regex and longest_word(leaf.pattern) < ATOM_LENGTH:
                message = f"expression {leaf.pattern!r} names no {ATOM_LENGTH} characters together to look for"
                yield _problem(rule, ProblemKind.NO_ATOM, Severity.WARNING, message)
            patterns = [leaf.pattern] if leaf.regex else []
        else:
            patterns = [str(value) for value in leaf.values] if leaf.op is Op.REGEX else []
        for pattern in patterns:
            if why := refused_by_re2(pattern):
                message = f"expression {pattern!r} cannot run in linear time: {why}"
                yield _problem(rule, ProblemKind.REGEX_NOT_LINEAR, Severity.ERROR, message)


def longest_literal(pattern: str) -> int:
    """Length of the longest run without a wildcard in a pattern of Op.LIKE."""
    longest = run = 0
    escaped = False
    for character in pattern:
        if escaped or character not in "*?\\":
            run, escaped = run + 1, False
            longest = max(longest, run)
        elif character == "\\":
            escaped = True
        else:
            run = 0
    return longest


def longest_word(pattern: str) -> int:
    """About the length of the longest literal run in a regular expression, classes and escapes left out."""
    return max(map(len, _LITERAL_RUN.findall(_NOT_LITERAL.sub("\0", pattern))), default=0)


def refused_by_re2(pattern: str) -> str:
    """Why RE2 takes no `pattern`; "" where it does."""
    from vedette.text.regex import compile_re2  # RE2 is loaded only by who lints

    try:
        compile_re2(pattern)
    except ValueError as error:
        return str(error)
    return ""


def _names(rules: Iterable[Rule]) -> Iterator[Problem]:
    first: dict[str, Location] = {}
    for rule in rules:
        name = rule.name.casefold()
        if name in first:
            message = f"the title {rule.name!r} is there twice, first in {first[name]}"
            yield _problem(rule, ProblemKind.DUPLICATE_NAME, Severity.WARNING, message)
        else:
            first[name] = rule.origin


def _references(rules: tuple[Rule, ...]) -> Iterator[Problem]:
    """Correlations over rules that are not there: the loader refuses them, rules made elsewhere come here."""
    known = {rule.id for rule in rules}
    for rule in rules:
        for reference in rule.correlate.of if rule.correlate else ():
            if reference not in known:
                message = f"counts {reference!r}, which is no rule"
                yield _problem(rule, ProblemKind.MISSING_REFERENCE, Severity.ERROR, message)

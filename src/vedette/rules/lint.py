"""What loads and still is not right: each rule by itself, and rules against each other, with file, line and hint.
Counterpart: `loading` tells what does not load; `dead` what can never fire; `cli` prints all of it as data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vedette.model.errors import Location
from vedette.model.fields import FIELDS, FieldType
from vedette.model.rules import All, Any, LogSource, Node, Not, Op, Raw, Rule, Test, tests_of
from vedette.rules.cases import Case
from vedette.rules.dead import find_dead
from vedette.rules.files import PACKS
from vedette.rules.loading import LoadResult
from vedette.rules.places import Places
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean
from vedette.rules.schemas import array_of, known_fields

_PREFIXES = frozenset({"vedette.source.prefix", "vedette.source.prefix_56"})
_FROM_ANYWHERE = frozenset({"header", "journal", "derived", "pam"})
"""Who gives fields to records of every service: PAM speaks inside each program that uses it."""
_OWN_NAMES = frozenset({"auditd"})
"""Services whose records name their fields themselves, besides those the registry knows."""
_OUTNUMBERED = 4
"""A spelling is taken for a slip where so many times more rules have the other one."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What parsers and engine can do, handed in because no stage knows another; None: not judged.

    covered: whether some parser gives records of a log source. atoms: what is looked for on behalf of a rule,
    nothing where every record is looked at.
    """

    covered: Callable[[LogSource], bool] | None = None
    atoms: Callable[[Rule], Sequence[str]] | None = None


def lint(result: LoadResult, abilities: Abilities = Abilities()) -> list[Problem]:
    """Every problem of a load and of the rules that came out of it, by file and line."""
    # Records of other products keep the names their makers gave: which of those are right is judged below.
    problems = [_named(one) for one in result.problems if not _hearsay(one)]
    places = Places()
    cases: dict[str, list[Case]] = defaultdict(list)
    for case in result.cases:
        cases[case.rule].append(case)
    spellings = _spellings(result.rules)
    for rule in result.rules:
        problems += _tested(rule, cases.get(rule.id, []))
        problems += _advised(rule)
        problems += _response(rule)
        problems += _keyed(rule)
        problems += _fields(rule, places, spellings)
        problems += _patterns(rule, places)
        problems += _scanned(rule, abilities)
        problems += _paired(rule, places)
        problems += _parsed(rule, abilities)
    problems += find_dead(result.rules)
    problems += _names(result.rules)
    problems += _references(result.rules)
    return sorted(
        dict.fromkeys(problems),
        key=lambda one: (one.location.file, one.location.line, one.location.column, one.kind, one.rule_id, one.message),
    )


def is_own(rule: Rule) -> bool:
    """Whether the rule stands in one of our packs, which are held to more."""
    return rule.origin.file.startswith(f"{PACKS}/")


def _hearsay(problem: Problem) -> bool:
    return problem.kind is ProblemKind.UNKNOWN_FIELD and problem.severity is Severity.WARNING


def _named(problem: Problem) -> Problem:
    old = problem.kind is ProblemKind.BROKEN and ("'timeframe'" in problem.message or "aggregation" in problem.message)
    return replace(problem, kind=ProblemKind.DEPRECATED) if old else problem


def _problem(
    rule: Rule, kind: ProblemKind, severity: Severity, message: str, hint: str = "", at: Location | None = None
) -> Problem:
    return Problem(kind, severity, at or rule.origin, rule.id, message, hint)


def _tested(rule: Rule, cases: list[Case]) -> Iterator[Problem]:
    if rule.silent:
        return
    severity = Severity.ERROR if is_own(rule) else Severity.NOTE
    hint = "write it under vedette: cases; `vedette rules new` begins with them"
    for wanted, what in ((True, "it fires"), (False, "it does not fire")):
        if not any(case.positive is wanted for case in cases):
            yield _problem(rule, ProblemKind.NO_CASE, severity, f"no case in which {what}", hint)


def _advised(rule: Rule) -> Iterator[Problem]:
    if not rule.silent and not rule.advice:
        severity = Severity.ERROR if is_own(rule) else Severity.NOTE
        hint = "one sentence under vedette: advice for the person who is woken"
        yield _problem(rule, ProblemKind.NO_ADVICE, severity, "no advice", hint)


# ---------------------------------------------------------------------------------------------- blame


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


def _keyed(rule: Rule) -> Iterator[Problem]:
    """Keys of a watched one's choice: a count he spreads over them never gets full, alerts he can make at will."""
    counts = rule.correlate is not None and rule.response is not None
    for name in rule.correlate.group_by if rule.correlate else rule.key:
        field = FIELDS.get(name)
        if field is None or not field.attacker_text:
            continue
        if counts:
            message = f"counts by {name!r}: who is to be blocked writes that text, and spreads the count with it"
            hint = "count by source.ip alone, or make a second rule without a response"
            yield _problem(rule, ProblemKind.CHOSEN_KEY, Severity.WARNING, message, hint)
        else:
            message = (
                f"its alerts are keyed by {name!r}, text that whoever is watched may choose: each one makes a new alert"
            )
            yield _problem(rule, ProblemKind.CHOSEN_KEY, Severity.NOTE, message)


# ---------------------------------------------------------------------------------------------- fields

_Spellings = dict[tuple[LogSource, str], Counter[str]]


def _spellings(rules: Iterable[Rule]) -> _Spellings:
    """Per log source and folded name: how many rules spell a field which way."""
    found: _Spellings = defaultdict(Counter)
    for rule in rules:
        for name in _tested_fields(rule):
            found[rule.logsource, name.casefold()][name] += 1
    return found


def _tested_fields(rule: Rule) -> list[str]:
    return list(dict.fromkeys(leaf.field for leaf in tests_of(rule.when) if isinstance(leaf, Test)))


def _fields(rule: Rule, places: Places, spellings: _Spellings) -> Iterator[Problem]:
    service = rule.logsource.service
    parsers = {parser for field in FIELDS.values() for parser in field.given_by} - _FROM_ANYWHERE - _OWN_NAMES
    schema = known_fields(rule.logsource)
    for name in _tested_fields(rule):
        field = FIELDS.get(name)
        message = hint = ""
        if field is not None:
            if not field.given_by:
                message = f"no parser gives {name!r}"
            elif service in parsers and not {service, *_FROM_ANYWHERE} & set(field.given_by):
                given = ", ".join(field.given_by)
                message = f"{name!r} is not given by the parser of {service!r} (but by {given})"
        elif schema is not None and name not in schema and "." not in name:
            message = f"{name!r} is in no event of {rule.logsource.category} on Windows, as its makers document them"
            hint = did_you_mean(name, schema, cutoff=0.75)
        if message:
            at = places.of(rule, name)
            yield _problem(rule, ProblemKind.FIELD_NOT_GIVEN, Severity.WARNING, message, hint, at)
            continue
        spelt = spellings[rule.logsource, name.casefold()]
        usual, number = max(spelt.items(), key=lambda one: (one[1], one[0]))
        # Makers that vary the first letter are met by the parsers.
        if usual[1:] != name[1:] and number >= _OUTNUMBERED * spelt[name]:
            message = f"{name!r} is spelt {usual!r} by {number} other rules of this log source; names are exact"
            at = places.of(rule, name)
            yield _problem(rule, ProblemKind.FIELD_SPELLING, Severity.WARNING, message, f"did you mean {usual!r}?", at)


def _paired(rule: Rule, places: Places) -> Iterator[Problem]:
    """Tests that all must hold, on fields of one array: different objects of it may satisfy them."""
    told: set[str] = set()
    for group in _together(rule.when):
        inside: dict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys(group):
            if path := array_of(rule.logsource, name):
                inside[path].append(name)
        for path, names in inside.items():
            if len(names) > 1 and path not in told:
                told.add(path)
                message = (
                    f"{' and '.join(repr(name) for name in names)} may be met by two different objects of {path!r}"
                )
                hint = "arrays of objects are flattened, the pairing is lost: expect more matches than meant"
                at = places.of(rule, names[0])
                yield _problem(rule, ProblemKind.PAIRING_LOST, Severity.NOTE, message, hint, at)


def _together(node: Node) -> Iterator[list[str]]:
    """The fields of tests that stand in one conjunction, directly or through others."""
    match node:
        case All(parts):
            own: list[str] = []
            for part in parts:
                groups = list(_together(part))
                own += [name for group in groups for name in group] if not isinstance(part, Any | Not) else []
                yield from groups if isinstance(part, Any | Not) else []
            if own:
                yield own
        case Any(parts):
            for part in parts:
                yield from _together(part)
        case Not(part):
            yield from _together(part)
        case Test():
            yield [node.field]


def _parsed(rule: Rule, abilities: Abilities) -> Iterator[Problem]:
    if abilities.covered is None or rule.logsource == LogSource() or abilities.covered(rule.logsource):
        return
    source = rule.logsource
    words = ", ".join(
        f"{key} {word!r}"
        for key, word in (("product", source.product), ("category", source.category), ("service", source.service))
        if word
    )
    message = f"no parser gives records of {words}: it can never match"
    yield _problem(rule, ProblemKind.NO_PARSER, Severity.WARNING, message)


# ---------------------------------------------------------------------------------------------- what is scanned for


def _patterns(rule: Rule, places: Places) -> Iterator[Problem]:
    for leaf in tests_of(rule.when):
        if isinstance(leaf, Raw):
            patterns = [leaf.pattern] if leaf.regex else []
        else:
            patterns = [str(value) for value in leaf.values] if leaf.op is Op.REGEX else []
        for pattern in patterns:
            if why := refused_by_re2(pattern):
                message = f"expression {pattern!r} needs PCRE2, with a limit on its steps instead of linear time: {why}"
                at = places.of(rule, leaf.field) if isinstance(leaf, Test) else None
                hint = "write it without look-around and back-references"
                yield _problem(rule, ProblemKind.REGEX_NOT_LINEAR, Severity.WARNING, message, hint, at)


def _scanned(rule: Rule, abilities: Abilities) -> Iterator[Problem]:
    """A rule none of whose required parts is anything to look up is judged on every record."""
    if abilities.atoms is None or (rule.correlate is not None and not rule.correlate.preceding) or rule.parents:
        return
    if rule.lines is not None:
        return  # a line filter looks for its own words
    if not abilities.atoms(rule):
        message = "nothing that must be in a record can be looked up: every record of its log source is judged"
        hint = "add a test of equality, or of a text of some length, that must hold"
        yield _problem(rule, ProblemKind.NO_ATOM, Severity.WARNING, message, hint)


def refused_by_re2(pattern: str) -> str:
    """Why RE2 takes no `pattern`; "" where it does."""
    from vedette.text.regex import compile_re2  # RE2 is loaded only by who lints

    try:
        compile_re2(pattern)
    except ValueError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------------------------------------- names and references


def _names(rules: Iterable[Rule]) -> Iterator[Problem]:
    first: dict[str, Location] = {}
    for rule in rules:
        name = rule.name.casefold()
        if name in first:
            message = f"the title {rule.name!r} is there twice, first in {first[name]}"
            yield _problem(rule, ProblemKind.DUPLICATE_NAME, Severity.WARNING, message)
        else:
            first[name] = rule.origin


def _references(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Correlations over rules that are not there: the loader refuses them, rules made elsewhere come here."""
    known = {rule.id for rule in rules}
    for rule in rules:
        for reference in rule.correlate.of if rule.correlate else ():
            if reference not in known and not any(reference in other.groups for other in rules):
                message = f"counts {reference!r}, which is no rule"
                yield _problem(rule, ProblemKind.MISSING_REFERENCE, Severity.ERROR, message)

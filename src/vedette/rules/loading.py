"""Rule files and our packs to linked rules; every problem is kept as data with its place.
Counterpart: `app` and `cli` call `load` and `load_packs`, `lint` looks further at what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.model.errors import Location, RuleError
from vedette.model.rules import Rule, RuleKind
from vedette.rules.cases import Case
from vedette.rules.documents import Document, Yaml, read_documents
from vedette.rules.extras import read_parameters
from vedette.rules.parameters import PARAMETER_NAMES, UNSET, Parameter
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean

if TYPE_CHECKING:
    from vedette.rules.compiled import Compiled
    from vedette.rules.settings import RulesSettings

PACKS = Path(__file__).parent / "packs"
SUFFIXES = (".yml", ".yaml")

_PARAMETER = re.compile(r"\$\{([a-z_.]+)\}")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of loading: rules in load order, their cases, and every problem met."""

    rules: tuple[Rule, ...]
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that kept a rule from being loaded."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)


@dataclass(slots=True)
class _Loading:
    """What has been read so far."""

    values: Mapping[str, Parameter] | None
    compiled: list[Compiled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    off: set[str] = field(default_factory=set)
    """Ids and names of rules that are off because a parameter they need is not set."""


def load(
    paths: Iterable[Path],
    *,
    packs: bool = False,
    keep_going: bool = False,
    settings: RulesSettings | None = None,
    examples: bool = False,
) -> LoadResult:
    """The rules in `paths` (files, or folders taken recursively in byte order), after our packs where asked.

    Rules whose parameters `settings` leaves unset are off; with `examples` they are on, with the values their
    cases are written for. Without `keep_going` the first error is raised as RuleError; with it, what is broken
    is left out and told in `problems`.
    """
    loading = _Loading(None if examples else _values(settings))
    files: list[tuple[Path, str]] = []
    if packs:
        files += [(path, path.stem) for path in _rule_files(PACKS)]
    for path in paths:
        try:
            files += [(file, file.stem if file.parent.resolve() == PACKS else "") for file in _rule_files(path)]
        except RuleError as error:
            loading.problems.append(Problem.from_error(error))
    for file, pack in files:
        _load_file(loading, file, pack)
    rules, cases = _link(loading)
    result = LoadResult(tuple(rules), tuple(cases), tuple(loading.problems))
    if result.errors and not keep_going:
        raise result.errors[0].as_error()
    return result


def _values(settings: RulesSettings | None) -> Mapping[str, Parameter]:
    if settings is None:
        return UNSET
    from vedette.rules.settings import parameters

    return parameters(settings)


def load_packs(settings: RulesSettings | None = None) -> list[Rule]:
    """The rules of our own packs, as `settings` has them."""
    return list(load((), packs=True, settings=settings).rules)


def _rule_files(path: Path) -> list[Path]:
    """The rule files of a path: itself, or those in a folder, recursively, in byte order of their whole names."""
    if not path.is_dir():
        if not path.exists():
            raise RuleError("no such file or folder", location=Location(str(path)))
        return [path]
    found = [file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}") if file.is_file()]
    return sorted(found, key=lambda file: str(file).encode("utf-8", "surrogateescape"))


def _load_file(loading: _Loading, file: Path, pack: str) -> None:
    # pySigma takes a fifth of a second to import: only a run that compiles rules pays for it.
    from vedette.rules.sigma import compile_document

    try:
        documents = read_documents(file)
    except RuleError as error:
        loading.problems.append(Problem.from_error(error))
        return
    for document in documents:
        name = document.data.get("id") or document.data.get("name")
        rule_id = name if isinstance(name, str) else ""
        try:
            resolved = _resolve(document, loading.values)
            if resolved is None:
                loading.off.update(
                    word for key in ("id", "name") if isinstance(word := document.data.get(key), str) and word
                )
                continue
            compiled = compile_document(resolved, pack=pack)
        except RuleError as error:
            loading.problems.append(Problem.from_error(error, rule_id))
            continue
        loading.compiled.append(compiled)
        loading.problems.extend(compiled.problems)


# ---------------------------------------------------------------------------------------------------- parameters


def _resolve(document: Document, values: Mapping[str, Parameter] | None) -> Document | None:
    """The document with its `${...}` replaced; None where a parameter it needs is not set, so that it is off."""
    needed = read_parameters(document)
    if needed:
        if values is not None:
            needed = {name: values[name] for name in needed}
        if any(value is None for value in needed.values()):
            return None
    elif not isinstance(document.data.get("vedette"), dict):
        # Other people's rules may look for such text: only rules that declare parameters have them.
        return document
    used: set[str] = set()
    data = {
        key: value if key == "vedette" else _replaced(document, (key,), value, needed, used)
        for key, value in document.data.items()
    }
    if unused := sorted(set(needed) - used):
        raise document.error(f"parameter {unused[0]!r} is never used", "vedette", "parameters", unused[0])
    return document.replaced(data)


def _replaced(
    document: Document, path: tuple[str | int, ...], value: Yaml, values: Mapping[str, Parameter], used: set[str]
) -> Yaml:
    if isinstance(value, dict):
        return {key: _replaced(document, (*path, key), one, values, used) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(document, (*path, i), one, values, used) for i, one in enumerate(value)]
    if not isinstance(value, str) or not (match := _PARAMETER.fullmatch(value)):
        return value
    name = match[1]
    if name not in values:
        if name in PARAMETER_NAMES:
            raise document.error(f"{value!r} is not declared under 'vedette: parameters'", *path)
        if document.data.get("vedette", {}) and values:
            raise document.error(f"unknown parameter {name!r}", *path, hint=did_you_mean(name, PARAMETER_NAMES))
        return value
    used.add(name)
    found = values[name]
    return list(found) if isinstance(found, tuple) else found


# ------------------------------------------------------------------------------------------------------- linking


def _link(loading: _Loading) -> tuple[list[Rule], list[Case]]:
    """Give references their ids and drop what cannot stand; problems are told."""
    from vedette.rules.sigma import unknown_field

    standing = _without_duplicates(loading)
    # A correlation that loses a rule it names falls with it, and so may what names that one: until nothing changes.
    while True:
        names = _names(standing)
        kept = []
        for one in standing:
            try:
                _check_references(one, names, loading.off)
            except _OffError:
                loading.off.update(filter(None, (one.rule.id, one.name)))
            except RuleError as error:
                loading.problems.append(Problem.from_error(error, one.rule.id, ProblemKind.MISSING_REFERENCE))
            else:
                kept.append(one)
        if len(kept) == len(standing):
            break
        standing = kept
    linked: list[tuple[Compiled, Rule]] = []
    for one in standing:
        strict = one.strict or any(names[reference].strict for reference in one.reference_paths)
        problems = [
            unknown_field(name, where, one.rule.id, strict=strict) for name, where in one.fields if not _known(name)
        ]
        loading.problems.extend(problems)
        if any(problem.severity is Severity.ERROR for problem in problems):
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


class _OffError(Exception):
    """A rule needs another that is off by settings, so it is off too."""


def _known(name: str) -> bool:
    from vedette.model.fields import FIELDS

    return name in FIELDS


def _without_duplicates(loading: _Loading) -> list[Compiled]:
    first: dict[str, Compiled] = {}
    kept = []
    for one in loading.compiled:
        taken = next((first[word] for word in (one.rule.id, one.name) if word and word in first), None)
        if taken is not None:
            word = one.rule.id if one.rule.id in first else one.name
            loading.problems.append(
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


def _check_references(one: Compiled, names: Mapping[str, Compiled], off: set[str]) -> None:
    rule, document = one.rule, one.document
    for reference, where in one.reference_paths.items():
        if reference not in names:
            if reference in off:
                raise _OffError
            hint = did_you_mean(reference, names)
            raise RuleError(f"there is no rule {reference!r}", location=where, hint=hint)
        if names[reference] is one:
            raise RuleError("a rule cannot count itself", location=where)
        if names[reference].rule.correlate is not None:
            raise RuleError(
                f"{reference!r} counts other rules itself: counting its findings is not supported yet", location=where
            )
    if rule.clears:
        cleared = names.get(rule.clears)
        if cleared is None:
            if rule.clears in off:
                raise _OffError
            hint = did_you_mean(rule.clears, names)
            raise document.error(f"there is no rule {rule.clears!r} to clear", "vedette", "clears", hint=hint)
        if cleared.rule.kind is not RuleKind.CONDITION:
            raise document.error(f"{rule.clears!r} is no condition: nothing clears it", "vedette", "clears")
    groups = {group for other in names.values() for group in other.rule.groups}
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
        correlate = replace(
            correlate,
            of=tuple(map(id_of, correlate.of)),
            aliases=tuple((alias, id_of(of), name) for alias, of, name in correlate.aliases),
        )
    return replace(rule, correlate=correlate, clears=id_of(rule.clears), parents=tuple(map(id_of, rule.parents)))


def iter_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files `load` would read for `paths`, in its order."""
    for path in paths:
        yield from _rule_files(path)

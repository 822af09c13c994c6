"""Rule files and our packs to linked rules; every problem is kept as data with its place.
Counterpart: `app` and `cli` call `load` and `load_packs`; `linking` ties the rules of all files together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.model.errors import RuleError
from vedette.model.rules import Rule
from vedette.rules.cases import Case
from vedette.rules.documents import Document, Yaml, read_documents
from vedette.rules.extras import read_parameters
from vedette.rules.files import LINE_SUFFIXES, PACKS, TREE_SUFFIX, has_lines, rule_files
from vedette.rules.parameters import PARAMETER_NAMES, UNSET, Parameter
from vedette.rules.problems import Problem, Severity, did_you_mean

if TYPE_CHECKING:
    from vedette.rules.compiled import Compiled
    from vedette.rules.filters import Filter
    from vedette.rules.pipelines import Pipelines
    from vedette.rules.settings import RulesSettings

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
    placeholders: Mapping[str, Sequence[str]]
    pipelines: Pipelines | None
    compiled: list[Compiled] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
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
    pipelines: Sequence[str] = (),
    dialect: str = "auto",
) -> LoadResult:
    """The rules in `paths` (files, or folders taken recursively in byte order), after our packs where asked.

    Rules whose parameters `settings` leaves unset are off; with `examples` they are on, with the values their
    cases are written for. pipelines: names or files of those applied to the rules in `paths`, after those of the
    settings; a broken one is always raised. Without `keep_going` the first error is raised as RuleError; with it,
    what is broken is left out and told in `problems`. dialect: whose words XML rules use, ossec or wazuh.
    """
    lists = {} if settings is None else settings.placeholders
    placeholders = {name: tuple(map(str, values)) for name, values in lists.items()}
    paths = list(paths)
    chain = [*(settings.pipelines if settings else ()), *pipelines]
    loading = _Loading(None if examples else _values(settings), placeholders, _chain(chain))
    files: list[tuple[Path, str]] = []
    if packs:
        files += [(path, path.stem) for path in rule_files(PACKS)]
    resolved: dict[Path, Path] = {}
    for path in paths:
        try:
            found = rule_files(path)
        except RuleError as error:
            loading.problems.append(Problem.from_error(error))
            continue
        for file in found:
            if file.parent not in resolved:
                resolved[file.parent] = file.parent.resolve()
            files.append((file, file.stem if resolved[file.parent] == PACKS else ""))
    files = list(dict.fromkeys(files))
    trees = [file for file, _pack in files if file.suffix == TREE_SUFFIX]
    for file, pack in files:
        if file.suffix not in (TREE_SUFFIX, *LINE_SUFFIXES):
            _load_file(loading, file, pack)
    # pySigma takes a fifth of a second to import: only a run that compiles rules pays for it.
    from vedette.rules.linking import link

    rules, cases = link(loading.compiled, loading.filters, loading.off, loading.problems, loading.pipelines)
    if trees:
        rules += _trees(trees, paths, dialect, loading)
    if lines := [path for path in paths if has_lines(path)]:
        from vedette.rules.fail2ban_jails import read_fail2ban

        rules += read_fail2ban(lines, loading.problems)
    if settings is not None and settings.steps:
        rules = [replace(rule, step=settings.steps.get(rule.id, rule.step)) for rule in rules]
    result = LoadResult(tuple(rules), tuple(cases), tuple(loading.problems))
    if result.errors and not keep_going:
        raise result.errors[0].as_error()
    return result


def _trees(files: Sequence[Path], paths: Sequence[Path], dialect: str, loading: _Loading) -> list[Rule]:
    """The rules of OSSEC and Wazuh in `files`, with the lists under `paths`."""
    from vedette.rules.ossec import read_ossec
    from vedette.rules.ossec_words import Dialect

    found = read_ossec(files, paths, None if dialect == "auto" else Dialect(dialect))
    loading.problems.extend(found.problems)
    return list(found.rules)


def _chain(words: Sequence[str]) -> Pipelines | None:
    if not words:
        return None
    from vedette.rules.pipelines import load_pipelines

    return load_pipelines(words)


def _values(settings: RulesSettings | None) -> Mapping[str, Parameter]:
    if settings is None:
        return UNSET
    from vedette.rules.settings import parameters

    return parameters(settings)


def load_packs(settings: RulesSettings | None = None) -> list[Rule]:
    """The rules of our own packs, as `settings` has them."""
    return list(load((), packs=True, settings=settings).rules)


def _load_file(loading: _Loading, file: Path, pack: str) -> None:
    from vedette.rules.filters import read_filter
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
            if "filter" in document.data:
                loading.filters.append(
                    read_filter(document, placeholders=loading.placeholders, pipelines=loading.pipelines)
                )
                continue
            resolved = _resolve(document, loading.values)
            if resolved is None:
                loading.off.update(
                    word for key in ("id", "name") if isinstance(word := document.data.get(key), str) and word
                )
                continue
            compiled = compile_document(
                resolved, pack=pack, placeholders=loading.placeholders, pipelines=loading.pipelines
            )
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

"""SigmaHQ's regression folders as cases: an `info.yml` names the rule, the sample beside it and how often it matches.
Counterpart: `cases` runs and judges them; the rules come from the paths given, else from beside the folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from vedette.model.errors import Location, RuleError
from vedette.rules.cases import Case
from vedette.rules.documents import Document, Yaml, read_documents
from vedette.rules.files import iter_files
from vedette.rules.loading import LoadResult, load

INFO = "info.yml"
FOLDER = "regression_data"
SAMPLE_LIMIT = 64 * 1024 * 1024

_BLANK = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Regression:
    """What a run of regression folders stands on: cases, the rules that judge them, and what could not be read.

    untested: the places of infos that name no sample, so that they hold no case.
    """

    cases: tuple[Case, ...]
    rules: LoadResult
    errors: tuple[RuleError, ...]
    untested: tuple[Location, ...]


def split(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The infos of regression folders under `paths`, and all the other rule files, each in the order of `load`.

    A path that is not there stays among the others, where loading tells of it.
    """
    infos: list[Path] = []
    others: list[Path] = []
    for path in paths:
        try:
            files = list(iter_files([path]))
        except RuleError:
            others.append(path)
            continue
        for file in files:
            (infos if _is_info(file) else others).append(file)
    return infos, others


def _is_info(file: Path) -> bool:
    if file.name != INFO:
        return False
    try:
        text = file.read_bytes()
    except OSError:
        return False
    # An info never has a log source; a rule that someone gave this name has one.
    return b"rule_metadata:" in text and b"logsource:" not in text


def read(infos: Sequence[Path], rules: Sequence[Path]) -> Regression:
    """The cases of these infos and the rules they need, from files and folders `rules`, else from beside the infos."""
    cases: list[Case] = []
    errors: list[RuleError] = []
    untested: list[Location] = []
    for info in infos:
        try:
            for document in read_documents(info):
                found = list(_cases(document, info.parent, errors))
                cases += found
                if not document.data.get("regression_tests_info"):
                    untested.append(document.start)
        except RuleError as error:
            errors.append(error)
    needed = {case.rule for case in cases}
    loaded = load(_naming(needed, rules or _beside(infos)), keep_going=True)
    # A correlation in the same file may be the only one that is heard; here each rule is asked for itself.
    heard = tuple(replace(rule, silent=False) for rule in loaded.rules)
    return Regression(tuple(cases), replace(loaded, rules=heard), tuple(errors), tuple(untested))


def _naming(ids: set[str], paths: Iterable[Path]) -> Iterator[Path]:
    """The files under `paths` in which one of `ids` stands: a few of thousands, which need not all be compiled."""
    for path in paths:
        try:
            files = list(iter_files([path]))
        except RuleError:
            yield path  # loading tells of it
            continue
        for file in files:
            if _is_info(file):
                continue
            try:
                text = file.read_bytes().decode("utf-8", "replace").lower()
            except OSError:
                yield file
                continue
            if any(one in text for one in ids):
                yield file


def _beside(infos: Sequence[Path]) -> list[Path]:
    """The folders of rules that lie beside the folder of regression data, as in SigmaHQ's repository."""
    roots: dict[Path, None] = {}
    for info in infos:
        for parent in info.absolute().parents:
            if parent.name == FOLDER:
                roots.setdefault(parent)
                break
    return [rules for root in roots for rules in sorted(root.parent.glob("rules*")) if rules.is_dir()]


# --------------------------------------------------------------------------------------------------- one info


def _cases(document: Document, folder: Path, errors: list[RuleError]) -> Iterator[Case]:
    ids = list(_rule_ids(document))
    tests = document.data.get("regression_tests_info") or []
    if not isinstance(tests, list):
        raise document.error("'regression_tests_info' is a list", "regression_tests_info")
    for index, test in enumerate(tests):
        path = ("regression_tests_info", index)
        try:
            records, least = _test(document, path, test, folder)
        except RuleError as error:
            errors.append(error)
            continue
        name = test.get("name") if isinstance(test, dict) else None
        for rule in ids:
            yield Case(rule, str(name or "sample"), records, (), False, document.at(*path), least)


def _rule_ids(document: Document) -> Iterator[str]:
    rules = document.data.get("rule_metadata")
    if not isinstance(rules, list) or not rules:
        raise document.error("'rule_metadata' names the rule", "rule_metadata")
    for index, rule in enumerate(rules):
        found = rule.get("id") if isinstance(rule, dict) else None
        try:
            yield str(UUID(str(found)))
        except ValueError:
            raise document.error("a rule is named by its id, a UUID", "rule_metadata", index, "id") from None


def _test(document: Document, path: tuple[str | int, ...], test: Yaml, folder: Path) -> tuple[tuple[bytes, ...], int]:
    """The records of one test, and how many of them must match."""
    if not isinstance(test, dict):
        raise document.error("a test is a mapping: name, type, path", *path)
    named, least = test.get("path"), test.get("match_count", 1)
    if not isinstance(named, str) or not named:
        raise document.error("a test has no 'path'", *path)
    if isinstance(least, bool) or not isinstance(least, int) or least < 0:
        raise document.error("'match_count' is a number", *path, "match_count")
    # The path is written from the root of their repository; the sample lies beside the info, its JSON twin too.
    file = folder / Path(named).name
    twin = file.with_suffix(".json")
    sample = twin if twin.is_file() else file
    if not sample.is_file():
        raise document.error(f"there is no sample {twin.name} beside it", *path, "path")
    try:
        with sample.open("rb") as stream:
            raw = stream.read(SAMPLE_LIMIT + 1)
    except OSError as error:
        raise document.error(f"sample {sample}: {error.strerror or error}", *path, "path") from error
    if len(raw) > SAMPLE_LIMIT:
        raise document.error(f"sample {sample} is larger than {SAMPLE_LIMIT} bytes", *path, "path")
    try:
        records = tuple(records_of(raw))
    except ValueError as error:
        raise document.error(f"sample {sample}: {error}", *path, "path") from error
    if not records:
        raise document.error(f"sample {sample} is empty", *path, "path")
    return records, least


def records_of(raw: bytes) -> Iterator[bytes]:
    """The JSON objects of a sample, written one after the other or in a list, each on one line.

    ValueError where it holds anything else.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    decoder = json.JSONDecoder()
    at = 0
    while (at := _past(text, at, _BLANK)) < len(text):
        line = text.count("\n", 0, at) + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no JSON in line {line}") from error
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise ValueError(f"an event is an object, line {line}")
        if isinstance(value, list):
            yield from (json.dumps(one).encode() for one in value)
        else:
            # As it was written: a name that stands twice, or a number of many digits, is the parser's to judge.
            yield text[at:end].replace("\r", " ").replace("\n", " ").encode()
        at = end


def _past(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at

"""pySigma's processing pipelines, applied to rules of others at load: for data whose fields have other names.
Counterpart: `loading` is told which; `pipelines/*.yml` are ours; what a parser gives by itself needs none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sigma.processing.pipeline import ProcessingItem, ProcessingPipeline
from sigma.rule import SigmaRule
from sigma.rule.detection import SigmaDetection, SigmaDetectionItem, SigmaDetections
from sigma.rule.logsource import SigmaLogSource
from sigma.types import SigmaString

from vedette.model.errors import Location, RuleError
from vedette.model.rules import Correlate, LogSource
from vedette.rules.conditions import Parts, failed
from vedette.rules.documents import Document, Yaml, read_documents
from vedette.rules.files import pipeline_files
from vedette.rules.items import PYSIGMA_ERRORS, one_line
from vedette.rules.problems import did_you_mean

ANY = "*"
"""What `change_logsource` writes for a word that a rule then does not ask for."""

_OUTSIDE = frozenset({"file_placeholders", "http_placeholders", "command_placeholders"})
_KEYS = ("name", "priority", "vars", "allowed_backends", "transformations", "postprocessing", "finalizers")


def load_pipelines(words: Sequence[str]) -> Pipelines | None:
    """The pipelines in the order of their priority, ties as given; None for none. RuleError with file:line."""
    if not words:
        return None
    read = [_read(file) for file in pipeline_files(words)]
    whole = ProcessingPipeline()
    names: list[str] = []
    for one in sorted(read, key=lambda pipeline: pipeline.priority):
        whole = whole + one
        names += [one.name or "(no name)"] * len(one.items)
    return Pipelines(whole, tuple(names))


def _read(file: Path) -> ProcessingPipeline:
    documents = read_documents(file)
    if len(documents) != 1:
        raise RuleError("a pipeline is one document", location=Location(str(file)))
    (document,) = documents
    data = document.data
    for key in data:
        if key not in _KEYS:
            raise document.error(f"unknown key {key!r}", key, hint=did_you_mean(key, _KEYS))
    items = data.get("transformations", [])
    if not isinstance(items, list):
        raise document.error("'transformations' is a list", "transformations")
    for index, item in enumerate(items):
        path = ("transformations", index)
        if outside := next((kind for kind in _kinds(item) if kind in _OUTSIDE), None):
            hint = "list the values under 'rules: placeholders:'"
            raise document.error(f"{outside!r} reaches outside this program", *path, hint=hint)
        try:
            with _quiet():
                # Once by itself, so that an error has its place. pySigma takes what it is given apart.
                ProcessingItem.from_dict(deepcopy(item))  # type: ignore[arg-type]
        except PYSIGMA_ERRORS as error:
            raise document.error(one_line(error), *path) from error
    # What shapes the text of queries concerns other tools: there is no query here.
    own = {key: deepcopy(value) for key, value in data.items() if key not in ("postprocessing", "finalizers")}
    try:
        with _quiet():
            pipeline = ProcessingPipeline.from_dict(own)
        if isinstance(pipeline.priority, bool) or not isinstance(pipeline.priority, int):
            raise document.error("'priority' is a whole number", "priority")
        if not isinstance(pipeline.vars, dict):
            raise document.error("'vars' is a mapping", "vars")
    except RuleError:
        raise
    except PYSIGMA_ERRORS as error:
        raise document.error(one_line(error)) from error
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """pySigma calls its own parser by names that it warns of; whoever runs a pipeline can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _kinds(item: Yaml) -> Iterator[str]:
    """Every `type` in an item, those of nested ones too."""
    if isinstance(item, dict):
        if isinstance(kind := item.get("type"), str):
            yield kind
        for value in item.values():
            yield from _kinds(value)
    elif isinstance(item, list):
        for value in item:
            yield from _kinds(value)


@dataclass(slots=True)
class Pipelines:
    """The pipelines of one run, applied to one rule after the other. names: of which each item of `whole` is."""

    whole: ProcessingPipeline
    names: tuple[str, ...]
    mapped: dict[tuple[LogSource, str], tuple[str, ...]] = field(default_factory=dict)

    def change(self, document: Document, logsource: LogSource, about: Mapping[str, Any], parts: Parts) -> LogSource:
        """What the pipelines make of a rule: `parts` are changed in place, the log source is given back.

        about: what pySigma knows of the rule besides (title, level, tags ...). RuleError where they fail it.
        """
        try:
            rule = _rule(logsource, about, parts.named, parts.conditions)
            self.whole.apply(rule)
            parts.named = dict(rule.detection.detections)
            parts.conditions = [str(condition.condition) for condition in rule.detection.parsed_condition]
            applied = zip(self.names, self.whole.applied, strict=True)
            parts.pipelines = tuple(dict.fromkeys(name for name, did in applied if did))
            return _logsource(rule.logsource)
        except PYSIGMA_ERRORS as error:
            raise failed(document, error) from error

    def names_of(self, logsource: LogSource, name: str) -> tuple[str, ...]:
        """What a field is called after the pipelines, in records of a log source; itself where they say nothing."""
        key = logsource, name
        if key not in self.mapped:
            part = SigmaDetection([SigmaDetectionItem(name, [], [SigmaString("x")])])
            try:
                rule = _rule(logsource, {"title": name}, {"part": part}, ["part"])
                self.whole.apply(rule)
                found = tuple(dict.fromkeys(_fields(rule.detection.detections["part"])))
            except PYSIGMA_ERRORS:
                # A pipeline that refuses rules it does not know says so of the rule itself.
                found = ()
            self.mapped[key] = found or (name,)
        return self.mapped[key]

    def name_of(self, logsource: LogSource, name: str, where: Location) -> str:
        """The one name of a field that is in a key; RuleError where it would be several."""
        found = self.names_of(logsource, name)
        if len(found) > 1:
            raise RuleError(f"a pipeline maps {name!r} to several fields: {', '.join(found)}", location=where)
        return found[0]

    def correlate(self, correlate: Correlate, sources: Mapping[str, LogSource | None], where: Location) -> Correlate:
        """A correlation over the renamed fields.

        sources: of the rules it counts, by the names it has for them; None for one the pipelines left alone.
        """
        renamed = {alias for alias, _rule, _name in correlate.aliases}

        def there(logsource: LogSource | None, name: str) -> str:
            return name if logsource is None else self.name_of(logsource, name, where)

        def everywhere(name: str) -> str:
            if name in renamed:
                return name
            found = {there(logsource, name) for logsource in sources.values()}
            if len(found) > 1:
                hint = "give it an alias with a field for each rule"
                raise RuleError(
                    f"the pipelines call {name!r} differently in the rules counted", location=where, hint=hint
                )
            return found.pop() if found else name

        return replace(
            correlate,
            group_by=tuple(map(everywhere, correlate.group_by)),
            fields=tuple(map(everywhere, correlate.fields)),
            aliases=tuple((alias, rule, there(sources.get(rule), name)) for alias, rule, name in correlate.aliases),
        )


def _rule(
    logsource: LogSource, about: Mapping[str, Any], named: dict[str, SigmaDetection], conditions: list[str]
) -> SigmaRule:
    source = SigmaLogSource(logsource.category or None, logsource.product or None, logsource.service or None)
    return SigmaRule(**about, logsource=source, detection=SigmaDetections(dict(named), list(conditions)))


def _logsource(source: SigmaLogSource) -> LogSource:
    words = [word if word and word != ANY else "" for word in (source.product, source.category, source.service)]
    return LogSource(*words)


def _fields(part: SigmaDetection) -> Iterator[str]:
    for one in part.detection_items:
        if isinstance(one, SigmaDetection):
            yield from _fields(one)
        elif one.field:
            yield one.field

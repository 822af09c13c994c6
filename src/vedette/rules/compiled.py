"""A rule as it comes out of its document, before it is linked with the others.
Counterpart: `sigma` and `correlations` make it, `loading` links it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vedette.model.errors import Location
from vedette.model.rules import LogSource, Rule
from vedette.rules.cases import Case
from vedette.rules.documents import Document, Yaml
from vedette.rules.problems import Problem, did_you_mean

_MOST_KEYS = 200
"""Of a mapping whose keys have a meaning; each that has none is compared with those that have."""

NOT_IN_KEYS = "vedette.source.candidates"
"""The one field no key may have: it holds addresses of which none is certain."""


@dataclass(slots=True)
class Compiled:
    """A rule before it is linked: correlations still name others as the file does (id or name)."""

    rule: Rule
    name: str
    generate: bool
    document: Document
    cases: tuple[Case, ...]
    problems: list[Problem] = field(default_factory=list)
    reference_paths: dict[str, Location] = field(default_factory=dict)
    fields: list[tuple[str, Location]] = field(default_factory=list)
    """Fields a correlation groups by or counts: how strictly they are judged depends on the rules it names."""
    strict: bool = False
    given: LogSource = field(default=LogSource())
    """The log source as the document says it; a pipeline may have changed the rule's."""

    piped: bool = False
    """Pipelines were applied to it."""

    @property
    def detects(self) -> bool:
        """Whether the rule has a condition of its own, as other than a correlation of other rules."""
        return "detection" in self.document.data


def check_keys(
    document: Document,
    found: dict[str, Yaml],
    known: tuple[str, ...],
    path: tuple[str, ...],
    *,
    all_known: bool = False,
) -> None:
    """Refuse a key that is a slip of a known one; with `all_known` every other key too."""
    if len(found) > _MOST_KEYS:
        raise document.error(f"more than {_MOST_KEYS} keys", *path)
    for key in found:
        if key in known:
            continue
        hint = did_you_mean(key.lower(), known, cutoff=0.8)
        if all_known or hint:
            raise document.error(f"unknown key {key!r}", *path, key, hint=hint)

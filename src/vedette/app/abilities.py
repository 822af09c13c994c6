"""What parsers and engine can do for rules, as lint asks it: log sources that are covered, what is looked for.
Counterpart: `parsers` and `detections` know it, `rules.lint` judges by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from vedette.detections.clauses import looked_for
from vedette.model.events import RecordKind
from vedette.model.rules import Rule
from vedette.parsers import cache as pattern_cache
from vedette.parsers import kinds
from vedette.parsers.events import log_sources_of
from vedette.parsers.families import FAMILIES
from vedette.rules.lint import Abilities
from vedette.system import kept


def abilities() -> Abilities:
    """Of this installation."""
    return Abilities(covered=lambda source: any(source.covers(kind) for kind in given_kinds()), atoms=atoms_of_rule)


def atoms_of_rule(rule: Rule) -> Sequence[str]:
    """What the scan looks for on behalf of a rule; nothing where it looks at every record."""
    return looked_for(rule.when)


@lru_cache
def given_kinds() -> tuple[RecordKind, ...]:
    """One kind a product, of every category and service that some parser of ours can give its records."""
    categories: dict[str, set[str]] = defaultdict(set)
    services: dict[str, set[str]] = defaultdict(set)
    for kind in _known():
        categories[kind.product] |= kind.categories
        services[kind.product] |= kind.services
    # Records whose product nobody can tell are covered by rules that name none; others by those as well.
    return tuple(
        RecordKind(product, frozenset(categories[product]), frozenset(services[product]))
        for product in sorted(categories)
    )


def _known() -> Iterator[RecordKind]:
    for file in pattern_cache.load(kept.folder()).files:
        yield RecordKind("linux", services=log_sources_of(file.service))
    yield from (family.kind for family in FAMILIES)
    yield from kinds.ECS_DATASETS.values()
    yield from kinds.OWN_KINDS.values()
    sysmon = {word for words in kinds.CATEGORIES["sysmon"].values() for word in words}
    windows = {word for by_id in kinds.CATEGORIES.values() for words in by_id.values() for word in words}
    yield RecordKind("windows", frozenset(windows), frozenset(kinds.CHANNELS.values()))
    for product in ("linux", "windows"):
        narrowed = {word for words in kinds.NARROWED.values() for word in words}
        of_ecs = {word for words in kinds.ECS_CATEGORIES.values() for word in words}
        yield RecordKind(product, frozenset(sysmon | narrowed | of_ecs), frozenset({"sysmon"}))
    yield RecordKind("macos", frozenset({word for words in kinds.ECS_CATEGORIES.values() for word in words}))
    for product, words in (
        ("azure", {*_flat(kinds.AZURE_SERVICES.values()), *_flat(pair[1] for pair in kinds.AZURE_MEMBERS)}),
        ("azure", {"activitylogs"}),
        ("gcp", _flat(kinds.GOOGLE_SERVICES.values())),
        ("m365", {"exchange", "threat_management", "threat_detection"}),
        ("zeek", {service for _, service in kinds.ZEEK_MEMBERS}),
    ):
        yield RecordKind(product, services=frozenset(words))
    yield kinds.windows_kind("rpcfw", "", 0, "")


def _flat(groups: Iterable[Iterable[str]]) -> set[str]:
    return {word for group in groups for word in group}

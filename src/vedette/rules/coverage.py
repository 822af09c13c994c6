"""What ATT&CK techniques the loaded rules look for, as rows and as a layer of the ATT&CK Navigator (format 4.5).
Counterpart: `cli.rules.covering` prints rows and writes the layer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vedette.model.levels import Level
from vedette.model.rules import LogSource, Rule

LAYER_FORMAT = "4.5"
NAVIGATOR = "5.0.0"
"""The oldest Navigator that all we write is meant for (the format asks for 4.9.0 at least)."""

_TECHNIQUE = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?)", re.IGNORECASE)
_OTHER = re.compile(r"attack\.([gsm]\d{4}|ds\d{4}|ta\d{4})", re.IGNORECASE)
_COLORS = ("#e8f1fa", "#6baed6", "#08519c")
_COMMENT_RULES = 20


class By(StrEnum):
    """What coverage is counted by."""

    TECHNIQUE = "technique"
    TACTIC = "tactic"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Row:
    """What covers one technique, tactic or log source. techniques: of its rules, sorted; rules: in load order."""

    name: str
    rules: tuple[Rule, ...]
    techniques: tuple[str, ...]

    @property
    def level(self) -> Level:
        """The highest level among its rules."""
        return max(rule.level for rule in self.rules)


def techniques_of(rule: Rule) -> tuple[str, ...]:
    """The techniques a rule's tags name, `T1110` or `T1110.001`, sorted."""
    return tuple(sorted({match[1].upper() for tag in rule.tags if (match := _TECHNIQUE.fullmatch(tag))}))


def tactics_of(rule: Rule) -> tuple[str, ...]:
    """The tactics a rule's tags name, as ATT&CK shortens them: `credential-access`; sorted."""
    return tuple(
        sorted(
            {
                tag.split(".", 1)[1].lower().replace("_", "-")
                for tag in rule.tags
                if tag.lower().startswith("attack.") and not _TECHNIQUE.fullmatch(tag) and not _OTHER.fullmatch(tag)
            }
        )
    )


def source_words(source: LogSource) -> str:
    """A log source as `product/category/service`, what it leaves out left out; `any` where that is all."""
    return "/".join(word for word in (source.product, source.category, source.service) if word) or "any"


_NAMES: dict[By, Callable[[Rule], Sequence[str]]] = {
    By.TECHNIQUE: techniques_of,
    By.TACTIC: tactics_of,
    By.SERVICE: lambda rule: (source_words(rule.logsource),),
}


def coverage(rules: Iterable[Rule], by: By = By.TECHNIQUE) -> list[Row]:
    """Rows by name; rules that only count for others are left out, correlations have the sources of what they count."""
    rules = list(rules)
    sources = {rule.id: rule.logsource for rule in rules}
    found: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        if rule.silent:
            continue
        names = _NAMES[by](rule)
        if by is By.SERVICE and rule.correlate is not None and rule.logsource == LogSource():
            counted = {source_words(sources[one]) for one in rule.correlate.of if one in sources}
            names = sorted(counted) or names
        for name in names:
            found[name].append(rule)
    return [
        Row(name, tuple(its), tuple(sorted({one for rule in its for one in techniques_of(rule)})))
        for name, its in sorted(found.items())
    ]


def untagged(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that are heard and name no technique."""
    return [rule for rule in rules if not rule.silent and not techniques_of(rule)]


def layer(rules: Iterable[Rule], name: str = "Vedette") -> dict[str, Any]:
    """The layer as JSON-ready values: one entry a technique, its score the number of rules."""
    rules = list(rules)
    rows = coverage(rules)
    most = max((len(row.rules) for row in rows), default=1)
    return {
        "name": name,
        "versions": {"layer": LAYER_FORMAT, "navigator": NAVIGATOR},
        "domain": "enterprise-attack",
        "description": f"{sum(not rule.silent for rule in rules)} rules, {len(rows)} techniques; "
        "the score of a technique is how many rules look for it",
        "sorting": 3,
        "layout": {
            "layout": "side",
            "showID": True,
            "showName": True,
            "showAggregateScores": True,
            "aggregateFunction": "sum",
            "expandedSubtechniques": "annotated",
        },
        "hideDisabled": False,
        "techniques": [_technique(row) for row in rows],
        "gradient": {"colors": list(_COLORS), "minValue": 0, "maxValue": most},
        "legendItems": [
            {"label": "few rules", "color": _COLORS[0]},
            {"label": f"{most} rules" if most > 1 else "1 rule", "color": _COLORS[-1]},
        ],
        "selectTechniquesAcrossTactics": True,
        "selectSubtechniquesWithParent": False,
    }


def _technique(row: Row) -> dict[str, Any]:
    shown = [f"{rule.name} ({rule.id}, {rule.level.label})" for rule in row.rules[:_COMMENT_RULES]]
    if len(row.rules) > len(shown):
        shown.append(f"and {len(row.rules) - len(shown)} more")
    sources = sorted({source_words(rule.logsource) for rule in row.rules if rule.logsource != LogSource()})
    return {
        "techniqueID": row.name,
        "score": len(row.rules),
        "comment": "\n".join(shown),
        "enabled": True,
        "metadata": [{"name": "highest level", "value": row.level.label}]
        + [{"name": "log source", "value": source} for source in sources],
    }

"""What rules need of records, so that nothing else is made: fields beside those they test, and log sources.
Counterpart: `match` fills the fields in for matched records; `app` has parsers look at these log sources alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vedette.detections.tree import looks_at_records
from vedette.model.rules import LogSource, Rule

# What every finding says besides its key.
OUTPUT_FIELDS = ("host.name", "source.ip", "user.name")


def needed_fields(rules: Sequence[Rule]) -> dict[str, frozenset[int] | None]:
    """The fields that keys, windows and output need, with the rules whose matches need them (None: all), sorted."""
    users: dict[str, set[int]] = {}
    for index, rule in enumerate(rules):
        fields = {*rule.key, *filter(None, (rule.level_from,))}
        if rule.response is not None:
            fields.add(rule.response.target)
        needing = {index}
        if rule.branch is not None:
            fields.update(rule.branch.fields)
            if rule.branch.precedent is not None:
                of = set(rule.branch.precedent.of)
                needing |= {at for at, other in enumerate(rules) if other.id in of}
        if rule.correlate is not None:
            fields.update(rule.correlate.group_by)
            fields.update(field for _, _, field in rule.correlate.aliases)
            fields.update(rule.correlate.fields)
            of = set(rule.correlate.of)
            needing |= {at for at, other in enumerate(rules) if other.id in of or of & set(other.groups)}
        for field in fields:
            users.setdefault(field, set()).update(needing)
    everywhere: dict[str, frozenset[int] | None] = dict.fromkeys(OUTPUT_FIELDS)
    everywhere |= {field: frozenset(needing) for field, needing in users.items() if field not in everywhere}
    return dict(sorted(everywhere.items()))


def log_sources(rules: Iterable[Rule]) -> frozenset[LogSource]:
    """The log sources whose records some rule looks at."""
    return frozenset(rule.logsource for rule in rules if looks_at_records(rule))

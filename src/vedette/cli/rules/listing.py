"""`vedette rules list`: the rules that load, with level, kind, step and what they look at.
Counterpart: `rules.loading` loads them."""

from __future__ import annotations

from typing import Any

from vedette.app.abilities import atoms_of_rule
from vedette.cli.options import Config, Output, Pipelines, RulePaths
from vedette.cli.output import OK, WRONG, Format, errors_said, note, table, write_json
from vedette.config.load import load_settings
from vedette.model.rules import Raw, Rule, Test, tests_of
from vedette.rules.coverage import source_words
from vedette.rules.loading import load


def list_rules(
    paths: RulePaths = None, pipeline: Pipelines = None, config: Config = None, output: Output = Format.TEXT
) -> None:
    """The rules that load, with level, kind, step and what they ask for; without PATHS, those of the configuration."""
    with errors_said():
        settings = load_settings(config).rules
        if paths:
            result = load(paths, keep_going=True, settings=settings, pipelines=pipeline or ())
        else:
            result = load(
                settings.paths, packs=settings.packs, keep_going=True, settings=settings, pipelines=pipeline or ()
            )
        for problem in result.errors:
            note(str(problem))
        if output is Format.JSON:
            write_json(_record(rule) for rule in result.rules)
        else:
            # Only who uses pipelines has something to see there.
            piped = any(rule.pipelines for rule in result.rules)
            table(
                (
                    *("RULE", "LEVEL", "KIND", "STEP", "BLOCKS", "LOOKS AT", "FIELDS", "ATOMS"),
                    *(("PIPELINES",) if piped else ()),
                    "NAME",
                ),
                [
                    (
                        rule.id,
                        rule.level.label,
                        _kind(rule),
                        rule.step.value,
                        rule.response.target if rule.response else "",
                        source_words(rule.logsource),
                        len(fields_of(rule)),
                        len(atoms_of_rule(rule)) or "-",
                        *((", ".join(rule.pipelines) or "-",) if piped else ()),
                        rule.name,
                    )
                    for rule in result.rules
                ],
            )
        raise SystemExit(WRONG if result.errors else OK)


def _kind(rule: Rule) -> str:
    if rule.silent:
        return "silent"
    return rule.correlate.kind.value if rule.correlate else rule.kind.value


def fields_of(rule: Rule) -> list[str]:
    """The fields whose values decide or are counted, in order of first use; keywords are `(any text)`."""
    names = [leaf.field if isinstance(leaf, Test) else "(any text)" for leaf in tests_of(rule.when)]
    if rule.correlate is not None:
        names += [*rule.correlate.group_by, *rule.correlate.fields]
    return list(dict.fromkeys(names))


def _record(rule: Rule) -> dict[str, Any]:
    leaves = list(tests_of(rule.when))
    return {
        "rule.id": rule.id,
        "rule.name": rule.name,
        "level": rule.level.label,
        "kind": _kind(rule),
        "step": rule.step.value,
        "logsource": {
            "product": rule.logsource.product,
            "category": rule.logsource.category,
            "service": rule.logsource.service,
        },
        "key": list(rule.correlate.group_by if rule.correlate else rule.key),
        "fields": fields_of(rule),
        "keywords": sum(isinstance(leaf, Raw) for leaf in leaves),
        "atoms": list(atoms_of_rule(rule)),
        "pipelines": list(rule.pipelines),
        "of": list(rule.correlate.of) if rule.correlate else [],
        "response.target": rule.response.target if rule.response else None,
        "tags": list(rule.tags),
        "advice": rule.advice or None,
        "file": rule.origin.file,
        "line": rule.origin.line,
    }

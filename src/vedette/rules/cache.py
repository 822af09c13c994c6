"""Compiled rules kept between runs, so that a start need not compile what has not changed.
Counterpart: `app.detection` asks before it loads; whatever cannot be read or trusted is compiled anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vedette import __version__
from vedette.model.errors import Location
from vedette.model.levels import Level
from vedette.model.linefilters import LineFilter
from vedette.model.rules import (
    All,
    Branch,
    Clause,
    Comparison,
    Correlate,
    CorrelationKind,
    DatePart,
    Firing,
    LogSource,
    Node,
    Not,
    NotifyStep,
    Op,
    Precedent,
    Raw,
    Response,
    Rule,
    RuleKind,
    Scope,
    Test,
    Threshold,
)
from vedette.model.rules import (
    Any as AnyOf,
)
from vedette.system import kept as keeping

_NAME, _VERSION = "vedette-rules", 9
_KEPT = 32
"""Files kept in the folder; each is one set of rules somebody ran."""


def key_of(files: Iterable[Path], *about: object) -> str:
    """The key of what these files compile to; `about` is whatever else it depends on. OSError where one is gone."""
    return keeping.key_of(files, _NAME, _VERSION, __version__, about)


def kept(key: str, where: Path) -> tuple[list[Rule], list[str]] | None:
    """The rules kept under `key`, and what was said of those left out.

    None where there are none, or where the folder is not ours alone.
    """
    data = keeping.read(f"{key}.json", where)
    try:
        name, version, rules, left_out = msgspec.json.decode(data or b"")
        return ([_rule(one) for one in rules], left_out) if (name, version) == (_NAME, _VERSION) else None
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError):
        return None


def keep(key: str, rules: Sequence[Rule], left_out: Sequence[str], where: Path) -> None:
    """Keep `rules` and what is to be said of those left out; a folder nobody can write in stops nobody."""
    plain = [_plain(rule) for rule in rules]
    keeping.write(f"{key}.json", msgspec.json.encode([_NAME, _VERSION, plain, list(left_out)]), where, most=_KEPT)


def _plain(rule: Rule) -> dict[str, Any]:
    """A rule as JSON-ready values; the condition as nested lists, since its parts are told apart by their type."""
    out: dict[str, Any] = msgspec.to_builtins({name: getattr(rule, name) for name in rule.__slots__ if name != "when"})
    out["when"] = _plain_node(rule.when)
    return out


def _plain_node(node: Node) -> list[Any]:
    match node:
        case All(parts):
            return ["all", [_plain_node(part) for part in parts]]
        case AnyOf(parts):
            return ["any", [_plain_node(part) for part in parts]]
        case Not(part):
            return ["not", _plain_node(part)]
        case Raw(pattern, regex, cased):
            return ["raw", pattern, regex, cased]
        case Test(field, op, values, every, cased, part):
            return ["test", field, op.value, list(values), every, cased, part and part.value]


def _node(plain: list[Any]) -> Node:
    kind, *rest = plain
    if kind == "all":
        return All(tuple(_node(part) for part in rest[0]))
    if kind == "any":
        return AnyOf(tuple(_node(part) for part in rest[0]))
    if kind == "not":
        return Not(_node(rest[0]))
    if kind == "raw":
        return Raw(*rest)
    if kind == "test":
        field, op, values, every, cased, part = rest
        return Test(field, Op(op), tuple(values), every, cased, part and DatePart(part))
    raise ValueError(f"unknown part {kind!r}")


def _rule(plain: dict[str, Any]) -> Rule:
    correlate, response, lines = plain["correlate"], plain["response"], plain["lines"]
    if correlate is not None:
        correlate = Correlate(
            **{
                **correlate,
                "kind": CorrelationKind(correlate["kind"]),
                "firing": Firing(correlate["firing"]),
                "of": tuple(correlate["of"]),
                "group_by": tuple(correlate["group_by"]),
                "threshold": tuple(
                    Threshold(Comparison(one["comparison"]), one["value"]) for one in correlate["threshold"]
                ),
                "aliases": tuple(tuple(one) for one in correlate["aliases"]),
                "fields": tuple(correlate["fields"]),
                "clauses": tuple(Clause(tuple(one["needs"]), tuple(one["without"])) for one in correlate["clauses"]),
            }
        )
    return Rule(
        **{
            **plain,
            **{name: tuple(plain[name]) for name in ("parents", "groups", "key", "tags", "references", "pipelines")},
            "when": _node(plain["when"]),
            "level": Level(plain["level"]),
            "kind": RuleKind(plain["kind"]),
            "scope": Scope(plain["scope"]),
            "step": NotifyStep(plain["step"]),
            "logsource": LogSource(**plain["logsource"]),
            "origin": Location(**plain["origin"]),
            "correlate": correlate,
            "response": None if response is None else Response(**response),
            "lines": None if lines is None else LineFilter.from_plain(lines),
            "branch": _branch(plain["branch"]),
        }
    )


def _branch(plain: dict[str, Any] | None) -> Branch | None:
    if plain is None:
        return None
    precedent = plain["precedent"]
    if precedent is not None:
        lists = {name: tuple(precedent[name]) for name in ("of", "same", "different")}
        precedent = Precedent(**{**precedent, **lists})
    lists = {name: tuple(plain[name]) for name in ("ignores", "ignored", "decoders")}
    return Branch(**{**plain, **lists, "precedent": precedent})

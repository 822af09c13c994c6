"""What Sigma lacks and our rules say under the one mapping `vedette:`; unknown keys there are errors.
Counterpart: `sigma` puts it into the rule, `cases` runs the cases found here."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.model.errors import VedetteError
from vedette.model.fields import FIELDS
from vedette.model.rules import Comparison, Correlate, CorrelationKind, NotifyStep, Response, RuleKind, Scope, Threshold
from vedette.rules.cases import Case, read_cases
from vedette.rules.documents import Document, Yaml
from vedette.rules.parameters import PARAMETER_NAMES, Parameter
from vedette.rules.problems import did_you_mean
from vedette.text.times import parse_duration

KEYS = (
    "kind",
    "scope",
    "key",
    "clears",
    "level-from",
    "response",
    "notify",
    "advice",
    "after",
    "order",
    "stop",
    "parents",
    "groups",
    "silent",
    "parameters",
    "cases",
)
_RESPONSE_KEYS = ("target", "lease", "factor", "longest")
_AFTER_KEYS = ("rules", "group-by", "timespan", "gte")


@dataclass(frozen=True, slots=True)
class Extras:
    """The mapping `vedette:`, read."""

    kind: RuleKind = RuleKind.EVENT
    scope: Scope = Scope.HOST
    key: tuple[str, ...] = ()
    clears: str = ""
    level_from: str = ""
    response: Response | None = None
    step: NotifyStep | None = None
    advice: str = ""
    after: Correlate | None = None
    order: int = 0
    stop: bool = False
    silent: bool = False
    parents: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()


def read_extras(document: Document, rule_id: str) -> Extras:
    """What stands under `vedette:`; defaults where it is not there."""
    value = document.data.get("vedette")
    if "vedette" not in document.data:
        return Extras()
    found = _mapping(document, ("vedette",), value, KEYS)
    reader = _Values(document, found, ("vedette",))
    return Extras(
        kind=RuleKind(reader.one_of("kind", [kind.value for kind in RuleKind], RuleKind.EVENT.value)),
        scope=Scope(reader.one_of("scope", [scope.value for scope in Scope], Scope.HOST.value)),
        key=reader.words("key"),
        clears=reader.text("clears"),
        level_from=_level_from(document, reader.text("level-from")),
        response=_response(document, found["response"]) if "response" in found else None,
        step=NotifyStep(reader.one_of("notify", [step.value for step in NotifyStep], ""))
        if "notify" in found
        else None,
        advice=" ".join(reader.text("advice").split()),
        after=_after(document, found["after"]) if "after" in found else None,
        order=reader.number("order", 0),
        stop=reader.flag("stop"),
        silent=reader.flag("silent"),
        parents=reader.words("parents"),
        groups=reader.words("groups"),
        cases=read_cases(document, rule_id, found["cases"]) if "cases" in found else (),
    )


def read_parameters(document: Document) -> dict[str, Parameter]:
    """`vedette.parameters`: the parameters the rule needs, each with the value its cases are written for."""
    mapping = document.data.get("vedette")
    if not isinstance(mapping, dict) or "parameters" not in mapping:
        return {}
    path = ("vedette", "parameters")
    found = _mapping(document, path, mapping["parameters"], PARAMETER_NAMES)
    parameters: dict[str, Parameter] = {}
    for name, value in found.items():
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            parameters[name] = tuple(map(str, value))
        elif isinstance(value, int) and not isinstance(value, bool):
            parameters[name] = value
        else:
            raise document.error(f"{name!r} has as its value what the cases use: a number or a list", *path, name)
    return parameters


def _mapping(document: Document, path: tuple[str | int, ...], value: Yaml, known: tuple[str, ...]) -> dict[str, Yaml]:
    if not isinstance(value, dict):
        raise document.error(f"{path[-1]!r} is a mapping with the keys {', '.join(known)}", *path)
    for key in value:
        if key not in known:
            raise document.error(f"unknown key {key!r} under {path[-1]!r}", *path, key, hint=did_you_mean(key, known))
    return value


@dataclass(frozen=True, slots=True)
class _Values:
    """Typed access to one mapping, with errors that know the place."""

    document: Document
    found: dict[str, Yaml]
    path: tuple[str | int, ...]

    def wrong(self, key: str, what: str) -> VedetteError:
        return self.document.error(f"{key!r} is {what}", *self.path, key)

    def text(self, key: str, default: str = "") -> str:
        value = self.found.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def flag(self, key: str) -> bool:
        value = self.found.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, default: int, least: int | None = None) -> int:
        value = self.found.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
            raise self.wrong(key, "a whole number" + (f", at least {least}" if least is not None else ""))
        return value

    def words(self, key: str) -> tuple[str, ...]:
        value = self.found.get(key, [])
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.wrong(key, "a list of words")
        words = tuple(map(str, value))
        if len(set(words)) != len(words):
            raise self.wrong(key, "a list in which no word is there twice")
        return words

    def one_of(self, key: str, known: list[str], default: str) -> str:
        value = self.found.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return value

    def duration(self, key: str, default: int) -> int:
        if key not in self.found:
            return default
        try:
            value = parse_duration(str(self.found[key]))
        except (ValueError, OverflowError):
            raise self.wrong(key, "a duration, 1h30m for example") from None
        if value <= 0:
            raise self.wrong(key, "longer than nothing")
        return value


def _level_from(document: Document, name: str) -> str:
    known = FIELDS.get(name)
    if name and (known is None or known.attacker_text):
        raise document.error(
            f"{name!r} is no declared field, or one whose text an attacker may choose", "vedette", "level-from"
        )
    return name


def _response(document: Document, value: Yaml) -> Response:
    path = ("vedette", "response")
    found = _mapping(document, path, value, _RESPONSE_KEYS)
    reader = _Values(document, found, path)
    defaults = Response()
    response = Response(
        target=reader.text("target", defaults.target),
        lease=reader.duration("lease", defaults.lease),
        factor=reader.number("factor", defaults.factor, least=1),
        longest=reader.duration("longest", defaults.longest),
    )
    if response.longest < response.lease:
        raise document.error("'longest' is shorter than 'lease'", *path, "longest")
    return response


def _after(document: Document, value: Yaml) -> Correlate:
    path = ("vedette", "after")
    found = _mapping(document, path, value, _AFTER_KEYS)
    for key in ("rules", "timespan", "gte"):
        if key not in found:
            raise document.error(f"'after' has no {key!r}", *path)
    reader = _Values(document, found, path)
    rules = reader.words("rules")
    if not rules:
        raise document.error("'rules' names no rule", *path, "rules")
    return Correlate(
        kind=CorrelationKind.EVENT_COUNT,
        of=rules,
        group_by=reader.words("group-by"),
        timespan=reader.duration("timespan", 0),
        threshold=(Threshold(Comparison.GTE, reader.number("gte", 1, least=1)),),
        preceding=True,
    )

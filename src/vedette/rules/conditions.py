"""Sigma's `detection` to a tree of tests: named parts read, changed by pipelines, joined as the condition says.
Counterpart: `sigma` and `filters` call this for each document; `items` reads what stands in a part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sigma.conditions import ConditionAND
from sigma.rule.detection import SigmaDetection

from vedette.model.errors import RuleError
from vedette.model.rules import All, Any, Node, Not, Raw, Test
from vedette.rules.documents import Document, Yaml
from vedette.rules.expressions import Expression, ExpressionError, Join, Name, Negation, Selector, parse_expression
from vedette.rules.items import (
    PYSIGMA_ERRORS,
    FieldSeen,
    Placeholders,
    Reader,
    item_node,
    joined,
    one_line,
    place_of,
)
from vedette.rules.problems import did_you_mean

WEIGHT_LIMIT = 250_000
"""Values of all tests of one document's conditions, those of a part counted each time one names it."""

__all__ = ["PYSIGMA_ERRORS", "Detection", "FieldSeen", "Parts", "compile_parts", "one_line", "read_parts"]


@dataclass(slots=True)
class Parts:
    """The named parts of a detection or filter as they are read, and the texts of its conditions.

    path: where the mapping stands in the document. A pipeline may change both. pipelines: those that did.
    """

    path: tuple[str, ...]
    named: dict[str, SigmaDetection]
    conditions: list[str]
    listed: bool = False
    """The conditions stand in a list, of which one must hold."""
    pipelines: tuple[str, ...] = ()

    def rename(self, names: Mapping[str, str]) -> None:
        """Call fields otherwise."""
        waiting = list(self.named.values())
        while waiting:
            for one in waiting.pop().detection_items:
                if isinstance(one, SigmaDetection):
                    waiting.append(one)
                elif one.field is not None:
                    one.field = names.get(one.field, one.field)


@dataclass(frozen=True, slots=True)
class Detection:
    """A compiled `detection`: the condition on a record, and the named parts it never used."""

    when: Node
    unused: tuple[str, ...]


def read_parts(
    document: Document,
    path: tuple[str, ...],
    placeholders: Placeholders,
    *,
    besides: Collection[str] = (),
    left_open: bool = False,
) -> Parts:
    """The parts under `path`, which is a mapping; `besides`: its keys that are no parts. RuleError with the place.

    left_open: placeholders that are not known may stay, for a pipeline that knows them.
    """
    detection = document.data.get(path[0])
    what = repr(path[0])
    if not isinstance(detection, dict):
        raise document.error(f"{what} is a mapping of names to what they look for", *path)
    if "timeframe" in detection:
        raise document.error(
            "'timeframe' is not supported", *path, "timeframe", hint="write a correlation of type event_count"
        )
    if "condition" not in detection:
        raise document.error(f"{what} has no 'condition'", *path)
    reader = Reader(document, placeholders, left_open)
    named = {
        name: _definition(reader, (*path, name), definition)
        for name, definition in detection.items()
        if name != "condition" and name not in besides
    }
    if not named:
        raise document.error(f"{what} has nothing to look for besides its condition", *path)
    given = detection["condition"]
    several = given if isinstance(given, list) else [given]
    if not several:
        raise document.error("'condition' is empty", *path, "condition")
    conditions: list[str] = []
    for index, text in enumerate(several):
        if not isinstance(text, str) or not text.strip():
            raise document.error("a condition is text", *path, "condition", index)
        conditions.append(text)
    return Parts(path, named, conditions, isinstance(given, list))


def compile_parts(document: Document, parts: Parts, seen: FieldSeen) -> Detection:
    """The tree of tests; RuleError with the place of what is wrong."""
    joiner = _Joiner(document, parts, {name: _node(document, part, seen) for name, part in parts.named.items()})
    nodes = [joiner.condition(index, text) for index, text in enumerate(parts.conditions)]
    when = nodes[0] if len(nodes) == 1 else Any(tuple(nodes))
    return Detection(when, tuple(name for name in parts.named if name not in joiner.used))


# ------------------------------------------------------------------------------------------ what is looked for


def _definition(reader: Reader, path: tuple[str | int, ...], definition: Yaml) -> SigmaDetection:
    if isinstance(definition, dict | list) and not definition:
        raise reader.document.error("looks for nothing", *path)
    if isinstance(definition, dict):
        return SigmaDetection([reader.item((*path, key), key, value) for key, value in definition.items()])
    if isinstance(definition, list) and any(isinstance(element, dict | list) for element in definition):
        return SigmaDetection([_definition(reader, (*path, i), element) for i, element in enumerate(definition)])
    return SigmaDetection([reader.item(path, None, definition)])


def _node(document: Document, detection: SigmaDetection, seen: FieldSeen) -> Node | None:
    """The tests of a part; None where a pipeline left nothing of it, so that nothing can be said about it."""
    nodes = [
        _node(document, one, seen) if isinstance(one, SigmaDetection) else item_node(one, document, seen)
        for one in detection.detection_items
    ]
    return _joined(detection.item_linking is ConditionAND, nodes)


def _joined(every: bool, nodes: Iterable[Node | None]) -> Node | None:
    left = [node for node in nodes if node is not None]
    return joined(All if every else Any, left) if left else None


# ------------------------------------------------------------------------------------------------- the condition


@dataclass(slots=True)
class _Joiner:
    """Puts the parts of one document where its conditions name them."""

    document: Document
    parts: Parts
    nodes: Mapping[str, Node | None]
    used: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)
    weight: int = 0

    def condition(self, index: int, text: str) -> Node:
        path: tuple[str | int, ...] = (*self.parts.path, "condition")
        if self.parts.listed:
            path = (*path, index)
        try:
            found = self.build(parse_expression(text), path)
            if found is None:
                raise self.document.error("the pipelines leave nothing of this condition", *path)
            return found
        except ExpressionError as error:
            raise self.document.error(f"condition not understood: {error}", *path) from error

    def build(self, expression: Expression, path: tuple[str | int, ...]) -> Node | None:
        match expression:
            case Name(name):
                if name not in self.nodes:
                    hint = did_you_mean(name, self.nodes)
                    raise self.document.error(f"condition names {name!r}, which is not there", *path, hint=hint)
                return self.take(name, path)
            case Selector(_, every):
                self.count(len(self.nodes), path)
                found = expression.chosen(self.nodes)
                if not found:
                    raise self.document.error(f"'{expression}' names no part of this rule", *path)
                return _joined(every, [self.take(name, path) for name in found])
            case Negation(of):
                part = self.build(of, path)
                return None if part is None else Not(part)
            case Join(every, of):
                # What stands there twice says nothing the second time.
                parts = {id(node): node for node in (self.build(one, path) for one in of)}
                return _joined(every, parts.values())

    def take(self, name: str, path: tuple[str | int, ...]) -> Node | None:
        node = self.nodes[name]
        if name not in self.weights:
            self.weights[name] = 0 if node is None else _weight(node)
        self.used.add(name)
        self.count(self.weights[name], path)
        return node

    def count(self, weight: int, path: tuple[str | int, ...]) -> None:
        self.weight += weight
        if self.weight > WEIGHT_LIMIT:
            raise self.document.error(f"a condition over more than {WEIGHT_LIMIT} values", *path)


def _weight(node: Node) -> int:
    match node:
        case All(parts) | Any(parts):
            return sum(map(_weight, parts))
        case Not(part):
            return _weight(part)
        case Test(values=values):
            return max(1, len(values))
        case Raw():
            return 1


def failed(document: Document, error: BaseException) -> RuleError:
    """What a pipeline or pySigma says of a whole document."""
    return RuleError(one_line(error), location=place_of(getattr(error, "source", None), document))

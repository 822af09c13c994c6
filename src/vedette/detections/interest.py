"""Whether any rule may hold on a record of which only some fields are known: what none may hold on need not be read.
Counterpart: a parser asks before it reads a message; `predicates` judge what was read, and must never find more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vedette.detections.tree import looks_at_records
from vedette.model.events import RecordKind, Scalar, Value
from vedette.model.rules import All, Any, Node, Not, Op, Raw, Rule, Test, tests_of

_OF_VALUES = frozenset(
    {Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE, Op.REGEX, Op.CIDR, Op.LT, Op.LTE, Op.GT, Op.GTE}
)


class Interest:
    """Asked with a record's kind and what is known of its fields: None where absent, not named where anything may be.

    False: no rule holds on such a record, whatever its other fields and its text are. fields: those that are
    looked at; it makes no difference what is known of others.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [rule for rule in rules if looks_at_records(rule)]
        self._covering: dict[RecordKind, list[Node]] = {}
        leaves = (leaf for rule in self._rules for leaf in tests_of(rule.when))
        self.fields = frozenset(leaf.field for leaf in leaves if isinstance(leaf, Test))

    def __call__(self, kind: RecordKind, known: Mapping[str, Value]) -> bool:
        nodes = self._covering.get(kind)
        if nodes is None:
            covering = (rule.when for rule in self._rules if rule.logsource.covers(kind))
            nodes = self._covering[kind] = list(dict.fromkeys(covering))
        return any(_holds(node, known) is not False for node in nodes)


def _holds(node: Node, known: Mapping[str, Value]) -> bool | None:
    """Whether a condition holds; None where it depends on what is not known."""
    match node:
        case All(parts):
            verdicts = [_holds(part, known) for part in parts]
            return False if False in verdicts else None if None in verdicts else True
        case Any(parts):
            verdicts = [_holds(part, known) for part in parts]
            return True if True in verdicts else None if None in verdicts else False
        case Not(part):
            verdict = _holds(part, known)
            return None if verdict is None else not verdict
        case Raw():
            return None
        case Test():
            return _test(node, known[node.field]) if node.field in known else None


def _test(test: Test, value: Value) -> bool | None:
    if value is None:
        return False if test.op in _OF_VALUES else None
    if test.op is not Op.EQUALS or test.part is not None or test.all:
        return None
    text = _text(value)
    wanted = [_text(one) for one in test.values]
    if text is None or None in wanted:
        return None
    if text in wanted:
        return True
    # Ideas of case differ beyond ASCII; where any says that they are equal, it is for the test itself to judge.
    folded = {one.casefold() for one in wanted if one is not None} | {one.lower() for one in wanted if one is not None}
    return None if {text.casefold(), text.lower()} & folded else False


def _text(value: Value | Scalar) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int)) else None

"""The meaning of a condition, one record and one value at a time, as slow and obvious as it can be written.
Counterpart: `vedette.detections.match`, which must say the same of whole batches."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test

Fields = Mapping[str, object]


def text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def number(value: object) -> float | None:
    if isinstance(value, bool) or not re.fullmatch(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*", text(value)):
        return None
    return float(text(value))


def glob(pattern: str, value: str, *, anchored: bool = True) -> bool:
    """`*` any run, `?` one character, backslash takes the next literally."""
    out, characters = "", iter(pattern)
    for character in characters:
        if character in "*?":
            out += ".*" if character == "*" else "."
        else:
            out += re.escape(next(characters, "\\") if character == "\\" else character)
    match = re.compile(out, re.DOTALL).fullmatch if anchored else re.compile(out, re.DOTALL).search
    return match(value) is not None


def compare(op: Op, value: object, wanted: object, *, cased: bool) -> bool:
    left, right = text(value), text(wanted)
    if not cased and op is not Op.REGEX:
        left, right = left.lower(), right.lower()
    if op is Op.EQUALS:
        return left == right
    if op is Op.CONTAINS:
        return right in left
    if op is Op.STARTSWITH:
        return left.startswith(right)
    if op is Op.ENDSWITH:
        return left.endswith(right)
    if op is Op.LIKE:
        return glob(right, left)
    if op is Op.REGEX:
        return re.search(right, left) is not None
    if op is Op.CIDR:
        try:
            return ipaddress.ip_address(left) in ipaddress.ip_network(right, strict=False)
        except ValueError:
            return False
    a, b = number(value), number(wanted)
    if a is None or b is None:
        return False
    return {Op.LT: a < b, Op.LTE: a <= b, Op.GT: a > b, Op.GTE: a >= b}[op]


def holds(node: Node, fields: Fields, message: str) -> bool:
    """Whether `node` holds of a record with these fields; a field that is not there is absent."""
    match node:
        case All(parts):
            return all(holds(part, fields, message) for part in parts)
        case Any(parts):
            return any(holds(part, fields, message) for part in parts)
        case Not(part):
            return not holds(part, fields, message)
        case Raw(pattern, regex, cased):
            if regex:
                return re.search(pattern, message) is not None
            return glob(pattern if cased else pattern.lower(), message if cased else message.lower(), anchored=False)
        case Test(field, op, values, every, cased):
            if op is Op.EXISTS:
                return (field in fields) is bool(values[0])
            value = fields.get(field)
            if op is Op.NULL:
                return value is None or value == ()
            own = [one for one in (value if isinstance(value, tuple) else (value,)) if one is not None]
            if op is Op.FIELDREF:
                other = fields.get(text(values[0]))
                others = [one for one in (other if isinstance(other, tuple) else (other,)) if one is not None]
                return any(compare(Op.EQUALS, a, b, cased=cased) for a in own for b in others)
            results = [any(compare(op, one, wanted, cased=cased) for one in own) for wanted in values]
            return all(results) if every else any(results)
    raise AssertionError(node)

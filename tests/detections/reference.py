"""The meaning of rules, one record and one value at a time, as slow and obvious as it can be written.
Counterpart: `vedette.detections.match`, which must say the same of whole batches."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from vedette.model.events import RecordKind
from vedette.model.rules import All, Any, DatePart, LogSource, Node, Not, Op, Raw, Rule, Test

Fields = Mapping[str, object]


# ------------------------------------------------------------------------------------------------- one value


def text(value: object) -> str:
    """`1` equals `"1"`; a boolean is `true` or `false`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def number(value: object) -> float | None:
    """A number, or a text that writes one in decimal (ASCII); a boolean is none, and what no double holds is none."""
    written = re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text(value), re.ASCII)
    if isinstance(value, bool) or not written:
        return None
    found = float(text(value))
    return found if math.isfinite(found) else None


def moment(value: object) -> datetime | None:
    """The time a value names, in UTC: written by ISO 8601 (no zone is UTC), or counted since 1970.

    Counted in the largest of seconds, milli-, micro- and nanoseconds that keeps it below 1e11 of them.
    """
    written = re.fullmatch(
        r"\s*(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:\d\d)?\s*", text(value), re.ASCII
    )
    if written and isinstance(value, str):
        day, clock, _, zone = written.groups()
        try:
            return datetime.fromisoformat(f"{day}T{clock}{(zone or 'Z').replace('Z', '+00:00')}").astimezone(UTC)
        except ValueError:
            return None
    count = number(value)
    if count is None or abs(count) >= 1e20:
        return None
    seconds = next(count / unit for unit in (1, 10**3, 10**6, 10**9) if abs(count) < 1e11 * unit)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def part_of_time(part: DatePart, value: object) -> int | None:
    """Week is of ISO 8601; a value that names no time has no part."""
    at = moment(value)
    if at is None:
        return None
    parts = {"minute": at.minute, "hour": at.hour, "day": at.day, "month": at.month, "year": at.year}
    return {**parts, "week": at.isocalendar().week}[part.value]


def address(value: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as text, ASCII, at most 64 characters: a zone is dropped, IPv4 written as IPv6 is IPv4."""
    written = text(value)
    if not written.isascii() or len(written) > 64:
        return None
    try:
        found = ipaddress.IPv6Address(written.partition("%")[0]) if ":" in written else ipaddress.IPv4Address(written)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    found = ipaddress.ip_network(text(value), strict=False)
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    return found if mapped is None else ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False)


def glob(pattern: str, value: str, *, cased: bool) -> bool:
    """Whether `value` is as `pattern` says: `*` any run, `?` one character, a backslash takes the next literally.

    Caseless means that both are case-folded as a whole, so that `?` is one character of the folded value.
    """
    tokens: list[str | None] = []  # a character, "" for any one, None for any run
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            tokens.append(None)
        elif character == "?":
            tokens.append("")
        else:
            literal = next(characters, "\\") if character == "\\" else character
            tokens.extend(literal if cased else literal.casefold())
    value = value if cased else value.casefold()
    # The lengths of the beginnings of `value` that the tokens so far can be.
    reached = {0}
    for token in tokens:
        if token is None:
            reached = set(range(min(reached), len(value) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(value) and token in ("", value[at])}
    return len(value) in reached


def compare(op: Op, value: object, wanted: object, *, cased: bool, part: DatePart | None = None) -> bool:
    """Whether one value that is there, and not null, is as one value of a test wants it."""
    if part is not None:
        value = part_of_time(part, value)
        if op is Op.EQUALS:
            return value is not None and value == number(wanted)
    left, right = text(value), text(wanted)
    if op is Op.REGEX:
        return python_pattern(right).search(left) is not None
    if op is Op.LIKE:
        return glob(right, left, cased=cased)
    if op is Op.CIDR:
        own, block = address(value), network(wanted)
        return own is not None and own.version == block.version and own in block
    if op in (Op.LT, Op.LTE, Op.GT, Op.GTE):
        a, b = number(value), number(wanted)
        if a is None or b is None:
            return False
        return {Op.LT: a < b, Op.LTE: a <= b, Op.GT: a > b, Op.GTE: a >= b}[op]
    if not cased:
        left, right = left.casefold(), right.casefold()
    return {
        Op.EQUALS: left == right,
        Op.CONTAINS: right in left,
        Op.STARTSWITH: left.startswith(right),
        Op.ENDSWITH: left.endswith(right),
    }[op]


_REFERENCES = {
    Op.FIELDREF: Op.EQUALS,
    Op.FIELDREF_STARTSWITH: Op.STARTSWITH,
    Op.FIELDREF_ENDSWITH: Op.ENDSWITH,
    Op.FIELDREF_CONTAINS: Op.CONTAINS,
}


# ------------------------------------------------------------------------------------------------ one record


def one_by_one(value: object) -> list[object]:
    """The values of a field that are not null."""
    return [one for one in (value if isinstance(value, tuple) else (value,)) if one is not None]


def holds(node: Node, fields: Fields, strings: str | Sequence[str]) -> bool:
    """Whether `node` holds of a record with these fields; a field that is not there is absent.

    strings: what keywords look at: the message, or every string value of the event.
    """
    match node:
        case All(parts):
            return all(holds(part, fields, strings) for part in parts)
        case Any(parts):
            return any(holds(part, fields, strings) for part in parts)
        case Not(part):
            return not holds(part, fields, strings)
        case Raw(pattern, regex, cased):
            if not regex:
                pattern = f"*{pattern}*" if not _ends_escaping(pattern) else f"*{pattern}\\*"
            return any(
                python_pattern(pattern).search(one) is not None if regex else glob(pattern, one, cased=cased)
                for one in ([strings] if isinstance(strings, str) else strings)
            )
        case Test(field, op, values, every, cased, part):
            if op is Op.EXISTS:
                return (field in fields) is bool(values[0])
            value = fields.get(field)
            if op is Op.NULL:
                return value is None or value == ()
            own = one_by_one(value)
            if op in _REFERENCES:
                others = [one_by_one(fields.get(text(name))) for name in values]
                how = _REFERENCES[op]
                results = [any(compare(how, a, b, cased=cased) for a in own for b in theirs) for theirs in others]
            else:
                results = [any(compare(op, one, wanted, cased=cased, part=part) for one in own) for wanted in values]
            return all(results) if every else any(results)
    raise AssertionError(f"the reference does not know {node}")


def _ends_escaping(pattern: str) -> bool:
    """Whether the last backslash has nothing after it that it could take literally, so that it is one itself."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


# ---------------------------------------------------------------------------------------------- rules, as trees


def covers(logsource: LogSource, kind: RecordKind) -> bool:
    """Whether a rule of this log source looks at records of this kind; a part it leaves out looks at all."""
    if logsource.product and logsource.product != kind.product:
        return False
    if logsource.category and logsource.category not in kind.categories:
        return False
    return not logsource.service or logsource.service in kind.services


def hits(rules: Sequence[Rule], fields: Fields, strings: str | Sequence[str], kind: RecordKind) -> set[int]:
    """The indexes of the rules one record is given to.

    A record that satisfies a rule goes down to those of its children that take it, highest order first, and is
    the rule's own hit where none does; after a child that stops, the siblings behind it are not asked. A
    correlated child only proposes: it takes nothing away.
    """

    def named(parent: Rule) -> list[int]:
        names = {parent.id, *parent.groups}
        children = [at for at, rule in enumerate(rules) if names & set(rule.parents)]
        return sorted(children, key=lambda at: (-rules[at].order, at))

    def takes(at: int) -> bool:
        return covers(rules[at].logsource, kind) and holds(rules[at].when, fields, strings)

    def descend(at: int) -> set[int]:
        found: set[int] = set()
        taken = False
        for child in named(rules[at]):
            if not takes(child):
                continue
            found |= descend(child)
            if rules[child].correlate is None:
                taken = True
                if rules[child].stop:
                    break
        return found if taken else found | {at}

    found: set[int] = set()
    for at, rule in enumerate(rules):
        counts_others_only = rule.correlate is not None and not rule.correlate.preceding
        if not rule.parents and not counts_others_only and takes(at):
            found |= descend(at)
    return found


# ------------------------------------------------------------------- RE2's words in those of Python's own module

_CLASSES = {"d": "0123456789", "s": "\t\n\f\r ", "w": "0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"}
_WORD = f"[{_CLASSES['w']}]"
_BOUNDARY = f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))"
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}


@cache
def python_pattern(pattern: str) -> re.Pattern[str]:
    """An RE2 pattern (what tests here write of it) as Python reads it.

    They differ: in RE2 `$` is the very end, `\\d \\s \\w \\b` know ASCII alone, and caseless is simple case folding.
    """
    flags = ""
    if leading := re.match(r"\(\?([ims]+)\)", pattern):
        flags, pattern = leading[1], pattern[leading.end() :]
    caseless = "i" in flags
    out = []
    at = 0
    while at < len(pattern):
        character, at = pattern[at], at + 1
        if character == "\\":
            letter, at = pattern[at], at + 1
            if letter.lower() in _CLASSES:
                out.append(_set(set(_CLASSES[letter.lower()]), caseless, negated=letter.isupper()))
            elif letter in "bB":
                out.append(_BOUNDARY if letter == "b" else f"(?!{_BOUNDARY})")
            elif letter in "Az":
                out.append("\\A" if letter == "A" else "\\Z")
            elif letter == "x":
                out.append(_set({chr(int(pattern[at : at + 2], 16))}, caseless))
                at += 2
            elif letter in _CONTROL:
                out.append(_set({_CONTROL[letter]}, caseless))
            elif letter.isascii() and letter.isalnum():
                raise AssertionError(f"the reference does not know \\{letter}")
            else:
                out.append(re.escape(letter))
        elif character == "[":
            end = pattern.index("]", at + 1 + (pattern[at] == "^"))
            body, at = pattern[at:end], end + 1
            out.append(_set(_members(body.removeprefix("^")), caseless, negated=body.startswith("^")))
        elif character == "$" and "m" not in flags:
            out.append("\\Z")
        elif construct := re.compile(r"\(\?:|\{\d+(,\d*)?\}|[\^$.|()*+?]").match(pattern, at - 1):
            out.append(construct[0])
            at = construct.end()
        else:
            out.append(_set({character}, caseless))
    kept = "".join(flag for flag in flags if flag in "ms")
    return re.compile((f"(?{kept})" if kept else "") + "".join(out))


def _members(body: str) -> set[str]:
    """The characters between the brackets of a class."""
    members: list[str] = []
    at = 0
    while at < len(body):
        character, at = body[at], at + 1
        if character == "\\":
            letter, at = body[at], at + 1
            members.extend(_CLASSES.get(letter) or _CONTROL.get(letter) or letter)
        elif character == "-" and members and at < len(body):
            last, at = body[at], at + 1
            members.extend(map(chr, range(ord(members[-1]), ord(last) + 1)))
        else:
            members.append(character)
    return set(members)


def _set(members: set[str], caseless: bool, *, negated: bool = False) -> str:
    if caseless:
        members = set().union(*(_same_letter()[simple_fold(one)] | {one} for one in members))
    return f"[{'^' * negated}{''.join(map(re.escape, sorted(members)))}]"


def simple_fold(character: str) -> str:
    """Simple case folding: one character stays one character."""
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return folded
    return character


@cache
def _same_letter() -> Mapping[str, set[str]]:
    letters: dict[str, set[str]] = {}
    for character in map(chr, range(0x2200)):
        letters.setdefault(simple_fold(character), set()).add(character)
    return _Letters(letters)


class _Letters(dict[str, set[str]]):
    def __missing__(self, folded: str) -> set[str]:
        return {folded}

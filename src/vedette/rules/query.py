"""A query line made into the condition of a rule: `source.ip:203.0.113.0/24 AND NOT event.outcome:success "port 22"`.
Counterpart: `detections` run the condition, as they run those of rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import TYPE_CHECKING, NoReturn

from vedette.model.errors import Location, RuleError
from vedette.model.fields import FIELDS, FieldType
from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test
from vedette.rules.likes import escape_like
from vedette.text.addresses import canonical, parse, parse_network
from vedette.text.regex import compile_re2
from vedette.text.times import parse_rfc3339

if TYPE_CHECKING:
    from luqum.tree import Item

LONGEST, DEEPEST, MOST = 4096, 32, 200
"""Characters, nested parentheses or NOTs, and tests that one query may have."""

EVERYTHING: Node = Test("event.original", Op.EXISTS, (True,))
"""The condition of a query that asks for nothing in particular."""

_TIME = "@timestamp"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNWANTED = {
    "Fuzzy": "`~` behind a word (similar words) is not known",
    "Proximity": "`~` behind a phrase (words near each other) is not known",
    "Boost": "`^` (weight) is not known: what matches is not ranked",
}


@dataclass(frozen=True, slots=True)
class Query:
    """What a query line asks for.

    node: the condition on a record. since, until: what the line itself says of `@timestamp`, microseconds; the
    range is closed at its begin and open at its end. None where it says nothing.
    """

    text: str
    node: Node
    since: int | None = None
    until: int | None = None


def parse_query(text: str, *, name: str = "query") -> Query:
    """The query of a line; an empty one and `*` ask for every record. RuleError has the column, and a hint.

    Words are looked for in the whole record and in its decoded values, whatever the case; `field:value` means what
    it means in a rule, of fields that are running text that the value occurs in it. `*` and `?` stand for any run
    and any one character, `\\` takes their meaning away, as quotes do; `/.../` is a regular expression (RE2). Words
    without AND or OR between them must all be there.
    """
    if len(text) > LONGEST:
        raise RuleError(f"the query is longer than {LONGEST} characters", location=Location(name, 1, LONGEST + 1))
    if not text.strip() or text.strip() == "*":
        return Query(text, EVERYTHING)
    reading = _Reading(text, name)
    node = reading.node(_tree(text, name), "")
    since, until = reading.since, reading.until
    return Query(text, EVERYTHING if node == All(()) else node, since, until)


def _tree(text: str, name: str) -> Item:
    """The syntax tree; RuleError where it is none, or one too deep to walk."""
    from luqum.exceptions import IllegalCharacterError, ParseError
    from luqum.thread import parse as parse_line

    _check_depth(text, name)
    try:
        return parse_line(text)
    except (ParseError, IllegalCharacterError) as error:
        said = str(error)
        found = re.search(r"at position ([0-9]+)", said)
        at = int(found[1]) if found else len(text)
        if found and at < len(text):
            what = f"{text[at]!r} is not expected here"
            hint = 'in quotes it is text: field:"value", or \\ before the character'
        else:
            what, hint = "the query ends too soon", 'close what was opened: ( ) [ ] " /'
        raise RuleError(what, location=Location(name, 1, at + 1), hint=hint) from None
    except ArithmeticError:
        # It makes numbers of what stands behind `~` and `^` before anybody asks for them.
        what, hint = "`~` and `^` (similar words, weight) are not known", "in quotes it is text"
        raise RuleError(what, location=Location(name, 1, 1), hint=hint) from None
    except RecursionError:
        raise RuleError("the query is nested too deeply", location=Location(name, 1, 1)) from None


def _check_depth(text: str, name: str) -> None:
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth > DEEPEST:
            raise RuleError(f"more than {DEEPEST} parentheses within each other", location=Location(name, 1, at + 1))


class _Reading:
    """One query on its way from luqum's tree to ours."""

    def __init__(self, text: str, name: str) -> None:
        self.since: int | None = None
        self.until: int | None = None
        self._text, self._name = text, name
        self._tests = 0

    def fail(self, item: Item, what: str, hint: str = "") -> NoReturn:
        raise RuleError(what, location=Location(self._name, 1, (item.pos or 0) + 1), hint=hint)

    def node(self, item: Item, field: str, *, top: bool = True, depth: int = 0) -> Node:
        """The condition of a part. field: whose value it is about, "" = the record. top: it must hold."""
        from luqum import tree

        if depth > DEEPEST * 2:
            self.fail(item, "the query is nested too deeply")

        def below(part: Item, *, must: bool = top) -> Node:
            return self.node(part, field, top=must, depth=depth + 1)

        match item:
            case tree.AndOperation() | tree.UnknownOperation() | tree.BoolOperation():
                parts = [below(part) for part in item.children]
                return _all(parts)
            case tree.OrOperation():
                alone = len(item.children) == 1
                return Any(tuple(below(part, must=top and alone) for part in item.children))
            case tree.Not() | tree.Prohibit():
                return Not(below(item.a, must=False))
            case tree.Plus() | tree.Group() | tree.FieldGroup():
                return below(item.children[0])
            case tree.SearchField():
                if field:
                    self.fail(item, f"a field within the value of {field!r}")
                return self.node(item.expr, item.name.replace("\\", ""), top=top, depth=depth + 1)
            case tree.Word() | tree.Phrase() | tree.Regex() | tree.Range() | tree.OpenRange():
                self._tests += 1
                if self._tests > MOST:
                    self.fail(item, f"more than {MOST} tests in one query")
                return self._test(item, field, top)
        kind = type(item).__name__
        self.fail(item, _UNWANTED.get(kind, f"{kind} is not known"), "in quotes it is text")

    def _test(self, item: Item, field: str, top: bool) -> Node:
        from luqum import tree

        match item:
            case tree.Regex():
                return self._regex(item, field)
            case tree.Range() | tree.OpenRange():
                return self._range(item, field, top)
            case tree.Phrase():
                return self._plain(item, field, _ESCAPE.sub(r"\1", item.value[1:-1]))
        like = item.value
        runs = _like(like)
        if runs is None:
            return self._plain(item, field, _ESCAPE.sub(r"\1", like))
        if not field:
            if not runs.strip("*"):
                return All(())
            return _anywhere(runs.strip("*"))
        if runs == "*":
            return Test(field, Op.EXISTS, (True,))
        if _type(field) is FieldType.TEXT:
            runs = f"*{runs.strip('*')}*"
        return Test(field, Op.LIKE, (runs,))

    def _plain(self, item: Item, field: str, text: str) -> Node:
        """A word or a phrase without wildcards."""
        if not field:
            if not text:
                self.fail(item, "a search for no text at all", "* asks for every record")
            return _anywhere(escape_like(text))
        kind = _type(field)
        if field == _TIME:
            self.fail(item, "a time is asked for as a range", f"{_TIME}:[2026-11-24T02:00:00Z TO 2026-11-24T03:00:00Z]")
        if kind is FieldType.TEXT:
            return Test(field, Op.CONTAINS, (text,))
        if kind is FieldType.IP or (kind is None and "/" in text):
            return self._address(item, field, text, declared=kind is FieldType.IP)
        if kind is FieldType.LONG and not _NUMBER.fullmatch(text):
            self.fail(item, f"{field} is a number, {text!r} is none", f"{field}:22 or {field}:[1 TO 1023]")
        if kind is FieldType.BOOLEAN and text.lower() not in ("true", "false"):
            self.fail(item, f"{field} is true or false")
        return Test(field, Op.EQUALS, (text,))

    def _address(self, item: Item, field: str, text: str, *, declared: bool) -> Node:
        try:
            network = parse_network(text)
        except ValueError as error:
            if declared:
                self.fail(item, f"{field}: {error}", "203.0.113.9, 203.0.113.0/24, 203.0.113.*")
            return Test(field, Op.EQUALS, (text,))
        if not declared:
            return Any((Test(field, Op.EQUALS, (text,)), Test(field, Op.CIDR, (str(network),))))
        if network.prefixlen == network.max_prefixlen:
            return Test(field, Op.EQUALS, (canonical(str(network.network_address)),))
        return Test(field, Op.CIDR, (str(network),))

    def _regex(self, item: Item, field: str) -> Node:
        pattern = item.value[1:-1].replace("\\/", "/")
        try:
            compile_re2(pattern)
        except ValueError as error:
            self.fail(item, f"no regular expression: {error}", "RE2's syntax; (?i) ignores case")
        if not field:
            return Any((Test("event.original", Op.REGEX, (pattern,)), Raw(pattern, regex=True)))
        return Test(field, Op.REGEX, (pattern,))

    # ------------------------------------------------------------------------------------------------ ranges

    def _range(self, item: Item, field: str, top: bool) -> Node:
        from luqum import tree

        if not field:
            self.fail(item, "a range of nothing", "name the field: source.port:[1 TO 1023]")
        low: tuple[str, bool] | None
        high: tuple[str, bool] | None
        if isinstance(item, tree.Range):
            low = (_value(item.low), item.include_low)
            high = (_value(item.high), item.include_high)
        elif isinstance(item, tree.From):
            low, high = (_value(item.a), item.include), None
        else:
            low, high = None, (_value(item.a), item.include)
        low = None if low is None or low[0] == "*" else low
        high = None if high is None or high[0] == "*" else high
        if low is None and high is None:
            return Test(field, Op.EXISTS, (True,))
        if field == _TIME:
            return self._times(item, low, high, top)
        if _type(field) is FieldType.IP:
            return self._addresses(item, field, low, high)
        return self._numbers(item, field, low, high)

    def _numbers(self, item: Item, field: str, low: tuple[str, bool] | None, high: tuple[str, bool] | None) -> Node:
        tests: list[Node] = []
        for bound, closed, opened in ((low, Op.GTE, Op.GT), (high, Op.LTE, Op.LT)):
            if bound is None:
                continue
            if not _NUMBER.fullmatch(bound[0]):
                self.fail(item, f"{bound[0]!r} is no number", "ranges are of numbers, addresses and of @timestamp")
            number = float(bound[0]) if "." in bound[0] else int(bound[0])
            tests.append(Test(field, closed if bound[1] else opened, (number,)))
        return _all(tests)

    def _addresses(self, item: Item, field: str, low: tuple[str, bool] | None, high: tuple[str, bool] | None) -> Node:
        ends = []
        for bound, step in ((low, 1), (high, -1)):
            address = None if bound is None else parse(bound[0])
            if bound is None or address is None:
                self.fail(item, f"{field}: a range of addresses names both ends", f"{field}:[10.0.0.1 TO 10.0.0.9]")
            ends.append(int(address) + (0 if bound[1] else step))
        kind = type(parse(low[0])) if low else IPv4Address
        if high is None or type(parse(high[0])) is not kind or ends[0] > ends[1] or min(ends) < 0:
            self.fail(item, f"{field}: there is no address in this range")
        if kind is IPv4Address:
            networks = [str(one) for one in summarize_address_range(IPv4Address(ends[0]), IPv4Address(ends[1]))]
        else:
            networks = [str(one) for one in summarize_address_range(IPv6Address(ends[0]), IPv6Address(ends[1]))]
        return Test(field, Op.CIDR, tuple(networks))

    def _times(self, item: Item, low: tuple[str, bool] | None, high: tuple[str, bool] | None, top: bool) -> Node:
        if not top:
            self.fail(item, f"{_TIME} within OR or NOT", "a range of time goes for the whole query: --since, --until")
        if low is not None:
            since = self._moment(item, low[0], 0) + (not low[1])
            self.since = since if self.since is None else max(self.since, since)
        if high is not None:
            until = self._moment(item, high[0], 86_400_000_000 if high[1] else 0)
            until += bool(high[1]) and not _DATE.fullmatch(high[0])
            self.until = until if self.until is None else min(self.until, until)
        return All(())

    def _moment(self, item: Item, text: str, whole_day: int) -> int:
        """Microseconds of a time; of a bare date its beginning, `whole_day` later."""
        try:
            if _DATE.fullmatch(text):
                return parse_rfc3339(f"{text}T00:00:00Z") + whole_day
            return parse_rfc3339(text)
        except ValueError:
            self.fail(item, f"{text!r} is no time", f"{_TIME}:[2026-11-24T02:00:00Z TO *], or a date")


def _type(field: str) -> FieldType | None:
    declared = FIELDS.get(field)
    return declared.type if declared else None


def _all(parts: list[Node]) -> Node:
    """All of the parts, without those that say nothing."""
    nodes = tuple(part for part in parts if part != All(()))
    return nodes[0] if len(nodes) == 1 else All(nodes)


def _anywhere(like: str) -> Node:
    """The text of an unanchored Op.LIKE pattern anywhere in the record or in one of its decoded values."""
    raw = Raw(like)
    plain = _like(like) is None
    whole = (
        Test("event.original", Op.CONTAINS, (_ESCAPE.sub(r"\1", like),))
        if plain
        else Test("event.original", Op.LIKE, (f"*{like}*",))
    )
    return Any((whole, raw))


def _value(item: Item) -> str:
    """The text of one end of a range."""
    text: str = item.value
    return text[1:-1] if text.startswith('"') else text.replace("\\", "")


def _like(text: str) -> str | None:
    """A word of the query as Op.LIKE wants it, runs of `*` made one; None where it has no wildcard."""
    out: list[str] = []
    wild = False
    characters = iter(text)
    for character in characters:
        if character == "\\":
            out.append(escape_like(next(characters, "\\")))
        elif character in "*?":
            wild = True
            if not (character == "*" and out and out[-1] == "*"):
                out.append(character)
        else:
            out.append(character)
    return "".join(out) if wild else None

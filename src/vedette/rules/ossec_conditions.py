"""One rule's conditions on a record, from its XML elements to the tree of tests.
Counterpart: `ossec` reads the rest of a rule and puts it into the decision tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pcre2

from vedette.model.errors import Location, RuleError
from vedette.model.rules import All, Any, Node, Not, Op, Test
from vedette.rules.ossec_words import (
    DATA,
    LOCATION,
    LOG,
    MINUTE,
    PATTERNS,
    SIZE,
    USER,
    WEEKDAY,
    Dialect,
)
from vedette.text.addresses import parse_network
from vedette.text.osregex import Anchor, os_match, os_regex
from vedette.text.ossec_xml import Element
from vedette.text.regex import compile_re2

_OPS = {
    Anchor.ANYWHERE: Op.CONTAINS,
    Anchor.START: Op.STARTSWITH,
    Anchor.END: Op.ENDSWITH,
    Anchor.WHOLE: Op.EQUALS,
}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?\s*(am|pm)?", re.IGNORECASE)

Lists = Callable[[str], Sequence[tuple[str, str]]]
"""The keys and values of a list by its path; RuleError where there is none."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Reads the conditions of the rules of one file. file: where they stand."""

    file: str
    dialect: Dialect
    lists: Lists

    def of(self, rule: Element) -> Node:
        """Everything the rule asks of a record by itself."""
        parts: list[Node] = []
        for name in PATTERNS:
            if (node := self._pattern(rule, name)) is not None:
                parts.append(node)
        for name in ("srcip", "dstip"):
            addresses = list(rule.all(name))
            if addresses:
                parts.append(self._addresses(f"{DATA}{name}", addresses))
        for child in rule.children:
            match child.name:
                case "field":
                    parts.append(self._dynamic(child))
                case "list":
                    parts.append(self._list(child))
                case "time":
                    parts.append(self._time(child))
                case "weekday":
                    parts.append(self._weekday(child))
                case "compiled_rule":
                    parts.append(self._program(child))
        if "maxsize" in rule.attributes:
            parts.append(Test(SIZE, Op.GTE, (int(rule.attributes["maxsize"]),)))
        return All(tuple(parts))

    def _where(self, element: Element) -> Location:
        return Location(self.file, element.line)

    # ------------------------------------------------------------------------------------------------ patterns

    def _pattern(self, rule: Element, name: str) -> Node | None:
        """Elements of one name are one pattern in pieces."""
        field, *defaults = PATTERNS[name]
        default = defaults[self.dialect is Dialect.WAZUH]
        fields = [field]
        if name == "extra_data" and self.dialect is Dialect.OSSEC:
            fields.append(f"{DATA}data")  # two names of one field there
        parts: list[Node] = []
        for spelled, kind in ((name, default), (f"{name}_pcre2", "caseless")):
            elements = list(rule.all(spelled))
            if name == "regex" and spelled == "regex_pcre2":
                elements = list(rule.all("pcre2"))
            if elements:
                tests = tuple(self._joined(one, elements, kind) for one in fields)
                parts.append(tests[0] if len(tests) == 1 else Any(tests))
        return None if not parts else parts[0] if len(parts) == 1 else All(tuple(parts))

    def _joined(self, field: str, elements: Sequence[Element], kind: str) -> Node:
        negate = False
        for element in elements:
            kind = element.attributes.get("type", kind).lower()
            negate = (
                element.attributes.get("negate", "no").lower() == "yes" if "negate" in element.attributes else negate
            )
        return self._test(field, "".join(element.text for element in elements), kind, elements[-1], negate)

    def _test(self, field: str, text: str, kind: str, element: Element, negate: bool) -> Node:
        node: Node
        if kind == "osmatch" and self.dialect is Dialect.WAZUH and text.startswith("!"):
            text, negate = text[1:], not negate
        try:
            if kind == "osmatch":
                node = _literals(field, text)
            elif kind == "osregex":
                node = Test(field, Op.REGEX, (_checked(os_regex(text)),))
            elif kind == "pcre2":
                node = Test(field, Op.REGEX, (_checked(text),))
            elif kind == "caseless":
                # What OSSEC calls pcre2 does not heed case; Wazuh's type pcre2 does.
                node = Test(field, Op.REGEX, (_checked(f"(?i){text}"),))
            elif kind == "string":
                node = Test(field, Op.EQUALS, (text,), cased=True)
            else:
                raise ValueError(f"there is no pattern type {kind!r}")
        except ValueError as error:
            raise RuleError(f"<{element.name}>: {error}", location=self._where(element)) from None
        if not negate:
            return node
        # What a record does not have is no match, whatever is asked of it.
        return All((Test(field, Op.EXISTS, (True,)), Not(node)))

    def _dynamic(self, element: Element) -> Node:
        name = element.attributes.get("name", "").strip().lower()
        if not name:
            raise RuleError("<field> without a name", location=self._where(element))
        kind = element.attributes.get("type", "osregex").lower()
        negate = element.attributes.get("negate", "no").lower() == "yes"
        return self._test(f"{DATA}{name}", element.text, kind, element, negate)

    def _addresses(self, field: str, elements: Sequence[Element]) -> Node:
        wanted: list[str] = []
        unwanted: list[str] = []
        for element in elements:
            for text in element.text.replace(",", " ").replace("|", " ").split():
                other = text.startswith("!") or element.attributes.get("negate", "no").lower() == "yes"
                plain = text.lstrip("!")
                try:
                    network = str(parse_network("0.0.0.0/0" if plain == "any" else _whole(plain)))
                except ValueError:
                    raise RuleError(f"{plain!r} is no address or network", location=self._where(element)) from None
                (unwanted if other else wanted).append(network)
        parts: list[Node] = []
        if wanted:
            parts.append(Test(field, Op.CIDR, tuple(wanted)))
        if unwanted:
            parts += [Test(field, Op.EXISTS, (True,)), Not(Test(field, Op.CIDR, tuple(unwanted)))]
        return All(tuple(parts))

    # ---------------------------------------------------------------------------------------------------- lists

    def _list(self, element: Element) -> Node:
        where = self._where(element)
        name = element.attributes.get("field", "").strip().lower()
        lookup = element.attributes.get("lookup", "match_key").lower()
        if not name:
            raise RuleError("<list> without a field", location=where)
        field = USER if name == "user" else PATTERNS[name][0] if name in PATTERNS else f"{DATA}{name}"
        entries = self.lists(element.text.strip())
        if lookup.endswith("_value"):
            holds = _judge(element.attributes.get("check_value", ""))
            entries = [(key, value) for key, value in entries if holds(value)]
        keys = tuple(dict.fromkeys(key for key, _value in entries))
        match lookup.removeprefix("not_").removesuffix("_value"):
            case "match_key":
                node: Node = Test(field, Op.EQUALS, keys, cased=True) if keys else Any(())
            case "address_match_key":
                node = _address_keys(field, keys)
            case _:
                raise RuleError(f"there is no lookup {lookup!r}", location=where)
        if lookup.startswith("not_"):
            return All((Test(field, Op.EXISTS, (True,)), Not(node)))
        return node

    # ----------------------------------------------------------------------------------------------------- time

    def _time(self, element: Element) -> Node:
        text = element.text.strip()
        negate = text.startswith("!")
        ends = [_minute(part) for part in re.split(r"\s*-\s*", text.lstrip("!").strip())]
        if len(ends) != 2 or None in ends:
            raise RuleError(f"{text!r} is no span of the day", location=self._where(element), hint="6 pm - 8:30 am")
        begin, end = ends
        after, before = Test(MINUTE, Op.GTE, (begin,)), Test(MINUTE, Op.LTE, (end,))
        node: Node = All((after, before)) if int(begin or 0) <= int(end or 0) else Any((after, before))
        return Not(node) if negate else node

    def _weekday(self, element: Element) -> Node:
        text = element.text.strip().lower()
        negate = text.startswith("!")
        days: set[int] = set()
        for word in re.split(r"[,\s]+", text.lstrip("!")):
            if word == "weekdays":
                days.update(range(5))
            elif word == "weekends":
                days.update((5, 6))
            elif word:
                found = [at for at, day in enumerate(_DAYS) if day.startswith(word) and len(word) >= 3]
                if len(found) != 1:
                    raise RuleError(f"{word!r} is no day", location=self._where(element))
                days.update(found)
        if not days:
            raise RuleError("<weekday> names no day", location=self._where(element))
        node = Test(WEEKDAY, Op.EQUALS, tuple(sorted(days)))
        return Not(node) if negate else node

    # ------------------------------------------------------------------------------------------------- programs

    def _program(self, element: Element) -> Node:
        name = element.text.strip()
        if name not in _PROGRAMS:
            raise RuleError(f"the compiled rule {name!r} has no equal", location=self._where(element))
        return _PROGRAMS[name]


_PROGRAMS: dict[str, Node] = {
    "comp_srcuser_dstuser": All(
        (
            Test(f"{DATA}srcuser", Op.EXISTS, (True,)),
            Test(f"{DATA}dstuser", Op.EXISTS, (True,)),
            Not(Test(f"{DATA}srcuser", Op.FIELDREF, (f"{DATA}dstuser",), cased=True)),
        )
    ),
    "check_id_size": Test(f"{DATA}id", Op.REGEX, (r"(?s)\A.{10,}",)),
    # No query, and nothing is sent: OSSEC spares such requests its search for attacks.
    "is_simple_http_request": All(
        (
            Test(f"{DATA}url", Op.EXISTS, (True,)),
            Not(Test(f"{DATA}url", Op.CONTAINS, ("?",))),
            Not(Test(f"{DATA}action", Op.EQUALS, ("POST",))),
        )
    ),
    # Where the crawlers of large search engines come from.
    "is_valid_crawler": Test(
        LOG, Op.STARTSWITH, ("66.249.", "72.14.", "209.85.", "65.55.", "207.46.", "74.6.", "72.30.", "67.195.")
    ),
}


def _checked(pattern: str) -> str:
    """A pattern that one of the two libraries takes; ValueError with the words of the first where none does."""
    try:
        compile_re2(pattern)
    except ValueError as refused:
        try:
            pcre2.compile(pattern)
        except (pcre2.LibraryError, pcre2.error, ValueError):
            raise refused from None
    return pattern


def _literals(field: str, pattern: str) -> Node:
    by_op: dict[Op, list[str]] = {}
    for anchor, literal in os_match(pattern):
        by_op.setdefault(_OPS[anchor], []).append(literal)
    tests = [Test(field, op, tuple(literals)) for op, literals in by_op.items()]
    return tests[0] if len(tests) == 1 else Any(tuple(tests))


def _judge(pattern: str) -> Callable[[str], bool]:
    search = [(anchor, literal.lower()) for anchor, literal in os_match(pattern)]

    def holds(value: str) -> bool:
        text = value.lower()
        return any(
            {
                Anchor.ANYWHERE: literal in text,
                Anchor.START: text.startswith(literal),
                Anchor.END: text.endswith(literal),
                Anchor.WHOLE: text == literal,
            }[anchor]
            for anchor, literal in search
        )

    return holds


def _address_keys(field: str, keys: Sequence[str]) -> Node:
    """Keys are addresses, networks, or beginnings of addresses that end in a dot."""
    networks, beginnings = [], []
    for key in keys:
        try:
            networks.append(str(parse_network(key)))
        except ValueError:
            beginnings.append(key if key.endswith((".", ":")) else f"{key}.")
    parts: list[Node] = []
    if networks:
        parts.append(Test(field, Op.CIDR, tuple(networks)))
    if beginnings:
        parts.append(Test(field, Op.STARTSWITH, tuple(beginnings)))
    return Any(tuple(parts))


def _whole(text: str) -> str:
    """`192.168.` is written for 192.168.0.0/16, and a netmask for a prefix length."""
    if text.endswith("."):
        parts = text.rstrip(".").split(".")
        return ".".join([*parts, *["0"] * (4 - len(parts))]) + f"/{8 * len(parts)}"
    return text


def _minute(text: str) -> int | None:
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    if found[3]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[3].lower() == "pm" else 0)
    return 60 * hour + minute if hour < 24 and minute < 60 else None


def memory_field(name: str) -> str:
    """The column of a field that `ignore`, `same_` and the like name."""
    return LOCATION if name == "location" else f"{DATA}{name}"

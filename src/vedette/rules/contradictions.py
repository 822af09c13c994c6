"""Whether a condition can hold at all: what its tests say against each other, and never more than is certain.
Counterpart: `lint` says it of rules; nothing here is asked when records are judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from vedette.model.events import Scalar
from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test

Single = Callable[[str], bool]
"""Whether a field has at most one value: only there do two different values exclude each other."""

PAIRS_LIMIT = 50_000
"""Pairs of values of two tests that are compared at most; beyond it nothing is said of the two."""
STEPS_LIMIT = 500_000
"""Pairs of values of all tests of a rule that are compared at most; beyond it nothing more is said of the rule."""

# Private use characters stand for wildcards, so that a pattern is one string.
_STAR, _ONE = "\ue000", "\ue001"
_GLOBS = frozenset({Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE})
_COMPARES = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
_PRESENCE = frozenset({Op.EXISTS, Op.NULL})
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
_WORDS_LIMIT = 60


@dataclass(frozen=True, slots=True)
class _Fact:
    """A leaf that must hold, or must not."""

    leaf: Test | Raw
    holds: bool


@dataclass(slots=True)
class Verdict:
    """What is wrong with a condition. dead: why it can never hold, "" where it may.

    branches: alternatives that can never hold beside what else must. filters: exclusions that exclude nothing.
    """

    dead: str = ""
    branches: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)


def judge(node: Node, single: Single) -> Verdict:
    """What is certain of `node`. Sound, not complete: what is said holds, not all that holds is said."""
    verdict = Verdict()
    verdict.dead = _Judge(single, verdict).dead(node, True, (), told=True)
    if verdict.dead:
        verdict.branches.clear()
        verdict.filters.clear()
    return verdict


def can_hold_together(first: Node, second: Node, single: Single) -> bool:
    """False where it is certain that no record satisfies both."""
    return not judge(All((first, second)), single).dead


class _Judge:
    """Judges one condition, and stops saying anything when that has cost enough."""

    def __init__(self, single: Single, verdict: Verdict) -> None:
        self._single = single
        self._verdict = verdict
        self._steps = 0

    def dead(self, node: Node, holds: bool, before: Sequence[_Fact], *, told: bool) -> str:
        """Why `node` cannot hold (or fail, where `holds` is false) beside `before`; "" where it may.

        told: parts that cannot hold are put into the verdict.
        """
        new, choices = _flat(node, holds)
        facts = list(before)
        for fact in new:
            if self._steps > STEPS_LIMIT:
                return ""
            for other in facts:
                if why := self._clash(other, fact):
                    return why
            facts.append(fact)
        for whole, parts, positive in choices:
            # A filter of several tests fails where one of them does: that one cannot is no fault.
            reasons = [self.dead(part, positive, facts, told=told and positive) for part in parts]
            if all(reasons):
                return reasons[0] if reasons else "it is a choice among nothing"
            if told and positive:
                self._verdict.branches += [why for why in reasons if why]
            elif told and (why := self.dead(whole, True, facts, told=False)):
                self._verdict.filters.append(why)
        if told:
            self._verdict.filters += self._idle(new, before)
        return ""

    def _idle(self, new: Sequence[_Fact], before: Sequence[_Fact]) -> Iterator[str]:
        """Filters of one test that contradict what must hold: they exclude nothing."""
        must = [fact for fact in (*before, *new) if fact.holds]
        for fact in new:
            if not fact.holds and self._steps <= STEPS_LIMIT:
                wanted = _Fact(fact.leaf, True)
                if why := next(filter(None, (self._clash(other, wanted) for other in must)), ""):
                    yield why

    def _clash(self, first: _Fact, second: _Fact) -> str:
        a, b = first.leaf, second.leaf
        if isinstance(a, Test) and isinstance(b, Test):
            if a.field != b.field:
                return ""
            self._steps += max(1, min(len(a.values) * len(b.values), PAIRS_LIMIT))
        else:
            self._steps += 1
        return "" if self._steps > STEPS_LIMIT else _clash(first, second, self._single)


_Choice = tuple[Node, Sequence[Node], bool]


def _flat(node: Node, holds: bool) -> tuple[list[_Fact], list[_Choice]]:
    """What all must hold, and the choices: the whole, its parts, and whether a part must hold or fail."""
    facts: list[_Fact] = []
    choices: list[_Choice] = []
    waiting = [(node, holds)]
    while waiting:
        one, wanted = waiting.pop()
        match one:
            case Not(part):
                waiting.append((part, not wanted))
            case All(parts) if wanted:
                waiting += [(part, True) for part in reversed(parts)]
            case Any(parts) if not wanted:
                waiting += [(part, False) for part in reversed(parts)]
            case All(parts) | Any(parts):
                if len(parts) == 1:
                    waiting.append((parts[0], wanted))
                else:
                    choices.append((one, parts, wanted))
            case Test() if wanted and one.all and len(one.values) > 1:
                facts += [_Fact(replace(one, values=(value,), all=False), True) for value in one.values]
            case Test(op=Op.EXISTS, values=values) if not wanted and len(values) == 1:
                facts.append(_Fact(replace(one, values=(not values[0],)), True))
            case _:
                facts.append(_Fact(one, wanted))
    return facts, choices


def _clash(first: _Fact, second: _Fact, single: Single) -> str:
    """Why two facts exclude each other; "" where they may not."""
    if first.holds and second.holds:
        if isinstance(first.leaf, Test) and isinstance(second.leaf, Test) and _exclude(first.leaf, second.leaf, single):
            return f"{words(first.leaf)} and {words(second.leaf)} cannot both hold"
        return ""
    if first.holds == second.holds:
        return ""
    yes, no = (first.leaf, second.leaf) if first.holds else (second.leaf, first.leaf)
    if implies(yes, no):
        if yes == no:
            return f"{words(yes)} must hold and must not"
        return f"{words(no)} holds wherever {words(yes)} does, and is ruled out"
    return ""


def words(leaf: Test | Raw) -> str:
    """A leaf for people, shortened."""
    if isinstance(leaf, Raw):
        return f"keyword {leaf.pattern[:_WORDS_LIMIT]!r}"
    shown = ", ".join(repr(value)[:_WORDS_LIMIT] for value in leaf.values[:2])
    more = f", ... ({len(leaf.values)})" if len(leaf.values) > 2 else ""
    part = f" ({leaf.part.value})" if leaf.part is not None else ""
    return f"'{leaf.field}{part} {leaf.op.value} {shown}{more}'"


# ---------------------------------------------------------------------------------------------- what excludes what


def _exclude(a: Test, b: Test, single: Single) -> bool:
    if a.field != b.field:
        return False
    for one, other in ((a, b), (b, a)):
        absent = one.op is Op.NULL or (one.op is Op.EXISTS and one.values == (False,))
        if absent and other.op not in _PRESENCE:
            return True
        if one.op is Op.EXISTS and one.values == (False,) and other.op is Op.EXISTS and other.values == (True,):
            return True
    if a.op in _PRESENCE or b.op in _PRESENCE or a.part is not b.part or not single(a.field):
        return False
    if not a.values or not b.values or len(a.values) * len(b.values) > PAIRS_LIMIT:
        return False
    return all(_disjoint(a, x, b, y) for x in a.values for y in b.values)


def _disjoint(a: Test, x: Scalar, b: Test, y: Scalar) -> bool:
    """Whether no one value satisfies both."""
    if a.op in _GLOBS and b.op in _GLOBS:
        # Folded patterns that exclude each other do so as written, too.
        return _apart(_glob(a.op, _text(x)).casefold(), _glob(b.op, _text(y)).casefold())
    if a.op in _COMPARES and b.op in _COMPARES:
        low = [one for one in ((a.op, x), (b.op, y)) if one[0] in (Op.GT, Op.GTE)]
        high = [one for one in ((a.op, x), (b.op, y)) if one[0] in (Op.LT, Op.LTE)]
        if not low or not high:
            return False
        least, most = _number(low[0][1]), _number(high[0][1])
        if least is None or most is None:
            return False
        return least > most or (least == most and (low[0][0], high[0][0]) != (Op.GTE, Op.LTE))
    for op, value, other, limit in ((a.op, x, b.op, y), (b.op, y, a.op, x)):
        if op is Op.EQUALS and other in _COMPARES:
            number, bound = _number(value), _number(limit)
            return number is not None and bound is not None and not _compare(other, number, bound)
        if op is Op.EQUALS and other is Op.CIDR:
            address, network = _network(value), _network(limit)
            return address is not None and network is not None and not _within(address, network)
    if a.op is b.op is Op.CIDR:
        one, two = _network(x), _network(y)
        return one is not None and two is not None and not (_within(one, two) or _within(two, one))
    return False


def _apart(one: str, two: str) -> bool:
    """Whether no text matches both patterns, as far as their fixed beginnings and ends tell."""
    if not _wild(one):
        return not _matches(two, one)
    if not _wild(two):
        return not _matches(one, two)
    for head, other in ((_head(one), _head(two)), (_head(one[::-1]), _head(two[::-1]))):
        length = min(len(head), len(other))
        if head[:length] != other[:length]:
            return True
    return False


# ---------------------------------------------------------------------------------------------- what implies what


def implies(a: Test | Raw, b: Test | Raw) -> bool:
    """Whether it is certain that `b` holds wherever `a` does."""
    if a == b:
        return True
    if isinstance(a, Raw) or isinstance(b, Raw):
        if not isinstance(a, Raw) or not isinstance(b, Raw) or a.regex or b.regex:
            return False
        one, other = (_glob(Op.LIKE, f"*{raw.pattern}*") for raw in (a, b))
        return _glob_implies(one, a.cased, other, b.cased)
    if a.field != b.field or a.part is not b.part:
        return False
    if b.op is Op.EXISTS:
        return b.values == (True,) and a.op not in _PRESENCE
    if b.op is Op.NULL:
        return a.op is Op.EXISTS and a.values == (False,)
    if a.op in _PRESENCE or not a.values or not b.values or len(a.values) * len(b.values) > PAIRS_LIMIT:
        return False
    of_all = all if b.all else any
    over = any if a.all else all
    return over(of_all(_value_implies(a, x, b, y) for y in b.values) for x in a.values)


def _value_implies(a: Test, x: Scalar, b: Test, y: Scalar) -> bool:
    if a.op in _GLOBS and b.op in _GLOBS:
        return _glob_implies(_glob(a.op, _text(x)), a.cased, _glob(b.op, _text(y)), b.cased)
    if a.op is Op.EQUALS and b.op in _COMPARES:
        number, bound = _number(x), _number(y)
        return number is not None and bound is not None and _compare(b.op, number, bound)
    if a.op in (Op.EQUALS, Op.CIDR) and b.op is Op.CIDR:
        one, two = _network(x), _network(y)
        return one is not None and two is not None and _within(one, two)
    return a.op is b.op and a.cased == b.cased and type(x) is type(y) and x == y


def _glob_implies(one: str, one_cased: bool, other: str, other_cased: bool) -> bool:
    """Whether every text that `one` matches is matched by `other`; its wildcards are met by wildcards alone."""
    if other_cased and not one_cased and one.lower() != one.upper():
        return False
    if not other_cased:
        one, other = one.casefold(), other.casefold()
    return _matches(other, one)


@lru_cache(maxsize=65_536)
def _glob(op: Op, text: str) -> str:
    """A value as a pattern over whole texts."""
    if op is Op.LIKE:
        out = []
        escaped = False
        for character in text:
            if escaped or character not in "*?\\":
                out.append(character)
                escaped = False
            elif character == "\\":
                escaped = True
            else:
                out.append(_STAR if character == "*" else _ONE)
        return "".join(out) + ("\\" if escaped else "")
    begins = _STAR if op in (Op.CONTAINS, Op.ENDSWITH) else ""
    ends = _STAR if op in (Op.CONTAINS, Op.STARTSWITH) else ""
    return begins + text + ends


def _text(value: Scalar) -> str:
    """A value as tests compare it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _wild(pattern: str) -> bool:
    return _STAR in pattern or _ONE in pattern


def _head(pattern: str) -> str:
    """What stands before the first wildcard."""
    return pattern.partition(_STAR)[0].partition(_ONE)[0]


def _matches(pattern: str, text: str) -> bool:
    """Whether `pattern` matches `text`, in which a wildcard is a character that only wildcards of it take."""
    if pattern[:1] == pattern[-1:] == _STAR and len(pattern) > 1 and not _wild(pattern[1:-1]):
        return pattern[1:-1] in text
    at = place = 0
    star = mark = -1
    while place < len(text):
        here = pattern[at] if at < len(pattern) else ""
        if here == _STAR:
            star, mark = at, place
            at += 1
        elif here and (here == text[place] or (here == _ONE and text[place] != _STAR)):
            at += 1
            place += 1
        elif star >= 0:
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return all(rest == _STAR for rest in pattern[at:])


def _number(value: Scalar) -> float | None:
    if isinstance(value, bool) or value is None or not _NUMBER.fullmatch(str(value)):
        return None
    return float(value)


def _compare(op: Op, number: float, bound: float) -> bool:
    if op in (Op.LT, Op.LTE):
        return number < bound or (op is Op.LTE and number == bound)
    return number > bound or (op is Op.GTE and number == bound)


def _network(value: Scalar) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(str(value), strict=False)
    except ValueError:
        return None


def _within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False

"""The engine held to the reference: random rules over random events, hostile ones, however they are cut.
Counterpart: `reference.py`, which judges one record and one value at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.detections import reference
from tests.detections.given import GivenParser, Record, batch_of, said, said_by_position

from vedette.detections.match import Matcher
from vedette.detections.matches import Matches
from vedette.detections.wire import join, pack, part_of, unpack
from vedette.model.events import RecordKind, Value
from vedette.model.levels import Level
from vedette.model.rules import (
    FIELDREFS,
    All,
    Any,
    Comparison,
    Correlate,
    CorrelationKind,
    DatePart,
    LogSource,
    Node,
    Not,
    Op,
    Raw,
    Rule,
    Test,
    Threshold,
)

NAMES = ("CommandLine", "user.name", "source.ip", "Größe")
KINDS = (
    RecordKind("linux", services=frozenset({"sshd", "auth"})),
    RecordKind("windows", frozenset({"process_creation"}), frozenset({"sysmon"})),
    RecordKind(),
)
SOURCES = (
    *[LogSource()] * 5,
    LogSource("linux"),
    LogSource("linux", "", "auth"),
    LogSource("windows", "process_creation"),
    LogSource("", "process_creation"),
    LogSource("", "", "sysmon"),
    LogSource("windows", "process_creation", "sshd"),
)

# Letters whose case is more than ASCII's, what a terminal, a scan of joined values or an escape may stumble on, and
# words long enough to be atoms of a scan.
PIECES = (
    *"aAbkKsSiI1 /",
    *[
        "\u212a",
        "ſ",
        "ß",
        "ẞ",
        "ss",
        "SS",
        "İ",
        "i\u0307",
        "ı",
        "σ",
        "ς",
        "Σ",
        "é",
        "É",
        "e\u0301",
        "ŉ",
        "ﬁ",
        "fi",
        "Ǆ",
        "ǆ",
    ],
    *["\n", "\r", "\r\n", "\x00", "\x01", "\x02", "\x1f", "\t", "\u2028", "\u200d", "😀"],
    *["\U0010ff80", "\U0010ffff", "\U0010ffc3"],  # bytes that are no UTF-8
    *["\\", "*", "?", ".", "[", "(", "|", "$", "^", "+", '"', "%"],
    *["powershell", "PowerShell", "power", "shell", "/bin/sh", "-enc", "\\Temp\\", "kısk", "KISK", "straße"],
)
PATTERN_PIECES = ("*", "*", "?", "\\*", "\\?", "\\\\", *PIECES)
WORDS = ("", "1", "01", "1.0", "1e3", "-5", " 7", "7", "nan", "inf", "1_0", "9" * 25, "true", "null", ".5")
ADDRESSES = (
    "10.0.0.1",
    "10.1.2.3",
    "010.0.0.1",
    "::ffff:10.1.2.3",
    "::1",
    "fe80::1%eth0",
    "2001:DB8::7",
    "203.0.113.9",
)
NETWORKS = (
    "10.0.0.0/8",
    "10.1.2.0/24",
    "10.0.0.1",
    "::/0",
    "0.0.0.0/0",
    "2001:db8::/32",
    "fe80::/10",
    "::ffff:10.1.0.0/112",
)
NUMBERS = (0, 1, -5, 7, 2**53, 2**64 - 1, -(2**63), 0.5, 1.0, -0.0, 1e16, 1e300, True, False)
REGEXES = (
    *["a+b", "^1", "[sS]$", r"\d", "(?i)k", "(?i)straße", "(?i)^power.*shell$", "(?s)^power.*shell$", "^$", "", "a|^$"],
    *[
        r"[^x]*\s",
        "(?i)\\\\temp\\\\",
        "(?m)^a$",
        ".",
        "^.$",
        r"\x01",
        r"\x00",
        "😀?$",
        "é",
        r"\bsh\b",
        "(?i)ſ",
        "\\W\\w",
    ],
    *["(power|shell)+", "[^a]", "s{2}", "(?i)s{2}", "a.b", "(?s)a.b", "[\x01\x02]", "$", r"\z", "^\\n"],
)

TIMES = ("2024-12-30T23:59:59Z", "2026-01-01 00:30:00", "2025-06-15T08:05:00.1234567+02:00", "2024-02-30T00:00:00Z")
WHOLE = WORDS + ADDRESSES + TIMES
PARTS = (0, 1, 5, 6, 8, 12, 15, 23, 30, 52, 53, 59, 1970, 2024, 2026)
ORDERS = (Op.LT, Op.LTE, Op.GT, Op.GTE)
REFERENCES = tuple(sorted(FIELDREFS))


def rules_of(nodes: Sequence[Node]) -> list[Rule]:
    return [Rule(id=f"r{at}", name="x", level=Level.LOW, when=node) for at, node in enumerate(nodes)]


def expected(rules: Sequence[Rule], records: Sequence[Record]) -> dict[int, set[int]]:
    found = {at: reference.hits(rules, one.fields, one.looked_at, one.kind) for at, one in enumerate(records)}
    return {at: rules for at, rules in found.items() if rules}


def _told(rules: Sequence[Rule], records: Sequence[Record], at: int, got: set[int], wanted: set[int], size: int) -> str:
    """The disagreement in words, with the smallest part of the rule that shows it on the record alone."""
    record = records[at]
    index = min(got ^ wanted)
    found = [f"record {at} in a batch of {size}, rule {index}: engine {index in got}, reference {index in wanted}"]
    for node in sorted(parts_of(rules[index].when), key=lambda one: len(repr(one))):
        held = reference.holds(node, record.fields, record.looked_at)
        if (said_by_position(Matcher(rules_of([node]), GivenParser([record])).match(batch_of([record]))) != {}) != held:
            found.append(f"alone, reference {held}: {node!r}")
            break
    else:
        found.append(f"not alone; {rules[index]!r}")
    return "\n".join([*found, repr(record)])


def parts_of(node: Node) -> Iterator[Node]:
    """A condition and everything in it."""
    yield node
    for part in (node.part,) if isinstance(node, Not) else node.parts if isinstance(node, All | Any) else ():
        yield from parts_of(part)


def check(rules: Sequence[Rule], records: Sequence[Record], cuts: Sequence[int], unused: tuple[Value, ...] = ()) -> int:
    """Hold one matcher to the reference over `records`, cut before each place in `cuts`; how many pairs matched."""
    matcher = Matcher(rules, GivenParser(records, unused))
    wanted = expected(rules, records)
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    for number, (begin, end) in enumerate(pairwise(bounds)):
        got = said_by_position(matcher.match(batch_of(records[begin:end], begin, number)))
        for at in range(begin, end):
            if got.get(at, set()) != wanted.get(at, set()):
                pytest.fail(_told(rules, records, at, got.get(at, set()), wanted.get(at, set()), end - begin))
    return sum(map(len, wanted.values()))


# ----------------------------------------------------------------------------------------- as hypothesis draws it

texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join), st.sampled_from(WORDS + ADDRESSES + TIMES)
)
likes = st.lists(st.sampled_from(PATTERN_PIECES), max_size=6).map("".join)
scalars = st.one_of(texts, texts, st.sampled_from(NUMBERS))
values = st.one_of(scalars, scalars, scalars, st.none(), st.lists(st.one_of(scalars, st.none()), max_size=3).map(tuple))
lines = st.lists(
    st.sampled_from([piece.encode() for piece in PIECES if "\n" not in piece] + [b"\xff", b"\xc3"]), max_size=6
)
records = st.builds(
    lambda fields, kind, line, strings: Record(fields, kind, b"".join(line), strings),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=4),
    st.sampled_from(KINDS),
    lines,
    st.one_of(st.none(), st.lists(texts, max_size=3).map(tuple)),
)


def _some(one: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def leaves() -> st.SearchStrategy[Node]:
    name = st.sampled_from(NAMES)
    plain = st.sampled_from([Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH])
    order = st.sampled_from(ORDERS)
    parted = st.sampled_from((Op.EQUALS, *ORDERS))
    flag = st.booleans()
    return st.one_of(
        st.builds(Test, name, plain, _some(scalars), flag, flag),
        st.builds(Test, name, st.just(Op.LIKE), _some(likes), flag, flag),
        st.builds(Test, name, st.just(Op.REGEX), _some(st.sampled_from(REGEXES)), flag),
        st.builds(Test, name, st.just(Op.CIDR), _some(st.sampled_from(NETWORKS)), flag),
        st.builds(Test, name, order, _some(st.sampled_from([0, 1, -5, "7", 0.5, 10**30, 2**53 + 1])), flag),
        st.builds(Test, name, st.just(Op.EXISTS), flag.map(lambda one: (one,))),
        st.builds(Test, name, st.just(Op.NULL)),
        st.builds(Test, name, st.sampled_from(REFERENCES), _some(name), flag, flag),
        st.builds(Test, name, parted, _some(st.sampled_from(PARTS)), flag, st.just(False), st.sampled_from(DatePart)),
        st.builds(Raw, likes.filter(lambda one: one.strip("*")), st.just(False), flag),
        st.builds(Raw, st.sampled_from(REGEXES), st.just(True)),
    )


conditions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: All(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Any(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=8,
)

COUNTED = Correlate(CorrelationKind.EVENT_COUNT, ("r0",), (), 1, (Threshold(Comparison.GTE, 2),))


@st.composite
def trees(draw: st.DrawFn) -> list[Rule]:
    """Rules of any log source, some with parents among those before them (so that there is no cycle)."""
    found: list[Rule] = []
    for at, node in enumerate(draw(st.lists(conditions, min_size=1, max_size=6))):
        plain = [rule.id for rule in found if rule.correlate is None]
        groups = [group for rule in found if rule.correlate is None for group in rule.groups]
        parents = draw(st.lists(st.sampled_from(plain + groups), max_size=2)) if plain and draw(st.booleans()) else []
        correlated = bool(parents) and draw(st.integers(0, 5)) == 0
        found.append(
            Rule(
                id=f"r{at}",
                name="x",
                level=Level.LOW,
                when=All(()) if draw(st.integers(0, 2)) == 0 else node,
                logsource=draw(st.sampled_from(SOURCES)),
                parents=tuple(parents),
                # A group of its own: one that a later rule shared with an earlier could close a circle.
                groups=(f"g{at}",) if draw(st.booleans()) else (),
                order=draw(st.integers(0, 2)),
                stop=draw(st.booleans()),
                correlate=COUNTED if correlated else None,
            )
        )
    return found


cuts = st.lists(st.integers(1, 30), max_size=4)


# Not shrunk: `check` tells the smallest part of the rule that disagrees, and one record.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
few = settings(max_examples=60, phases=_PHASES)
many = settings(max_examples=4000, phases=_PHASES)
_given_conditions = given(
    st.lists(conditions, min_size=1, max_size=4), st.lists(records, min_size=1, max_size=8), cuts, values
)
_given_trees = given(trees(), st.lists(records, min_size=1, max_size=6), cuts)


@few
@_given_conditions
def test_conditions_mean_what_the_reference_says(
    nodes: list[Node], rows: list[Record], where: list[int], unused: Value
) -> None:
    check(rules_of(nodes), rows, where, (unused,))


@few
@_given_trees
def test_trees_of_rules_mean_what_the_reference_says(rules: list[Rule], rows: list[Record], where: list[int]) -> None:
    check(rules, rows, where)


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@_given_conditions
def test_conditions_mean_what_the_reference_says_at_length(
    nodes: list[Node], rows: list[Record], where: list[int], unused: Value
) -> None:
    check(rules_of(nodes), rows, where, (unused,))


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@_given_trees
def test_trees_of_rules_mean_what_the_reference_says_at_length(
    rules: list[Rule], rows: list[Record], where: list[int]
) -> None:
    check(rules, rows, where)


# ------------------------------------------------------------------------------------------ many rules, many records


class Crowd:
    """Rules and records in numbers, so that automata, memos and row sets are filled as in life; from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random
        self.words = ["".join(pick.choices(PIECES, k=pick.randint(1, 5))) for _ in range(40)] + [
            *WORDS,
            *ADDRESSES,
            *TIMES,
        ]
        self.words += [word.swapcase() for word in self.words[:10]]
        self.long = ["x" * 5000 + "powershell", "ſ" * 300, "ab" * 3000, "\n" * 200, "*" * 64]

    def text(self) -> str:
        pick = self.random
        if pick.random() < 0.02:
            return pick.choice(self.long)
        return "".join(pick.choices(self.words, k=pick.choice((1, 1, 1, 2, 3))))

    def scalar(self) -> str | int | float | bool:
        return self.random.choice(NUMBERS) if self.random.random() < 0.1 else self.text()

    def value(self) -> Value:
        pick = self.random.random()
        if pick < 0.05:
            return None
        if pick < 0.15:
            return tuple(
                self.scalar() if self.random.random() < 0.8 else None for _ in range(self.random.randint(0, 3))
            )
        return self.scalar()

    def record(self) -> Record:
        pick = self.random
        line = "".join(pick.choices(self.words, k=pick.randint(0, 4))).encode().replace(b"\n", b" ")
        strings = tuple(self.text() for _ in range(pick.randint(0, 3))) if pick.random() < 0.3 else None
        fields = {name: self.value() for name in NAMES if pick.random() < 0.7}
        return Record(fields, pick.choice(KINDS), line, strings)

    def part(self) -> str:
        """A piece of a word that occurs, or nearly."""
        word = self.text()[:200]
        begin, end = sorted((self.random.randint(0, len(word)), self.random.randint(0, len(word))))
        return word[begin:end] if self.random.random() < 0.8 else word[begin:end].swapcase()

    def like(self) -> str:
        signs = ("*", "?", "\\*", "\\?", "\\\\", "\\")
        several = range(self.random.randint(1, 4))
        pieces = [self.part() if self.random.random() < 0.6 else self.random.choice(signs) for _ in several]
        return "".join(pieces)

    def leaf(self) -> Node:
        pick = self.random
        name, every, cased = pick.choice(NAMES), pick.random() < 0.15, pick.random() < 0.3
        several = range(pick.choice((1, 1, 2, 5, 40)))
        kind = pick.random()
        if kind < 0.15:
            return Test(name, Op.EQUALS, tuple(self.scalar() for _ in several), every, cased)
        if kind < 0.5:
            op = pick.choice((Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH))
            return Test(name, op, tuple(self.part() for _ in several), every, cased)
        if kind < 0.65:
            return Test(name, Op.LIKE, tuple(self.like() for _ in several), every, cased)
        if kind < 0.75:
            return Test(name, Op.REGEX, tuple(pick.choices(REGEXES, k=min(len(several), 3))), every)
        if kind < 0.8:
            return Test(name, Op.CIDR, tuple(pick.choices(NETWORKS, k=2)), every)
        if kind < 0.85:
            return Test(name, pick.choice(ORDERS), (pick.choice((0, 1, "7", 0.5, 10**30)),))
        if kind < 0.9:
            return pick.choice((Test(name, Op.NULL), Test(name, Op.EXISTS, (True,)), Test(name, Op.EXISTS, (False,))))
        if kind < 0.94:
            return Test(name, pick.choice(REFERENCES), (pick.choice(NAMES),), False, cased)
        if kind < 0.95:
            return Test(name, pick.choice(ORDERS), (pick.choice(PARTS),), part=pick.choice(list(DatePart)))
        if kind < 0.98:
            return Raw(self.like() + "a", cased=cased)
        return Raw(pick.choice(REGEXES), regex=True)

    def node(self, depth: int) -> Node:
        pick = self.random.random()
        if depth == 0 or pick < 0.35:
            return self.leaf()
        if pick < 0.5:
            return Not(self.node(depth - 1))
        parts = tuple(self.node(depth - 1) for _ in range(self.random.choice((0, 1, 2, 2, 3, 6))))
        return All(parts) if pick < 0.75 else Any(parts)

    def rules(self, n: int) -> list[Rule]:
        found = []
        for at in range(n):
            parents = (self.random.choice(found).id,) if found and self.random.random() < 0.2 else ()
            found.append(
                Rule(
                    id=f"r{at}",
                    name="x",
                    level=Level.LOW,
                    when=self.node(self.random.choice((0, 1, 2, 3, 9))),
                    logsource=self.random.choice(SOURCES),
                    parents=parents,
                    order=self.random.randint(0, 1),
                    stop=self.random.random() < 0.3,
                )
            )
        return found


def _crowd(seed: int, rules: int, rows: int) -> int:
    crowd = Crowd(seed)
    records = [crowd.record() for _ in range(rows)]
    # The same records as one batch, a few at a time (the light path) and one by one; the matcher is one.
    cuts = sorted(crowd.random.sample(range(1, rows), min(rows - 1, 12)))
    singles = list(range(rows - 10, rows))
    return check(crowd.rules(rules), records, [cut for cut in cuts if cut > rows // 2] + singles)


def test_many_rules_over_many_records() -> None:
    assert _crowd(1, rules=60, rows=60) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 42))
def test_many_rules_over_many_records_at_length(seed: int) -> None:
    assert _crowd(seed, rules=120, rows=120) > 400


# --------------------------------------------------------------------------------------------- cut, merged, shared


def test_a_record_alone_is_judged_as_in_any_crowd() -> None:
    crowd = Crowd(7)
    rules, records = crowd.rules(60), [crowd.record() for _ in range(48)]
    matcher = Matcher(rules, GivenParser(records))
    whole = said_by_position(matcher.match(batch_of(records)))
    for size in (1, 2, 3, 7, 16, 31):
        parts: dict[int, set[int]] = {}
        for begin in range(0, len(records), size):
            parts |= said_by_position(matcher.match(batch_of(records[begin : begin + size], begin)))
        assert parts == whole


@settings(max_examples=8, phases=_PHASES)
@given(st.integers(0, 10**9), st.lists(st.integers(1, 39), max_size=6), st.randoms(use_true_random=False))
def test_parts_packed_and_merged_in_any_order_that_keeps_theirs_say_the_same(
    seed: int, where: list[int], shuffle: random.Random
) -> None:
    crowd = Crowd(seed)
    rules, records = crowd.rules(12), [crowd.record() for _ in range(40)]
    # Each worker has a matcher of its own, as its own process would.
    parts: list[Matches] = []
    for begin, end in pairwise([0, *sorted(set(where)), len(records)]):
        batch = batch_of(records[begin:end], begin)
        matches = Matcher(rules, GivenParser(records)).match(batch)
        parts.append(unpack(pack(matches, batch.starts, batch.ends)).matches)
    owner = [at for at, part in enumerate(parts) for _ in part.rows]
    shuffle.shuffle(owner)
    taken = [0] * len(parts)
    first = [0, *accumulate(len(part.rows) for part in parts)]
    order = []
    for at in owner:
        order.append(first[at] + taken[at])
        taken[at] += 1
    joined = join(parts, np.asarray(order, dtype=np.int64))
    check(rules, records, where)
    assert said_by_position(joined) == expected(rules, records)
    half = len(joined.rows) // 2
    again = [part_of(joined, 0, half), part_of(joined, half, len(joined.rows))]
    assert said(again[0]) + said(again[1]) == said(joined)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detections.parts import PairParser, batch_of, kinds_of
from tests.detections.reference import holds

from vedette.detections.atoms import atoms_of
from vedette.detections.match import Matcher
from vedette.detections.matches import checks, narrow
from vedette.detections.prefilter import Prefilter
from vedette.detections.wire import join, pack, part_of, unpack
from vedette.model.batch import Batch, Origin
from vedette.model.errors import RuleError
from vedette.model.events import Column, Table
from vedette.model.levels import Level
from vedette.model.rules import (
    All,
    Any,
    Comparison,
    Correlate,
    CorrelationKind,
    LogSource,
    Node,
    Not,
    Op,
    Raw,
    Rule,
    Test,
    Threshold,
)
from vedette.text.escape import decode

NAMES = ("user.name", "source.ip", "source.port", "process.command_line")
ALPHABET = "aAbkKsS1ßéİ\u212aſ\\*?.[(\n \U0010ffff"
texts = st.text(ALPHABET, max_size=6)
scalars = st.one_of(
    texts, st.integers(-3, 12), st.booleans(), st.sampled_from(["1", "01", "1.0", "nan", "1_0", "10.1.2.3"])
)
values = st.one_of(scalars, st.none(), st.tuples(scalars, scalars), st.just(()))
records = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


def leaves() -> st.SearchStrategy[Node]:
    name = st.sampled_from(NAMES)
    plain = st.sampled_from([Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE])
    return st.one_of(
        st.builds(
            Test, name, plain, st.lists(scalars, min_size=1, max_size=3).map(tuple), st.booleans(), st.booleans()
        ),
        st.builds(Test, name, st.just(Op.REGEX), st.sampled_from([("a+b",), ("^1", "[sS]$"), (r"\d",)])),
        st.builds(Test, name, st.just(Op.CIDR), st.sampled_from([("10.0.0.0/8",), ("10.1.2.3/32", "2001:db8::/32")])),
        st.builds(
            Test, name, st.sampled_from([Op.LT, Op.LTE, Op.GT, Op.GTE]), st.sampled_from([(1,), ("1.0",), (5, 0)])
        ),
        st.builds(Test, name, st.just(Op.EXISTS), st.sampled_from([(True,), (False,)])),
        st.builds(Test, name, st.just(Op.NULL)),
        st.builds(Test, name, st.just(Op.FIELDREF), name.map(lambda one: (one,)), st.just(False), st.booleans()),
        st.builds(Raw, texts.filter(bool), st.just(False), st.booleans()),
    )


conditions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: All(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Any(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)


class GivenParser:
    """Gives the fields it was told, whatever the bytes."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def parse(self, batch: Batch) -> Table:
        table = Table(batch, time=np.zeros(len(batch), dtype=np.int64), kinds=kinds_of(["sshd"] * len(batch)))
        for name in NAMES:
            table.provide(name, lambda name=name: self._column(name))
        return table

    def _column(self, name: str) -> Column:
        known: dict[tuple[str, object], int] = {}
        codes = [known.setdefault((repr(row[name]), row[name]), len(known)) if name in row else -1 for row in self.rows]
        return Column(np.asarray(codes, dtype=np.int32), [value for _, value in known])  # type: ignore[misc]


@settings(max_examples=400)
@given(st.lists(records, min_size=1, max_size=8), st.lists(conditions, min_size=1, max_size=3), st.data())
def test_the_engine_says_what_the_reference_says(
    rows: list[dict[str, object]], nodes: list[Node], data: st.DataObject
) -> None:
    messages = [data.draw(st.text(ALPHABET.replace("\n", ""), max_size=12)) for _ in rows]
    rules = [Rule(id=f"r{n}", name="x", level=Level.LOW, when=node) for n, node in enumerate(nodes)]
    matches = Matcher(rules, GivenParser(rows)).match(batch_of(messages))
    for index, node in enumerate(nodes):
        seen = [decode(message.encode()) for message in messages]
        expected = [at for at, row in enumerate(rows) if holds(node, row, seen[at])]
        hits = matches.hits.get(index, np.empty(0, dtype=np.int32))
        assert matches.rows[hits].tolist() == expected


def test_only_the_log_source_of_the_rule_is_looked_at() -> None:
    everything = All(())
    rules = [
        Rule(id="sshd", name="x", level=Level.LOW, when=everything, logsource=LogSource("linux", "", "sshd")),
        Rule(id="auth", name="x", level=Level.LOW, when=everything, logsource=LogSource("linux", "", "auth")),
        Rule(id="any", name="x", level=Level.LOW, when=everything),
        Rule(id="windows", name="x", level=Level.LOW, when=everything, logsource=LogSource("windows")),
    ]
    matches = Matcher(rules, PairParser()).match(batch_of(["service=sshd", "service=sudo", "service=cron"]))
    found = {rules[index].id: matches.rows[hits].tolist() for index, hits in matches.hits.items()}
    assert found == {"sshd": [0], "auth": [0, 1], "any": [0, 1, 2]}


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (Test("user.name", Op.REGEX, ("(?=a",)), "invalid perl operator"),
        (Test("source.ip", Op.CIDR, ("10.0.0.0/99",)), "does not fit"),
        (Test("source.port", Op.LT, ("many",)), "not a number"),
        (Raw("(", regex=True), "missing"),
    ],
)
def test_a_test_that_cannot_be_used_names_the_rule_and_its_place(when: Node, words: str) -> None:
    with pytest.raises(RuleError, match=f"made by hand>: rule bad: .*{words}"):
        Matcher([Rule(id="bad", name="x", level=Level.LOW, when=when)], PairParser())


def test_a_rule_must_not_be_its_own_ancestor() -> None:
    a = Rule(id="a", name="x", level=Level.LOW, parents=("b",))
    b = Rule(id="b", name="x", level=Level.LOW, parents=("a",))
    with pytest.raises(RuleError, match="own ancestor"):
        Matcher([a, b], PairParser())
    with pytest.raises(RuleError, match="no parent 'c'"):
        Matcher([Rule(id="a", name="x", level=Level.LOW, parents=("c",))], PairParser())


def test_a_child_looks_at_its_own_log_source_alone() -> None:
    rules = [
        Rule(id="parent", name="x", level=Level.LOW),
        Rule(id="sudo", name="x", level=Level.LOW, parents=("parent",), logsource=LogSource(service="sudo")),
        Rule(id="elsewhere", name="x", level=Level.LOW, parents=("parent",), logsource=LogSource(product="windows")),
    ]
    hits = Matcher(rules, PairParser()).match(batch_of(["service=sshd", "service=sudo"])).hits
    assert {index: rows.tolist() for index, rows in hits.items()} == {0: [0], 1: [1]}


def test_a_child_of_a_correlation_is_refused() -> None:
    counted = Correlate(CorrelationKind.EVENT_COUNT, ("a",), (), 1, (Threshold(Comparison.GTE, 2),))
    rules = [
        Rule(id="a", name="x", level=Level.LOW),
        Rule(id="many", name="x", level=Level.LOW, parents=("a",), correlate=counted),
        Rule(id="below", name="x", level=Level.LOW, parents=("many",)),
    ]
    with pytest.raises(RuleError, match="a child of the correlation many"):
        Matcher(rules, PairParser())


def test_the_prefilter_proposes_every_record_that_holds_the_atom() -> None:
    raws = [Raw("error.[1]"), Raw("kick", cased=True), Raw("x"), Raw("st*straße")]
    keywords = {number: atoms_of(raw) or () for number, raw in enumerate(raws)}
    batch = batch_of(["an ERROR.[1] here", "nothing", "\u212aick and kick", "error.[1] kick", "ﬆ STRASSE"])
    proposed, unread = Prefilter(keywords).candidates(batch)
    found = {raws[number].pattern: rows.tolist() for number, rows in proposed.items()}
    assert found == {"error.[1]": [0, 3], "kick": [2, 3], "x": [0, 1, 2, 3, 4], "st*straße": [4]}
    assert unread.tolist() == [2, 4]


def test_the_prefilter_cannot_read_letters_written_as_numbers() -> None:
    keywords = {number: atoms_of(Raw(text)) or () for number, text in enumerate(["kick", 'a"bcd'])}
    lines = [r'{"a":"k\u0069ck"}', r'{"a":"C:\\user"}', r'{"a":"C:\\\u006bick"}', r'{"a":"A\"BCD KICK"}']
    proposed, unread = Prefilter(keywords, json=True).candidates(batch_of(lines))
    assert {number: rows.tolist() for number, rows in proposed.items()} == {0: [3], 1: [3]}
    assert unread.tolist() == [0, 2]


def test_windows_use_the_time_of_reading_where_clocks_disagree() -> None:
    rule = Rule(id="r", name="x", level=Level.LOW)
    batch = batch_of(["t=1000", "t=5000"])
    late = Batch(
        Origin("h", "s"),
        0,
        batch.block,
        batch.starts,
        batch.ends,
        batch.positions,
        read_at=1_010_000_000,
        timezone="UTC",
    )
    matches = Matcher([rule], PairParser(), skew_limit=300_000_000).match(late)
    assert matches.skewed == 1
    assert matches.window.tolist() == [1_000_000_000, 1_010_000_000]


def test_a_clock_that_is_wrong_makes_no_later_record_late() -> None:
    rules = [Rule(id="r", name="x", level=Level.LOW, when=Test("user.name", Op.EQUALS, ("bob",)))]
    matcher = Matcher(rules, PairParser(), skew_limit=300_000_000)
    batch = batch_of(["t=2000000000 user.name=eve", "t=10 user.name=bob", "t=20 user.name=bob", "t=2000000000"])
    matches = matcher.match(replace(batch, read_at=20_000_000))
    assert matches.high.tolist() == [20_000_000, 20_000_000]
    assert matches.batch_high == 20_000_000


@pytest.mark.parametrize("pattern", ["S", "K", "I", "abS", "abK", "abI"])
@pytest.mark.parametrize("letter", ["ſ", "\u212a", "İ", "ß", "ı"])
def test_a_keyword_folds_case_as_every_other_test_does(pattern: str, letter: str) -> None:
    nodes = [Raw(pattern), Test("user.name", Op.CONTAINS, (pattern,)), Test("user.name", Op.LIKE, (f"*{pattern}*",))]
    rules = [Rule(id=f"r{n}", name="x", level=Level.LOW, when=node) for n, node in enumerate(nodes)]
    text = f"xxab{letter}xx"
    hits = Matcher(rules, GivenParser([{"user.name": text}])).match(batch_of([text])).hits
    assert len({index in hits for index in range(3)}) == 1


def test_over_the_wire_nothing_changes() -> None:
    rules = [
        Rule(id="a", name="x", level=Level.LOW, when=Test("user.name", Op.EQUALS, ("bob",))),
        Rule(id="b", name="x", level=Level.LOW, when=Test("source.port", Op.EXISTS, (True,)), key=("source.port",)),
    ]
    batch = batch_of(["t=1 user.name=bob", "t=2", "t=3 user.name=eve source.port=9 repeat=3", "t=4 user.name=bob"])
    matches = Matcher(rules, PairParser()).match(batch)
    back, starts, ends, too_long = unpack(pack(matches, batch.starts, batch.ends, too_long=3))
    assert too_long == 3
    assert [batch.block[a:b] for a, b in zip(starts, ends, strict=True)] == [
        batch.raw(int(row)) for row in matches.rows
    ]
    halves = [part_of(back, 0, 2), part_of(back, 2, 3)]
    joined = join([halves[1], halves[0]], np.asarray([1, 2, 0]))
    for one in (back, joined):
        assert one.time.tolist() == matches.time.tolist()
        assert one.repeat.tolist() == [1, 3, 1]
        assert {index: hits.tolist() for index, hits in one.hits.items()} == {0: [0, 2], 1: [1]}
        assert [one.fields["user.name"].value(row) for row in range(3)] == ["bob", "eve", "bob"]
        assert (one.n, one.batch_high) == (4, 4_000_000)


def test_values_that_are_equal_and_not_the_same_stay_apart() -> None:
    values = [1, True, 1.0, "1", (1,), (True,), None, 1]
    column = Column.from_values(values)
    assert [repr(column.value(row)) for row in range(8)] == [repr(value) for value in values]
    assert len(column.values) == 6


def test_narrow_keeps_what_its_records_use() -> None:
    column = Column(np.asarray([2, -1, 0, 2] * 5, dtype=np.int32), ["a", "b", "c"])
    for times in (1, 5):  # few records, and more
        kept = narrow(column, np.asarray([0, 1, 3] * times))
        assert list(kept.values) == ["c"]
        assert [kept.value(row) for row in range(3 * times)] == ["c", None, "c"] * times
        some = narrow(column, np.asarray([2, 0, 1, 3] * times), np.asarray([True, True, True, False] * times))
        assert list(some.values) == ["a", "c"]
        assert [some.value(row) for row in range(4 * times)] == ["a", "c", None, None] * times


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.integers(0, 300), st.integers(1, 255))
def test_checks_are_of_the_bytes_alone_and_tell_one_changed_byte(lines: list[bytes], at: int, by: int) -> None:
    def checked(records: list[bytes]) -> list[int]:
        ends = np.cumsum([len(one) for one in records], dtype=np.int64)
        return checks(b"".join(records), ends - [len(one) for one in records], ends).tolist()

    alone = [checked([line])[0] for line in lines]
    assert checked(lines) == alone
    changed = bytearray(lines[0])
    if changed:
        changed[at % len(changed)] ^= by
        assert checked([bytes(changed)]) != alone[:1]


def test_a_value_no_pattern_decides_within_its_limit_is_counted_and_does_not_match() -> None:
    hard = Test("user.name", Op.REGEX, (r"^(?=a)(a+)+$",))
    rules = [
        Rule(id="hard", name="x", level=Level.LOW, when=hard),
        Rule(id="easy", name="x", level=Level.LOW, when=Test("user.name", Op.REGEX, (r"^a(?!b)",))),
    ]
    matcher = Matcher(rules, PairParser())
    first = matcher.match(batch_of(["user.name=aaa", "user.name=" + "a" * 40 + "b", "user.name=ab"]))
    assert {rules[index].id: first.rows[hits].tolist() for index, hits in first.hits.items()} == {
        "hard": [0],
        "easy": [0, 1],
    }
    assert first.undecided == 1
    assert matcher.match(batch_of(["user.name=aaa"])).undecided == 0


def test_one_and_true_are_two_tests() -> None:
    rules = [
        Rule(id=f"r{n}", name="x", level=Level.LOW, when=Test("user.name", Op.EQUALS, (value,)))
        for n, value in enumerate((1, True, 1.0))
    ]
    hits = Matcher(rules, PairParser()).match(batch_of(["user.name=1", "user.name=true", "user.name=1.0"])).hits
    assert {index: rows.tolist() for index, rows in hits.items()} == {0: [0], 1: [1], 2: [2]}


def test_a_value_with_the_characters_of_the_scan_begins_and_ends_where_it_does() -> None:
    nodes = [Test("user.name", Op.STARTSWITH, ("cmd.exe",)), Test("user.name", Op.ENDSWITH, ("cmd.exe",))]
    rules = [Rule(id=f"r{n}", name="x", level=Level.LOW, when=node) for n, node in enumerate(nodes)]
    values = ["cmd.exe x", "x\x01cmd.exe\x02x", "x cmd.exe", "\x01cmd.exe\x02"]
    hits = Matcher(rules, GivenParser([{"user.name": value} for value in values])).match(batch_of(["x"] * 4)).hits
    assert {index: rows.tolist() for index, rows in hits.items()} == {0: [0], 1: [1]}


def test_keywords_beside_the_test_that_is_looked_for_are_judged_where_they_stand() -> None:
    both = All((Test("user.name", Op.EQUALS, ("bob-the-builder",)), Any((Raw("dd"), Raw("reboot")))))
    needed = Raw("poweroff")
    rules = [Rule(id=f"r{n}", name="x", level=Level.LOW, when=node) for n, node in enumerate((both, needed))]
    lines = [f"user.name=bob-the-builder {word}" for word in ("reboot", "dd", "halt", "POWEROFF", "ſudo REBOOT")]
    matches = Matcher(rules, PairParser()).match(batch_of(lines))
    found = {index: matches.rows[hits].tolist() for index, hits in matches.hits.items()}
    assert found == {0: [0, 1, 4], 1: [3]}

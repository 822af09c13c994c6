"""What Sigma's specification and pySigma's documentation say of values, modifiers and conditions, on single events.
Counterpart: the engine, its reference and pySigma's rules in SQLite are asked, and must all say the same."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import pytest
import yaml
from bench.agreement import Judge, Sample
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule
from tests.detections import reference
from tests.detections.given import Fields, GivenParser, Record, batch_of, said_by_position

from vedette.detections.match import Matcher
from vedette.model.events import RecordKind
from vedette.rules.documents import parse_documents
from vedette.rules.sigma import compile_document

ID = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True)
class Fact:
    """Events that match a detection, and events that do not. alone: why the judge in SQLite is not asked."""

    detection: str
    matches: tuple[Fields, ...]
    others: tuple[Fields, ...]
    alone: str = ""


def values(item: str, matching: list[object], not_matching: list[object], alone: str = "") -> Fact:
    """A fact about the values of the one field `f` (`item` is what stands behind it); ... means absent."""

    def events(found: list[object]) -> tuple[Fields, ...]:
        return tuple({} if value is ... else {"f": value} for value in found)  # type: ignore[dict-item]

    return Fact(f"s:\n  f{item}\ncondition: s", events(matching), events(not_matching), alone)


def parts(condition: str, matching: list[str], not_matching: list[str], more: str = "") -> Fact:
    """A fact about a condition over `sel_a`, `sel_b`, `filter_c` and `_d`: letters name the parts that hold."""
    names = ("sel_a", "sel_b", "filter_c", "_d")
    lines = [f"{name}: {{{name[-1]}: 1}}" for name in names] + [more] * bool(more)

    def events(found: list[str]) -> tuple[Fields, ...]:
        return tuple(dict.fromkeys(letters, 1) | {"other": 1} for letters in found)

    return Fact("\n".join([*lines, f"condition: {condition}"]), events(matching), events(not_matching))


def b64(text: str, encoding: str = "utf-8") -> str:
    return base64.b64encode(text.encode(encoding)).decode()


ASCII_ONLY = "SQLite folds ASCII alone"
GLOB = "SQLite's GLOB and LIKE know no newline of their own, but its REGEXP here is Python's"
LISTS = "a cell of SQLite has one value"
TYPES = "a column of SQLite compares numbers as text"
FACTS = [
    # ---- text: wildcards, escapes, case
    values(": a", ["a", "A"], ["", "aa", "b", None, ...]),
    values(": 'a*'", ["a", "ab", "A\nb", "a*"], ["ba", "", None, ...]),
    values(": '*a'", ["a", "ba"], ["ab"]),
    values(": '*a*'", ["a", "bab", "\nA\n"], ["b", ""]),
    values(": 'a*c*e'", ["ace", "abcde", "aecce"], ["acd", "ec"]),
    values(": 'a?c'", ["abc", "a?c", "a\nc"], ["ac", "abbc"]),
    values(": '*'", ["", "a", 0], [None, ...]),
    values(": '?'", ["a"], ["", "ab"]),
    values(": '??*'", ["ab", "abc"], ["a", ""]),
    values(r": 'a\*'", ["a*"], ["ab", "a", "a\\*", "a\\b"]),
    values(r": 'a\?b'", ["a?b"], ["axb", "a\\?b"]),
    values(r": '*\?*'", ["a?b", "?"], ["ab", "*"]),
    values(r": 'a\\*'", ["a\\", "a\\b", "a\\*"], ["a*", "ab"]),
    values(r": 'a\\\*'", ["a\\*"], ["a\\", "a\\b", "a*"]),
    values(r": 'a\b'", ["a\\b", "A\\B"], ["ab", "a\\\\b"]),
    values(r": 'a\\b'", ["a\\b"], ["ab", "a\\\\b"]),
    values(r": '\\\\a'", ["\\\\a"], ["\\a"]),
    values(r": 'a\'", ["a\\"], ["a"]),
    values(r": 'C:\W\\*\c.exe'", ["c:\\w\\x\\C.EXE"], ["c:\\w\\c.exe", "c:\\wx\\c.exe", "c:/w/x/c.exe"]),
    values(r": 'C:\W\*\c.exe'", ["c:\\w*\\c.exe"], ["c:\\w\\x\\c.exe"]),
    values(": 'a%b_c'", ["a%b_c"], ["axbxc", "a%bxc"]),
    values(": 'a[bc]'", ["a[bc]"], ["ab", "ac"]),
    values(": 'straße'", ["straße", "STRASSE", "Strasse", "STRAẞE"], ["strase"], ASCII_ONLY),
    values(": 'Σίσυφος'", ["ΣΊΣΥΦΟΣ", "σίσυφοσ"], ["Σισυφος"], ASCII_ONLY),
    values(": 'kiss'", ["KI\u017f\u017f", "\u212aiss"], ["k\u0131ss", "k\u0130ss"], ASCII_ONLY),
    values("|contains: à", ["xÀy", "À"], ["a", "A\u0300"], ASCII_ONLY),
    values("|cased: 'aB'", ["aB"], ["ab", "AB"]),
    values("|cased: 'a*B'", ["axxB"], ["axxb", "AxxB"]),
    values("|contains|cased: 'aB'", ["xaBy"], ["xaby"]),
    values("|startswith|cased: 'aB'", ["aBc"], ["abc", "xaB"]),
    values("|endswith|cased: 'aB*c'", ["xaByyc"], ["xabyyc", "aBcd"]),
    # ---- empty, null, absent
    values(": ''", [""], ["a", " ", None, ...]),
    values(": null", [None, ...], ["", "null", 0]),
    values(": [a, null]", ["a", None, ...], ["", "b"]),
    values(": ['', null]", ["", None, ...], ["b"]),
    values(": null", [()], [("",), (None, "a")], LISTS),
    values("|exists: true", ["", "a", 0], [...]),
    values("|exists: false", [...], ["", "a", 0]),
    values("|exists: true", [None, ()], [...], "null and absent are one in a table"),
    # ---- numbers, booleans
    values(": 1", [1, "1"], ["01", "1.0", 11, True, ...]),
    values(": -1", [-1, "-1"], [1]),
    values(": '1'", [1, "1"], [10]),
    values(": 0x10", [16, "16"], ["0x10"]),
    values(": true", [True, "true", "TRUE"], [False, "1 ", ...]),
    values(": 'true'", [True, "True"], [False, 1]),
    values("|gt: 5", [6, "10", 5.5, "1e3"], [5, "5", 4, "a", "", ...], TYPES),
    values("|gte: 5", [5, "5.0", 6], [4.9, "", None]),
    values("|lt: 5", [4, "-7", " 3 "], [5, "a", "", None, ..., True], TYPES),
    values("|lte: -2.5", [-2.5, -3], [-2, "-"], TYPES),
    # ---- contains, startswith, endswith
    values("|contains: b", ["abc", "B"], ["ac", "", ...]),
    values("|contains: ''", ["", "a"], [None, ...]),
    values("|contains: 'b*d'", ["abcde", "xBD"], ["db"]),
    values(r"|contains: '\*'", ["a*b"], ["ab"]),
    values(r"|contains: '\'", ["a\\b", "\\"], ["a/b"]),
    values(r"|endswith: '\cmd.exe'", ["C:\\CMD.exe"], ["cmd.exe", "C:\\cmd.exe "]),
    values("|startswith: 'a?'", ["abc", "ab"], ["a", "xab"]),
    values("|contains: [a, b]", ["xa", "xb"], ["x"]),
    values("|contains|all: [a, b]", ["xab", "BA"], ["a", "b"]),
    values("|startswith|all: [a, ab]", ["abc"], ["ac"]),
    values("|contains|all: [a, 'b?d']", ["abcd"], ["abd"]),
    values(": [a, 'b*', 5]", ["A", "bcd", 5, "5"], ["ab", "6"]),
    values("|contains: -nop", ["ps -NOP x"], ["ps /nop"]),
    values("|contains|windash: ' -nop'", ["x -nop", "x /NOP", "x –nop", "x —nop", "x ―nop"], ["x nop", "x --no"]),
    values("|windash|contains|all: [' -a', ' -b']", ["x -a /b", "/b /a -b -a"], ["x -a", "x /b"]),
    # ---- several values
    values(": a", [("b", "a"), ("A",)], [("b", "c"), (), (None,)], LISTS),
    values("|contains|all: [a, b]", [("a", "b"), ("xab",)], [("a", "c")], LISTS),
    Fact("s:\n  f: a\ncondition: not s", ({"f": ("b", "c")}, {}), ({"f": ("b", "a")},), LISTS),
    values("|gt: 5", [(1, 9)], [(1, 2), ("x",)], LISTS),
    # ---- regular expressions
    values("|re: 'b+'", ["abbc"], ["aBBc", "ac", ...]),
    values("|re: '^ab$'", ["ab"], ["AB", "abc", "xab"]),
    values("|re: '^ab$'", [], ["ab\n", "\nab"], GLOB),
    values("|re|i: '^ab$'", ["AB", "aB"], ["abc"]),
    values("|re|m: '^b$'", ["a\nb\nc"], ["ab"]),
    values("|re|s: 'a.b'", ["a\nb", "axb"], ["ab"]),
    values("|re: 'a.b'", ["axb"], ["a\nb"]),
    values("|re|i|m|s: '^A.B$'", ["x\na\nb"], ["xa\nb"]),
    values(r"|re: '\d{3}\*'", ["x123*"], ["12*", "1234"]),
    values(r"|re: '\\(temp|tmp)\\[^\\]+\.exe$'", ["c:\\tmp\\a.exe"], ["c:\\Temp\\a.exe", "c:\\tmp\\x\\a.exe"]),
    values("|re: ['^a', 'z$']", ["ab", "yz"], ["ba"]),
    values("|re|all: ['^a', 'z$']", ["az"], ["ab", "yz"]),
    values("|re: '(?i)ab'", ["xAB"], ["a"]),
    # ---- addresses
    values("|cidr: 10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "x10.1.2.3", "", ...]),
    values("|cidr: 10.0.0.0/8", [], ["10.1", "10.1.2.3.4", "10.1.2.3/8"], "it compares text"),
    values("|cidr: 192.168.1.0/28", ["192.168.1.15"], ["192.168.1.16"]),
    values("|cidr: 127.0.0.1/32", ["127.0.0.1"], ["127.0.0.10"]),
    values("|cidr: [10.0.0.0/8, 192.168.0.0/16]", ["10.0.0.1", "192.168.9.9"], ["172.16.0.1"]),
    values("|cidr: 'fe80::/10'", ["fe80::1", "FEBF::1"], ["fec0::1", "10.0.0.1"]),
    values("|cidr: '::1/128'", ["::1", "0:0:0:0:0:0:0:1"], ["::2"], "it compares the text of IPv6"),
    values("|cidr: 10.0.0.0/8", ["::ffff:10.0.0.1"], ["::ffff:11.0.0.1", "010.0.0.1"], "it compares text"),
    # ---- encodings
    values("|base64: foo", [b64("foo")], ["foo", b64("fool")]),
    values("|base64|contains: foobar", [f"x{b64('foobar')}y"], [b64("xfoobar")]),
    values(
        "|base64offset|contains: foobar",
        [b64("foobarx"), b64("xfoobarx"), b64("xxfoobarxx")],
        [b64("fooba"), "foobar"],
    ),
    values("|utf16le|base64offset|contains: ping", [b64("xping", "utf-16-le")], [b64("ping")], "it calls it wide"),
    values("|wide|base64offset|contains: ping", [b64("x ping", "utf-16-le")], [b64("ping", "utf-16-be")]),
    values("|utf16be|base64offset|contains: ping", [b64("xping ", "utf-16-be")], [b64("ping")]),
    # ---- other fields, negation, parts of times
    Fact("s:\n  f|fieldref: g\ncondition: s", ({"f": "a", "g": "a"},), ({"f": "a", "g": "b"}, {"f": "a"}, {"g": "a"})),
    Fact("s:\n  f|fieldref: g\ncondition: s", ({"f": "a", "g": "A"},), ()),
    Fact(
        "s:\n  f|fieldref|startswith: g\ncondition: s",
        ({"f": "abc", "g": "ab"}, {"f": "ab", "g": "ab"}),
        ({"f": "abc", "g": "bc"}, {"f": "abc"}),
    ),
    Fact(
        "s:\n  f|fieldref|endswith: g\ncondition: s",
        ({"f": "abc", "g": "bc"},),
        ({"f": "abc", "g": "ab"}, {"f": "a*c", "g": "%c"}),
    ),
    values("|neq: a", ["b", "", None, ...], ["a", "A"]),
    values("|neq: [a, b]", ["c", ...], ["a", "b"]),
    Fact("s:\n  f|fieldref|neq: g\ncondition: s", ({"f": "a", "g": "b"},), ({"f": "a", "g": "a"},)),
    values("|hour: 8", ["2025-06-15T08:05:00", "2025-06-15T08:59:59.123"], ["2025-06-15T18:05:00", "8", ...]),
    values("|minute: 5", ["2025-06-15 08:05:00"], ["2025-06-15 08:50:00"]),
    values("|day: 15", ["2025-06-15 08:05:00"], ["2025-06-05 15:15:15"]),
    values("|month: 6", ["2025-06-15T08:05:00Z"], ["2025-07-06T06:06:06Z"]),
    values("|year: 2025", ["2025-06-15T08:05:00Z"], ["2024-12-31T23:59:59Z"]),
    values("|week: 1", ["2024-12-30T00:00:00Z"], ["2024-12-29T00:00:00Z"], "its weeks begin with the year"),
    values("|hour: 22", ["2025-06-15T00:30:00+02:00"], ["2025-06-15T22:30:00+02:00"]),
    # ---- maps, lists, keywords
    Fact("s: {f: a, g: b}\ncondition: s", ({"f": "a", "g": "b"},), ({"f": "a"}, {"g": "b"})),
    Fact("s: [{f: a}, {g: b}]\ncondition: s", ({"f": "a"}, {"g": "b"}), ({"f": "b"},)),
    Fact("s: [{f: a, h: c}, {g: b}]\ncondition: s", ({"f": "a", "h": "c"}, {"g": "b"}), ({"f": "a"},)),
    Fact("s: {f|contains: a, f|endswith: z}\ncondition: s", ({"f": "xaz"},), ({"f": "xa"}, {"f": "z"})),
    Fact("s: [foo, 'b?r']\ncondition: s", ({"f": "xFOOx"}, {"g": "a bar"}), ({"f": "fo o"}, {"foo": "x"}, {})),
    Fact("s: {'|all': [foo, bar]}\ncondition: s", ({"f": "bar foo"}, {"f": "foo", "g": "bar"}), ({"f": "foo"},)),
    Fact(r"s: ['a\*b']" "\ncondition: s", ({"f": "xa*bx"},), ({"f": "axb"},)),
    Fact("s: {'|re': 'fo+$'}\ncondition: s", ({"f": "a foo"},), ({"f": "food"}, {"f": "FOO"})),
    Fact("s: {'|cased': 'Foo'}\ncondition: s", ({"f": "a Foo"},), ({"f": "foo"},)),
    # ---- conditions
    parts("sel_a", ["a", "ab"], ["", "b"]),
    parts("sel_a and sel_b", ["ab", "abc"], ["a", "b"]),
    parts("sel_a or sel_b and filter_c", ["a", "bc"], ["b", "c"]),
    parts("(sel_a or sel_b) and filter_c", ["ac", "bc"], ["a", "ab"]),
    parts("not sel_a and sel_b", ["b"], ["ab", ""]),
    parts("not (sel_a and sel_b)", ["a", "b", ""], ["ab"]),
    parts("not not sel_a", ["a"], [""]),
    parts("not sel_a or sel_b", ["", "b", "ab"], ["a"]),
    parts("1 of sel_*", ["a", "b", "ab"], ["", "cd"]),
    parts("any of sel_*", ["a", "b"], ["c"]),
    parts("all of sel_*", ["ab"], ["a", "b"]),
    parts("1 of sel_* and not 1 of filter_*", ["a", "bd"], ["ac", "c", ""]),
    parts("not all of sel_*", ["a", "b", ""], ["ab"]),
    parts("1 of them", ["a", "c"], ["", "d"]),
    parts("all of them", ["abc", "abcd"], ["ab", "abd"]),
    parts("1 of *_a or _d", ["a", "d"], ["b", ""]),
    parts("[sel_a, sel_b and filter_c]", ["a", "bc"], ["b", "c"]),
]


def text_of(fact: Fact) -> str:
    head = f"title: T\nid: {ID}\nstatus: test\nlevel: low\nlogsource:\n  category: made_up\ndetection:\n"
    return head + "".join(f"  {line}\n" for line in fact.detection.split("\n"))


def record_of(event: Fields) -> Record:
    strings = tuple(value for value in event.values() if isinstance(value, str))
    return Record(event, RecordKind("", frozenset({"made_up"})), b"", strings)


def judged(fact: Fact) -> set[int]:
    """The numbers of the events that match in SQLite."""
    events = (*fact.matches, *fact.others)
    judge = Judge([Sample("", orjson.dumps(event), event) for event in events])  # type: ignore[arg-type]
    return judge.matched(SigmaRule.from_dict(yaml.safe_load(text_of(fact))))


def facts(which: Callable[[Fact], bool]) -> pytest.MarkDecorator:
    kept = [fact for fact in FACTS if which(fact)]
    return pytest.mark.parametrize("fact", kept, ids=[f"{n}: {fact.detection!r}" for n, fact in enumerate(kept)])


@facts(lambda fact: True)
def test_engine_and_reference_say_so(fact: Fact) -> None:
    (document,) = parse_documents(text_of(fact).encode(), "r.yml")
    rule = compile_document(document).rule
    records = [record_of(event) for event in (*fact.matches, *fact.others)]
    expected = list(range(len(fact.matches)))
    assert [at for at, one in enumerate(records) if reference.holds(rule.when, one.fields, one.looked_at)] == expected
    assert list(said_by_position(Matcher([rule], GivenParser(records)).match(batch_of(records)))) == expected


@facts(lambda fact: not fact.alone)
def test_the_judge_says_so_too(fact: Fact) -> None:
    assert judged(fact) == set(range(len(fact.matches)))


@facts(lambda fact: bool(fact.alone))
def test_where_the_judge_is_not_asked_it_would_say_otherwise(fact: Fact) -> None:
    try:
        verdict = judged(fact)
    except (SigmaError, sqlite3.Error, re.error, TypeError):
        return
    assert verdict != set(range(len(fact.matches)))

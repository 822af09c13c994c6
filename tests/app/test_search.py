"""Searching the lake: what is found, in which order, and what is said where it is not all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.app.search_parts import HOUR, lake_of, obvious, put, search

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.routed import routed_parser
from vedette.app.search import CutReason, Limits, take
from vedette.app.search_plan import VERBATIM, literals_of
from vedette.model.levels import Level
from vedette.model.rules import Op, Rule, Test
from vedette.parsers.written import read_patterns
from vedette.rules.query import parse_query
from vedette.store.lake.lake import Lake
from vedette.store.lake.reader import Reader
from vedette.testing.clock import FakeClock
from vedette.text.times import parse_rfc3339, rfc3339

BASE = parse_rfc3339("2026-01-01T00:00:00Z")


def line(minute: int, words: str, host: str = "web01", program: str = "sshd[7]") -> bytes:
    return f"{rfc3339(BASE + minute * 60_000_000)} {host} {program}: {words}".encode()


BATCHES = [
    [line(0, "Failed password for root from 192.0.2.1 port 22 ssh2"), b"no header, but 192.0.2.1 in it"],
    [line(3, "Accepted publickey for alice from 198.51.100.7 port 50000 ssh2"), line(1, "Connection closed")],
    [b'{"@timestamp":"2026-01-01T00:02:00Z","user":{"name":"Alice"},"n":3,"path":"C:\\\\Temp"}'],
    [line(2, "Failed password for invalid user bob from 192.0.2.77 port 4000 ssh2")],
]


@pytest.fixture
def lake(tmp_path):
    with lake_of(tmp_path / "lake", BATCHES) as made:
        yield made


def raws(lake: Lake, query: str, limit: int = 100, **options: object) -> list[bytes]:
    return [hit.raw for hit in search(lake, query, **options).newest(limit)]


def test_lines_no_parser_knows_are_found_too_and_fields_mean_what_they_mean_in_rules(lake):
    assert set(raws(lake, "192.0.2.1")) == {BATCHES[0][0], BATCHES[0][1]}
    assert raws(lake, "source.ip:192.0.2.1") == [BATCHES[0][0]]
    assert raws(lake, "event.outcome:failure source.ip:192.0.2.0/24") == [BATCHES[3][0], BATCHES[0][0]]
    assert raws(lake, "user.name:ALICE") == [BATCHES[1][0], BATCHES[2][0]]
    assert raws(lake, "n:[2 TO 3]") == [BATCHES[2][0]]
    assert raws(lake, '"C:\\\\Temp"') == [BATCHES[2][0]]


def test_newest_come_first_and_a_limit_is_said(lake):
    one = search(lake, "sshd")
    assert [hit.raw for hit in one.newest(2)] == [BATCHES[1][0], BATCHES[3][0]]
    assert list(one.limits.cut) == [CutReason.LIMIT]
    exactly = search(lake, "sshd")
    assert len(exactly.newest(4)) == 4
    assert not exactly.limits.cut


def test_a_range_is_closed_at_its_begin_and_open_at_its_end(lake):
    assert raws(lake, "sshd", since=BASE + 60_000_000, until=BASE + 180_000_000) == [BATCHES[3][0], BATCHES[1][1]]
    assert raws(lake, "sshd @timestamp:[2026-01-01T00:03:00Z TO *]") == [BATCHES[1][0]]
    assert raws(lake, "sshd", since=BASE + HOUR) == []


def test_hosts_and_streams_narrow(lake):
    put(lake, 1, [line(9, "Connection closed")], stream="other")
    lake.flush()
    assert len(raws(lake, "closed")) == 2
    assert raws(lake, "closed", streams=frozenset({"other"})) == [line(9, "Connection closed")]
    assert raws(lake, "closed", hosts=frozenset({"22222222-2222-4222-8222-222222222222"})) == []


def test_a_result_has_its_fields_and_says_where_it_stands(lake):
    one = search(lake, "alice")
    first, second = one.records(one.newest(10))
    assert (first["@timestamp"], first["source.ip"]) == ("2026-01-01T00:03:00.000000Z", "198.51.100.7")
    assert first["event.outcome"] == "success"
    assert first["event.original"] == BATCHES[1][0].decode()
    assert first["record.id"].endswith("/auth/0:1")
    assert (second["user.name"], second["n"], second["vedette.stream"]) == ("Alice", 3, "auth")


def test_when_the_time_is_up_what_was_found_so_far_is_given_and_it_is_said(lake):
    ticks = iter(range(100))
    one = search(lake, "sshd", limits=Limits(until=2.0, now=lambda: float(next(ticks))))
    assert len(one.newest(10)) < 4
    assert list(one.limits.cut) == [CutReason.TIMEOUT]


@pytest.mark.parametrize("newest_first", [True, False])
def test_time_runs_out_as_well_where_nothing_is_found(lake, monkeypatch, newest_first):
    opened = []
    group = Reader._group
    monkeypatch.setattr(Reader, "_group", lambda self, *which: opened.append(which) or group(self, *which))
    assert list(search(lake, "zzz").found(newest_first=newest_first)) == []
    every = len(opened)
    assert every > 2
    opened.clear()
    ticks = iter(range(100))
    one = search(lake, "zzz", limits=Limits(until=3.0, now=lambda: float(next(ticks))))
    assert list(one.found(newest_first=newest_first)) == []
    assert len(opened) < every
    assert list(one.limits.cut) == [CutReason.TIMEOUT]


def test_rare_words_are_looked_for_before_anything_is_parsed(lake):
    one = search(lake, "publickey")
    one.newest(10)
    assert (one.candidates, one.matched) == (1, 1)
    mapped = search(lake, "source.ip:198.51.100.0/24")
    mapped.newest(10)
    assert mapped.candidates == 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("failed", [{b"failed"}]),
        ('"for invalid user"', [{b"for"}, {b"invalid"}, {b"user"}]),
        ("failed OR closed", [{b"failed", b"closed"}]),
        ("failed OR /x.*y/", []),
        ("NOT failed", []),
        ("failed -root", [{b"failed"}]),
        ("event.outcome:failure", []),
        ("source.ip:10.1.0.0/16", [{b"10.1."}]),
        ("source.ip:10.1.0.0/15", [{b"10."}]),
        ('source.ip:"2001:db8::1"', []),
        ("user.name:root*", [{b"root"}]),
        ("ab", []),
        ("nätwork", [{b"twork"}]),
        ("Image:powershell.exe", [{b"powershell.exe"}]),
        ("code:4625", []),
    ],
)
def test_what_must_occur(query: str, words: list[set[bytes]]) -> None:
    found = literals_of(parse_query(query).node)
    plain = [{one.text for one in group if not is_hexadecimal(one.text) and one.text != b"::ffff:"} for group in found]
    assert plain == words


def is_hexadecimal(text: bytes) -> bool:
    return len(text) % 2 == 0 and not text.strip(b"0123456789ABCDEF")


WORDS = ["Failed", "password", "root", "alice", "192.0.2.1", "192.0.2.77", "10.0.0.1", "port", "22", "é", "K", "\\x"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
MADE = st.one_of(
    st.tuples(st.integers(0, 9), SENTENCES).map(lambda pair: line(*pair)),
    st.tuples(st.sampled_from(["root", "alice", "k b"]), st.sampled_from(["192.0.2.1", "::ffff:10.0.0.1"])).map(
        lambda pair: line(5, f"Failed password for {pair[0]} from {pair[1]} port 22 ssh2")
    ),
    SENTENCES.map(str.encode),
)
QUERIES = [
    "failed",
    "root OR alice",
    "failed AND NOT root",
    '"password for root"',
    "source.ip:192.0.2.0/24",
    "source.ip:10.0.0.1",
    "user.name:(root OR alice)",
    "user.name:*o*",
    "message:/ro+t/",
    "*word AND (22 OR alice)",
    "event.outcome:failure OR 192.0.2.77",
    "NOT user.name:*",
]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(MADE, min_size=1, max_size=5), min_size=1, max_size=4), st.sampled_from(QUERIES))
def test_a_search_finds_what_the_obvious_search_finds(tmp_path_factory, batches, query):
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(folder, clock=FakeClock(), counter=Counters())
    try:
        stored = [put(lake, number, lines) for number, lines in enumerate(batches, 1)]
        lake.flush()
        hits = search(lake, query).newest(1000)
    finally:
        lake.close()
    assert sorted((hit.key.number, hit.index) for hit in hits) == obvious(stored, query)
    assert [hit.time for hit in hits] == sorted((hit.time for hit in hits), reverse=True)


def test_what_is_taken_of_a_batch_holds_those_bytes_only(lake):
    batch = lake.read(0, 1)[0].batch
    some = take(batch, np.array([1]))
    assert [some.raw(row) for row in range(len(some))] == [BATCHES[0][1]]
    assert len(some.block) == len(BATCHES[0][1]) + 1
    assert some.positions.tolist() == [2]


def test_what_is_looked_for_stands_in_every_sample_of_our_patterns():
    """A field that were not verbatim would make searches miss records."""
    every = Rule("every", "every", Level.LOW, when=Test("user.name", Op.EXISTS, (True,)))
    parser = routed_parser([every], Counters())
    looked_for = 0
    for file in read_patterns().files:
        program = (file.programs or ("sshd",))[0].encode()
        samples = [sample.message for pattern in file.patterns for sample in pattern.samples]
        lines = [b"2026-01-01T00:00:00Z web01 %s[1]: %s" % (program, one) for one in samples if b"\n" not in one]
        table = parser.parse(batch_of_lines(lines, year=2026))
        for field in (*sorted(VERBATIM), "source.ip"):
            column = table.column(field)
            for row, text in enumerate(lines):
                value = column.value(row)
                if not isinstance(value, str):
                    continue
                for group in literals_of(Test(field, Op.EQUALS, (value,))):
                    looked_for += 1
                    assert any(one.text.lower() in text.lower() for one in group), (field, value, text)
    assert looked_for > 1000

"""Searching from the command line: what is printed and written, and that nothing of a log acts on anything.
Counterpart: vedette.cli.search, vedette.cli.tail and vedette.app.search_export."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.app.search_parts import lake_of, put
from tests.cli.parts import Place

from vedette.app.counters import Counters
from vedette.app.search import Confirming
from vedette.app.search_export import cell, new_file
from vedette.app.search_tail import follow, last_sequence
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.rules.query import parse_query
from vedette.text.times import rfc3339

HOSTILE = "\x1b[31m=cmd|' /C calc'!A0\u202e"


def now(minutes_ago: int) -> str:
    return rfc3339(SystemClock().now() - minutes_ago * 60_000_000)


@pytest.fixture
def filled(place: Place) -> Place:
    lines = [
        f"{now(30)} web01 sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2",
        f"{now(20)} web01 sshd[2]: Failed password for bob from 192.0.2.1 port 23 ssh2",
        f"{now(10)} web02 app[3]: {HOSTILE}",
        f"{now(60 * 48)} web02 sshd[4]: Failed password for old from 192.0.2.1 port 22 ssh2",
    ]
    with lake_of(place.data / "lake", [[line.encode() for line in lines]]):
        pass
    return place


def test_json_has_one_record_a_line_newest_first_and_says_what_is_known_of_the_rest(filled: Place):
    ran = filled.run("search", "source.ip:192.0.2.1 AND event.outcome:failure", "--output", "json")
    assert ran.code == 0
    assert [row["user.name"] for row in ran.records] == ["bob", "root"]
    assert ran.records[0]["event.original"].endswith("port 23 ssh2")
    assert "completeness: complete" in ran.err


def test_a_search_imports_what_it_needs_and_no_more(filled: Place):
    """Nearly all of a search that finds its word in one row group is what is imported before it."""
    words = ["vedette", "search", "bob", "--data", str(filled.data), "--output", "json"]
    unwanted = ["sqlalchemy", "vedette.config.settings", "vedette.detections.correlate", "pyarrow.dataset", "asyncio"]
    program = f"""
import sys, vedette.cli
sys.argv = {words!r}
try:
    vedette.cli.main()
except SystemExit:
    pass
print([name for name in {unwanted!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["user.name"] == "bob"
    assert ran.stderr.splitlines()[-1] == "[]"


def test_what_is_missing_is_said(place: Place):
    created = SystemClock().now() - 30 * 60_000_000
    with lake_of(place.data / "lake", []) as lake:
        for number, minutes in ((1, 40), (2, 30), (4, 20)):
            put(lake, number, [f"{now(minutes)} web01 sshd[1]: a".encode()], created=created + number * 60_000_000)
        lake.flush()
    ran = place.run("search", "sshd", "--since", "40m", "--output", "json")
    assert "batches missing (auth)" in ran.err


def test_since_reaches_further_and_the_limit_is_said(filled: Place):
    ran = filled.run("search", "failed", "--since", "7d", "--limit", "2", "--output", "json")
    assert len(ran.records) == 2
    assert "there are more" in ran.err
    assert len(filled.run("search", "failed", "--since", "7d", "--output", "json").records) == 3
    assert "looks further back" in filled.run("search", "old").err


def test_a_line_for_people_has_no_control_characters(filled: Place):
    ran = filled.run("search", "calc")
    assert "\\x1b[31m" in ran.out
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out


def test_pipes_make_tables(filled: Place):
    ran = filled.run("search", "failed | count by user.name", "--output", "json")
    assert ran.records == [{"user.name": "bob", "count": 1}, {"user.name": "root", "count": 1}]
    assert filled.run("search", "failed | top 1 source.ip").out.splitlines() == ["SOURCE.IP  COUNT", "192.0.2.1  2"]


def test_csv_holds_nothing_a_spreadsheet_would_run(filled: Place, tmp_path: Path):
    ran = filled.run("search", "*", "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["process.name"] for row in rows] == ["app", "sshd", "sshd"]
    assert rows[0]["message"].startswith("\\x1b[31m=cmd")
    assert "\x1b" not in ran.out
    assert [cell(text) for text in ("=1+1", "-2", "@x", "\t=1", "plain")] == ["'=1+1", "'-2", "'@x", "\\x09=1", "plain"]
    assert (cell(-2), cell(None), cell(True), cell(["a"])) == ("-2", "", "true", '["a"]')


def test_parquet_has_types_and_is_read_without_us(filled: Place, tmp_path: Path):
    out = tmp_path / "out.parquet"
    assert filled.run("search", "failed", "--output", "parquet", "--to", out).code == 0
    table = pq.read_table(out)
    assert table.column("user.name").to_pylist() == ["bob", "root"]
    assert table.column("source.port").to_pylist() == [23, 22]
    assert str(table.schema.field("@timestamp").type) == "timestamp[us, tz=UTC]"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_is_whole_or_not_there(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(UnicodeEncodeError), new_file(out) as beside:
        beside.write_text("half \ud800", encoding="utf-8")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VedetteError), new_file(tmp_path / "no" / "out"):
        pass


def test_sql(filled: Place):
    ran = filled.run("search", "--sql", "SELECT host, count(*) AS n FROM events GROUP BY host", "--output", "json")
    assert sorted(json.dumps(row) for row in ran.records) == ['{"host": "web01", "n": 2}', '{"host": "web02", "n": 2}']
    assert filled.run("search", "--sql", "DROP VIEW events").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("source.ip:x",), "query:1:11"),
        (("a", "--sql", "SELECT 1"), "a query and SQL"),
        (("a", "--output", "parquet"), "--to FILE"),
        (("a", "--since", "soon"), "--since"),
        (("a", "--since", "1h", "--until", "2h"), "nothing lies between"),
        (("a | count by", "--since", "1h"), "query:1:3"),
    ],
)
def test_what_cannot_be_asked_is_said(filled: Place, words: tuple[str, ...], said: str):
    ran = filled.run("search", *words)
    assert ran.code == 2
    assert said in ran.err


def test_without_a_lake_it_is_said(place: Place):
    ran = place.run("search", "a")
    assert ran.code == 2
    assert "no lake" in ran.err
    assert place.run("tail", "a").code == 2


def test_what_comes_in_is_followed_in_order(tmp_path: Path):
    seen: list[list[bytes]] = []
    with lake_of(tmp_path / "lake", [[b"an old needle"]]) as lake:
        after = last_sequence(tmp_path / "lake")
        arriving = [[b"hay", b"needle 1"], [b"more hay"], [b"needle 2", b"needle 3"]]

        def wait() -> bool:
            if not arriving:
                return False
            put(lake, 5 - len(arriving), arriving.pop(0))
            lake.flush()
            return True

        confirming = Confirming(parse_query("needle").node, Counters())
        for hits in follow(lake, confirming, after=after, wait=wait):
            seen.append([hit.raw for hit in hits])
    assert seen == [[b"needle 1"], [b"needle 2", b"needle 3"]]

"""SQL on the lake: what a SELECT gives, and that nothing else comes through."""

from __future__ import annotations

import pytest
from tests.app.search_parts import lake_of

from vedette.app.search import CutReason, Limits
from vedette.app.search_sql import run_sql
from vedette.model.errors import VedetteError

LINES = [
    b"2026-01-01T00:00:00Z web01 sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2",
    b"2026-01-01T00:01:00Z web02 cron[2]: \xff odd",
]


@pytest.fixture
def files(tmp_path):
    with lake_of(tmp_path / "lake", [LINES]) as lake:
        yield lake.files()


def test_a_select_sees_the_records(files):
    found = run_sql(files, "SELECT host, program, time FROM events ORDER BY time")
    assert found.columns == ("host", "program", "time")
    assert list(found.rows) == [
        ("web01", "sshd", "2026-01-01T00:00:00.000000Z"),
        ("web02", "cron", "2026-01-01T00:01:00.000000Z"),
    ]
    raw = run_sql(files, "SELECT raw FROM events WHERE host = 'web02'")
    assert list(raw.rows) == [("2026-01-01T00:01:00Z web02 cron[2]: \U0010ffff odd",)]


def test_an_empty_lake_has_the_view_too():
    assert list(run_sql([], "SELECT count(*) FROM events").rows) == [(0,)]


def test_rows_are_bounded_and_it_is_said(files):
    limits = Limits()
    assert len(run_sql(files, "SELECT * FROM range(100)", limit=10, limits=limits).rows) == 10
    assert list(limits.cut) == [CutReason.LIMIT]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sqlite_scan('manifest.db', 'files')",
        "SELECT * FROM files",
        "COPY (SELECT 1) TO '{out}'",
        "COPY events TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "PRAGMA enable_profiling",
        "CREATE TABLE mine AS SELECT 1",
        "DROP VIEW events",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY events TO '{out}'",
        "",
        "SELEC 1",
        "SELECT query('COPY events TO ''{out}''')",
    ],
)
def test_nothing_but_the_view_can_be_reached(files, tmp_path, statement):
    out = tmp_path / "out"
    with pytest.raises(VedetteError):
        run_sql(files, statement.replace("{out}", str(out)))
    assert not out.exists()


def test_a_statement_without_end_is_stopped(files):
    with pytest.raises(VedetteError, match="took longer"):
        run_sql(files, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b", timeout=0.2)


def test_memory_is_bounded_and_nothing_is_spilled(files):
    with pytest.raises(VedetteError, match=r"(?i)memory"):
        run_sql(files, "SELECT list(range) FROM range(50000000)", memory="50MB")


def test_a_file_that_goes_while_it_is_asked_for_is_said(files, tmp_path):
    gone = [*files, tmp_path / "gone.parquet"]
    with pytest.raises(VedetteError, match="was replaced while it was read") as error:
        run_sql(gone, "SELECT count(*), min(stream) FROM events")
    assert "ask again" in error.value.hint

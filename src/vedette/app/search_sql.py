"""SQL for people and reports over the lake's records, and nothing else: one SELECT, no files, no network, bounded.
Counterpart: `store.lake` names the live files; `cli.search` prints what comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedette.app.search import CutReason, Limits
from vedette.app.search_pipes import Rows
from vedette.model.errors import VedetteError
from vedette.text.escape import decode
from vedette.text.times import rfc3339

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VIEW = "events"
MOST_ROWS = 100_000
"""Rows a statement may give."""


def run_sql(
    files: Sequence[Path],
    statement: str,
    *,
    limit: int = MOST_ROWS,
    timeout: float = 60.0,
    memory: str = "1GB",
    threads: int = 1,
    limits: Limits | None = None,
) -> Rows:
    """What one SELECT gives over the view `events`, the records of these Parquet files.

    VedetteError where it is no single SELECT, where it reaches for anything but the view, breaks a limit, takes
    longer than `timeout` seconds, or a file goes meanwhile. memory: as DuckDB writes sizes.
    """
    import duckdb

    with _only_the_view(files, memory, threads) as connection:
        try:
            statements = connection.extract_statements(statement)
        except duckdb.Error as error:
            raise _in_our_words(error) from None
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            raise VedetteError(
                "one SELECT is wanted, and nothing else", hint=f"SELECT program, count(*) FROM {VIEW} ..."
            )
        over = threading.Timer(timeout, connection.interrupt)
        over.start()
        try:
            result = connection.execute(statements[0])
            rows = result.fetchmany(limit + 1)
            columns = tuple(column[0] for column in result.description or ())
        except duckdb.InterruptException:
            raise VedetteError(
                f"the statement took longer than {timeout:g} s", hint="--timeout, or a smaller range"
            ) from None
        except duckdb.Error as error:
            raise _in_our_words(error) from None
        except FileNotFoundError:
            raise _gone() from None
        finally:
            over.cancel()
            over.join()
    if len(rows) > limit and limits is not None:
        limits.cut[CutReason.LIMIT] = None
    return Rows(columns, [tuple(map(_plain, row)) for row in rows[:limit]])


@contextmanager
def _only_the_view(files: Sequence[Path], memory: str, threads: int) -> Iterator[DuckDBPyConnection]:
    import duckdb
    import pyarrow.dataset as ds

    from vedette.store.lake.columns import SCHEMA

    connection = duckdb.connect()
    try:
        for name, value in (
            ("memory_limit", memory),
            ("threads", threads),
            ("temp_directory", ""),
            ("autoinstall_known_extensions", False),
            ("autoload_known_extensions", False),
            ("python_enable_replacements", False),
            ("enable_external_access", False),
        ):
            connection.execute(f"SET {name} = ?", [value])
        # A data set and not file names: whoever writes the statement gets no way to the disk.
        paths = [str(path) for path in files]
        found = ds.dataset(paths, schema=SCHEMA, format="parquet") if paths else SCHEMA.empty_table()
        connection.register(VIEW, found)
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        connection.close()
        raise _in_our_words(error) from None
    except FileNotFoundError:
        connection.close()
        raise _gone() from None
    try:
        yield connection
    finally:
        connection.close()


def _gone() -> VedetteError:
    # What is compacted stays for a while for those who read it; what was erased does not.
    return VedetteError("SQL: a file of the lake was replaced while it was read", hint="ask again: records were erased")


def _in_our_words(error: Exception) -> VedetteError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return VedetteError(
        f"SQL: {said[0]}", hint=f"the only table is {VIEW}; SELECT * FROM {VIEW} LIMIT 1 shows its columns"
    )


def _plain(value: Any) -> Any:
    """A value of DuckDB's as one that JSON has."""
    if isinstance(value, bytes):
        return decode(value)
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return rfc3339((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

"""Runs statements on a connection; on SQLite compiled once and handed to the driver itself, a fifth of the time.
Counterpart: `store.transaction` has a dozen statements between a finding and its block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite

Row = dict[str, Any]

_DIALECT = sqlite.dialect()


@dataclass(frozen=True, slots=True)
class _Prepared:
    sql: str
    names: tuple[str, ...]
    constants: Row

    def values(self, row: Row) -> tuple[Any, ...]:
        constants = self.constants
        return tuple(row[name] if name in row else constants[name] for name in self.names)


class Compiler:
    """What was compiled, for one store."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, _Prepared | None]] = {}

    def prepared(self, statement: Any, row: Row) -> _Prepared | None:
        """The statement as SQLite takes it, None where its text depends on the values (lists).

        row: has its parameters' names.
        """
        found = self._known.get(id(statement))
        if found is None:
            compiled = statement.compile(dialect=_DIALECT, column_keys=list(row))
            made = None
            if not compiled.post_compile_params:
                made = _Prepared(str(compiled), tuple(compiled.positiontup or ()), dict(compiled.params))
            # The statement is kept with it: its id must not become another one's.
            found = self._known[id(statement)] = statement, made
        return found[1]


class Runner:
    """Statements of one transaction; errors are those of SQLAlchemy or of the driver."""

    def __init__(self, connection: Connection, compiler: Compiler) -> None:
        self._connection = connection
        self._compiler = compiler
        self._driver: Any = None
        if connection.dialect.name == "sqlite":
            self._driver = connection.connection.driver_connection

    def rows(self, statement: Any, parameters: Row | None = None) -> Sequence[Sequence[Any]]:
        """Every row of the result."""
        row = parameters or {}
        prepared = self._compiler.prepared(statement, row) if self._driver is not None else None
        if prepared is None:
            return self._connection.execute(statement, row).all()
        found: list[tuple[Any, ...]] = self._driver.execute(prepared.sql, prepared.values(row)).fetchall()
        return found

    def column(self, statement: Any, parameters: Row | None = None) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in self.rows(statement, parameters)]

    def value(self, statement: Any, parameters: Row | None = None) -> Any:
        """The first column of the first row; None where there is none."""
        rows = self.rows(statement, parameters)
        return rows[0][0] if rows else None

    def write(self, statement: Any, rows: Sequence[Row]) -> None:
        """Run it once a row; all rows have the same names."""
        if not rows:
            return
        prepared = self._compiler.prepared(statement, rows[0]) if self._driver is not None else None
        if prepared is None:
            self._connection.execute(statement, list(rows))
            return
        self._driver.executemany(prepared.sql, [prepared.values(row) for row in rows])

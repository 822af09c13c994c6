"""How the state's database is opened: modes, pragmas, schema steps, and its errors in our words.
Counterpart: `store.state`, which holds one writer and many readers made here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from vedette.model.errors import StateError
from vedette.store import sqlite_words
from vedette.store.sqlite_words import BUSY_TIMEOUT_MS, HINTS, hint_of
from vedette.store.tables import HEAD
from vedette.system.files import open_own

# One writer at a time also when several programs share a PostgreSQL database; SQLite locks its file itself.
_WRITER_LOCK = 0x76656465747465


@contextmanager
def in_our_words(place: str) -> Iterator[None]:
    """Errors of the database as StateError, said of `place`; statements and values stay out of the text."""
    try:
        with sqlite_words.in_our_words(place):  # of a statement given to the driver itself
            yield
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        raise StateError(f"state in {place}: {said[0]}", hint=hint_of(error.orig)) from error
    except msgspec.DecodeError as error:
        raise StateError(
            f"state in {place} holds a row that cannot be read: {error}",
            hint="a newer version wrote it, or it is damaged: run the newer version, or restore a copy",
        ) from error


def place_of(url: URL) -> str:
    """What to call the database before people: never with its password."""
    return url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def locate(where: Path | str) -> URL:
    """The database of a file path or a URL (`postgresql+psycopg://...`); StateError when it is neither."""
    if isinstance(where, Path):
        return URL.create("sqlite", database=str(where))
    try:
        return make_url(where)
    except ArgumentError:
        raise StateError(
            "the state's URL cannot be read", hint="a path, or postgresql+psycopg://USER@HOST/DATABASE"
        ) from None


def prepare_file(path: Path) -> None:
    """The file at 0600, its folder made at 0700 where it is missing; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateError(f"state in {path}: {error.strerror}", hint=HINTS["SQLITE_CANTOPEN"]) from error


def _sqlite_engine(url: URL, *, write: bool) -> Engine:
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        **({"poolclass": NullPool} if write else {"pool_size": 4, "max_overflow": 28}),
    )

    def connected(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN comes too late to hold reads and writes together: we begin ourselves.
        setattr(connection, "isolation_level", None)  # noqa: B010 (the protocol type does not name it)
        cursor = connection.cursor()
        # FULL: what is committed is on the disk before anything is enforced or sent.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        if not write:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)
    return engine


def _server_engine(url: URL, *, write: bool) -> Engine:
    try:
        if not write:
            frozen = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            return create_engine(url, execution_options=frozen, pool_pre_ping=True)
        engine = create_engine(url, poolclass=NullPool)
    except (ImportError, NoSuchModuleError) as error:
        raise StateError(
            f"no driver for {url.drivername}: {error}", hint="install psycopg and write postgresql+psycopg://..."
        ) from error

    def begin(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _WRITER_LOCK})

    event.listen(engine, "begin", begin)
    return engine


def make_engine(url: URL, *, write: bool) -> Engine:
    """An engine whose transactions write one after the other (`write`), or read one frozen moment each."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(url, write=write)
    if backend == "postgresql":
        return _server_engine(url, write=write)
    raise StateError(f"state cannot be kept in {backend}", hint="SQLite (a path) or PostgreSQL (a URL)")


def _stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(text("version_num")).select_from(text("alembic_version"))).scalar()


def migrate(connection: Connection, place: str) -> None:
    """Bring the schema to HEAD inside the connection's transaction; StateError when it is newer than we are."""
    stored = _stored_revision(connection)
    if stored == HEAD:
        return
    # Here, since it takes longer to import than the usual opening takes.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if stored is not None and stored not in known:
        raise StateError(
            f"state in {place} has schema {stored}, this version knows none newer than {HEAD}",
            hint="run the version that wrote it or a newer one; nothing was changed",
        )
    try:
        command.upgrade(config, "head")
    except DBAPIError:
        raise
    except SQLAlchemyError as error:
        raise StateError(f"state in {place} could not be brought from schema {stored} to {HEAD}: {error}") from error

"""The ledger's tables, beside the lake's own in one SQLite file so that one transaction holds both.
Counterpart: `store.ledger.ledger` alone reads and writes them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    select,
    update,
)

from vedette.model.errors import StateError

FORMAT = "vedette-ledger/1"
WITH_ERASURES = "vedette-ledger/2"
"""Since single records were erased: versions that know nothing of that would find them removed."""

METADATA = MetaData()

META = Table("ledger_meta", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

STREAMS = Table(
    "ledger_streams",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("host_id", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Index("ledger_stream", "host_id", "stream", unique=True),
)

# A row a leaf. Those of batches have columns, of which the leaf's bytes are made again; the others have a body.
LEAVES = Table(
    "ledger_leaves",
    METADATA,
    Column("leaf", Integer, primary_key=True),
    Column("stream", Integer),
    Column("number", BigInteger),
    Column("records", BigInteger),
    Column("read_at", BigInteger),
    Column("root", LargeBinary),
    Column("seed", LargeBinary),
    Column("body", LargeBinary),
    Index("ledger_leaf_of", "stream", "number", unique=True),
)

# Which batches a gap or a tombstone speaks of.
SPANS = Table(
    "ledger_spans",
    METADATA,
    Column("leaf", BigInteger, nullable=False),
    Column("stream", Integer, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("erased", Integer, nullable=False),
    Index("ledger_span_of", "stream", "first"),
)

# Hashes of complete subtrees above the leaves; id: level << 56 | index.
NODES = Table(
    "ledger_nodes", METADATA, Column("id", Integer, primary_key=True), Column("hash", LargeBinary, nullable=False)
)

CHECKPOINTS = Table(
    "ledger_checkpoints",
    METADATA,
    Column("size", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

# What stands in the seed's stead for batches of which single records were erased; made with the first of them.
_MORE = MetaData()
KEPT = Table(
    "ledger_kept",
    _MORE,
    Column("leaf", Integer, primary_key=True),
    Column("salts", LargeBinary, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("seed", LargeBinary, nullable=False),
)


def exist(connection: Connection) -> bool:
    """Whether the ledger's tables are there; StateError where another version wrote them."""
    known = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'ledger_meta'").scalar()
    if known is None:
        return False
    found = _format(connection)
    if found not in (FORMAT, WITH_ERASURES):
        raise StateError(
            f"the ledger has format {found}, this version knows {FORMAT} and {WITH_ERASURES}",
            hint="run the version that wrote it or a newer one; nothing was changed",
        )
    return True


def ensure(connection: Connection) -> None:
    """Make the tables inside the connection's transaction, where they are missing."""
    if not exist(connection):
        METADATA.create_all(connection)
        connection.execute(META.insert().values(name="format", value=FORMAT))


def ensure_erasures(connection: Connection) -> None:
    """Make room for what erasures leave, inside the connection's transaction."""
    ensure(connection)
    _MORE.create_all(connection)
    connection.execute(update(META).where(META.c.name == "format").values(value=WITH_ERASURES))


def has_erasures(connection: Connection) -> bool:
    """Whether single records were ever erased."""
    return _format(connection) == WITH_ERASURES


def _format(connection: Connection) -> str | None:
    return connection.execute(select(META.c.value).where(META.c.name == "format")).scalar()

"""The tables of the state: columns for what is searched by, `body` (JSON) for the whole of the thing.
Counterpart: `migrations` build them step by step, a test holds both equal."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

HEAD = "0004"
"""The newest migration; a test holds it equal to the folder."""

METADATA = MetaData()

CURSORS = Table(
    "cursors",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
)

CORRELATION = Table(
    "correlation",
    METADATA,
    Column("rule_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

FINDINGS = Table(
    "findings",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", BigInteger, nullable=False, server_default="0"),
    Index("findings_by_rule", "rule_id", "time"),
    Index("findings_by_age", "created", "id"),
)

ALERTS = Table(
    "alerts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("host_id", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_event_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index(
        "alerts_unresolved_key",
        "key",
        unique=True,
        sqlite_where=text("state <> 'resolved'"),
        postgresql_where=text("state <> 'resolved'"),
    ),
    Index("alerts_by_opening", "opened_at", "id"),
    Index("alerts_by_state", "state", "kind", "level"),
    Index("alerts_by_age", "state", "updated_at", "id"),
)

SILENCES = Table(
    "silences",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("silences_by_end", "ends_at"),
)

ALERT_GROUPS = Table(
    "alert_groups",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("last_notified_at", BigInteger, nullable=False, server_default="0"),
    Index("alert_groups_by_due", "due_at"),
    Index("alert_groups_by_age", "due_at", "last_notified_at", "key"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("order_key", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("next_try_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("outbox_by_order", "order_key", "state", "sequence"),
    Index("outbox_by_state", "state", "next_try_at"),
    Index("outbox_by_age", "created_at", "id"),
)

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("target_kind", Text, nullable=False),
    Column("target_value", Text, nullable=False),
    Column("host_id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("decisions_by_target", "target_kind", "target_value", "starts_at"),
    Index("decisions_by_state", "state", "expires_at"),
    Index("decisions_by_start", "starts_at", "id"),
    Index("decisions_by_end", "expires_at", "id"),
)

REFUSALS = Table(
    "refusals",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("finding_id", Text, nullable=False),
    Index("refusals_by_time", "at"),
)

AGENTS = Table(
    "agents",
    METADATA,
    Column("host_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("group_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("agents_by_state", "state", "name"),
)

JOIN_TOKENS = Table(
    "join_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

OPERATORS = Table(
    "operators",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("body", Text, nullable=False),
)

OPERATOR_TOKENS = Table(
    "operator_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("operator", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("operator_tokens_by_operator", "operator"),
)

BUNDLES = Table(
    "bundles",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

SAVED_SEARCHES = Table(
    "saved_searches",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

FLEET_BLOCKS = Table(
    "fleet_blocks",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("change", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("fleet_blocks_by_state", "state", "expires_at"),
    Index("fleet_blocks_by_change", "change"),
)

FLEET_ANSWERS = Table(
    "fleet_answers",
    METADATA,
    Column("block_id", Text, primary_key=True),
    Column("host_id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

WITNESSES = Table(
    "witnesses",
    METADATA,
    Column("host_id", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

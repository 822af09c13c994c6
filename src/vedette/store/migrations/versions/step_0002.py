"""Step 0002: how old a row is, so that what is finished can be let go without reading all of it.
Counterpart: `store.pruning`."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """When a finding's record was read and when anybody was told of a group; rows of before take what they have."""
    op.add_column("findings", sa.Column("created", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(sa.text("UPDATE findings SET created = time"))
    op.create_index("findings_by_age", "findings", ["created", "id"])
    op.add_column("alert_groups", sa.Column("last_notified_at", sa.BigInteger, nullable=False, server_default="0"))
    groups = sa.table("alert_groups", sa.column("key"), sa.column("body"), sa.column("last_notified_at"))
    for key, body in op.get_bind().execute(sa.select(groups.c.key, groups.c.body)).all():
        told = json.loads(body)["last_notified_at"]
        op.execute(sa.update(groups).where(groups.c.key == key).values(last_notified_at=told))
    op.create_index("alert_groups_by_age", "alert_groups", ["due_at", "last_notified_at", "key"])
    op.create_index("alerts_by_age", "alerts", ["state", "updated_at", "id"])
    op.create_index("outbox_by_age", "outbox", ["created_at", "id"])
    op.create_index("decisions_by_end", "decisions", ["expires_at", "id"])

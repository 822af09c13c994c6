"""Step 0004: blocks for the fleet, what each host made of them, and which hosts cosign the ledger.
Counterpart: `store.fleet_blocks`, `store.witnesses`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three tables, none of which had anything before."""
    op.create_table(
        "fleet_blocks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("fleet_blocks_by_state", "fleet_blocks", ["state", "expires_at"])
    op.create_index("fleet_blocks_by_change", "fleet_blocks", ["change"])
    op.create_table(
        "fleet_answers",
        sa.Column("block_id", sa.Text, primary_key=True),
        sa.Column("host_id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "witnesses",
        sa.Column("host_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )

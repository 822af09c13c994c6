"""How Alembic is run: on the connection it is handed, inside the transaction that connection is in.
Counterpart: `store.connections.migrate`, the only caller."""

from __future__ import annotations

from alembic import context

from vedette.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()

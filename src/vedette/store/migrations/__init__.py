"""The schema of the state, one file a step, run by Alembic when the store is opened.
Counterpart: `store.tables` says what all steps together must give."""

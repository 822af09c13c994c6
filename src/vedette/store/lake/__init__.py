"""The event store: every record byte for byte in Parquet, in the order it came, with a manifest of what is live.
Counterpart: `app` puts batches in and runs the engine over them again; `store.ledger` proves them."""

"""Alerts to people: a durable outbox, and one module a way of telling.
Counterpart: `alerts` write the outbox items, `app` hands in store, clock and counter and runs the workers."""

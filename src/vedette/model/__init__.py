"""The words of the house as types and protocols: pure, no I/O, imports nothing of ours.
Counterpart: every stage speaks in these types, and only `app` brings stages together."""

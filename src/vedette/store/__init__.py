"""What is kept: the relational state (alerts, decisions, cursors, outbox), one transaction a commit point.
Counterpart: `app` opens it and hands it on as `model.protocols.StateStore`; `cli` reads it."""

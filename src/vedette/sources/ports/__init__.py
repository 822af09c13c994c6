"""Ports: what answers from where somebody stands, and how far that is from what policy says.
Counterpart: `inventory` says what is expected; `app.ports` hands it here and events, pages and people the drift."""

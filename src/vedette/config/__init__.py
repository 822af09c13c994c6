"""One file to frozen settings: each stage owns its settings class, this room composes them.
Counterpart: `app` and `cli` load it; no stage knows where its settings were written."""

"""The only place that wires stages together, each program on one screen, in order.
Counterpart: `cli` starts what is here; no stage knows it."""

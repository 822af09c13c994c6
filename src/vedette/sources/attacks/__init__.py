"""Gauntlt's attack files: what they say is read, run without a shell, and judged so that no pass is vacuous.
Counterpart: `app.attacks` hands over files and own networks; `cli.attack` and the schedule print and emit outcomes."""

"""The few numbers and lists of our packs that an operator may choose, by the names the packs write as `${...}`.
Counterpart: `settings` fills them from the configuration; unset, the rule that needs one is off."""

from __future__ import annotations

from collections.abc import Mapping

Parameter = int | tuple[str, ...] | None
"""What stands for a `${name}`: a number, a list, or nothing (the rule that needs it is off)."""

# Kept apart from `settings`, so that a run without configuration need not import what validates one.
PARAMETER_NAMES = ("ssh.attempts.unknown_user", "ssh.attempts.known_user", "ssh.attempts.root", "ssh.gateways")
UNSET: Mapping[str, Parameter] = dict.fromkeys(PARAMETER_NAMES)

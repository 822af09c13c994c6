"""Which command needs which role: one table, and nothing that would be slow to import.
Counterpart: `cli.admission` heeds it before every command; docs/operators.md explains it."""

from __future__ import annotations

from vedette.model.operators import Role

_OPEN = None
"""No login: the command reads files it is given, runs this host's own service, or must work where nobody can log in."""

ROLES: dict[str, Role | None] = {
    # The longest beginning of a command's words counts; what stands nowhere needs an admin.
    "up": _OPEN,
    "agent": _OPEN,
    "hub": _OPEN,
    "enrol": _OPEN,
    "replay": _OPEN,
    "explain": _OPEN,
    "doctor": _OPEN,
    "config": _OPEN,
    "ports": _OPEN,
    "attack": _OPEN,
    "integrity": _OPEN,
    "integrity accept": Role.RESPONDER,
    "login": _OPEN,
    "logout": _OPEN,
    "restore": _OPEN,
    "rules": _OPEN,
    "rules promote": Role.RULE_AUTHOR,
    "rules demote": Role.RULE_AUTHOR,
    "alerts list": Role.VIEWER,
    "alerts show": Role.VIEWER,
    "alerts ack": Role.RESPONDER,
    "alerts resolve": Role.RESPONDER,
    "alerts silence": Role.RESPONDER,
    "block list": Role.VIEWER,
    "block stats": Role.VIEWER,
    "block backtest": Role.VIEWER,
    "block promote": Role.RULE_AUTHOR,
    "block demote": Role.RESPONDER,
    "block add": Role.RESPONDER,
    "block remove": Role.RESPONDER,
    "block allow": Role.RESPONDER,
    "block import": Role.RESPONDER,
    "search": Role.VIEWER,
    "tail": Role.VIEWER,
    "lake": Role.ADMIN,
    "ledger": Role.VIEWER,
    "ledger verify": _OPEN,
    "fleet": Role.ADMIN,
    "fleet list": Role.VIEWER,
    "fleet coverage": Role.VIEWER,
    "fleet witnesses": Role.VIEWER,
    "fleet bundle": Role.RULE_AUTHOR,
    "fleet bundle list": Role.VIEWER,
    "fleet bundle show": Role.VIEWER,
    "backup": Role.ADMIN,
    "operators": Role.ADMIN,
}

UNTOLD: dict[str, frozenset[str]] = {"lake erase": frozenset({"query"})}
"""Arguments the audit does not get: they would put back what the command takes out."""


def role_of(command: str) -> Role | None:
    """What the command needs (`alerts ack`, without the program's name); None: no login."""
    words = command.split()
    for length in range(len(words), 0, -1):
        name = " ".join(words[:length])
        if name in ROLES:
            return ROLES[name]
    return Role.ADMIN

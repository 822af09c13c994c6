from __future__ import annotations

import pytest
from tests.cli.test_commands import every_command

from vedette.app.roles import ROLES, role_of
from vedette.model.operators import Role

V, R, A, D = Role.VIEWER, Role.RESPONDER, Role.RULE_AUTHOR, Role.ADMIN


def test_each_role_may_what_those_before_it_may() -> None:
    assert [role.rank for role in (V, R, A, D)] == [0, 1, 2, 3]
    assert list(Role) == [V, R, A, D]


def test_every_command_stands_in_the_table() -> None:
    """One that is forgotten would need an admin; that is safe, and it is meant by nobody."""
    for path in every_command():
        assert any(" ".join(path[:length]) in ROLES for length in range(1, len(path) + 1)), " ".join(path)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("alerts list", V),
        ("alerts ack", R),
        ("alerts silence add", R),
        ("block add", R),
        ("rules promote", A),
        ("rules lint", None),
        ("fleet list", V),
        ("fleet revoke", D),
        ("operators token add", D),
        ("backup", D),
        ("replay", None),
        ("up", None),
        ("alerts", D),
        ("what nobody knows", D),
    ],
)
def test_the_longest_beginning_counts_and_nothing_known_needs_an_admin(command: str, role: Role | None) -> None:
    assert role_of(command) is role

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vedette.model.errors import StateError
from vedette.model.operators import Attempts, Operator, OperatorToken, Role, TokenKind
from vedette.store.operators import Operators
from vedette.store.state import State

ALICE = Operator("alice", Role.ADMIN, "hash", "TOTP", 5, "root", attempts={"": Attempts(2, 9)}, known=("local:alice",))
BOB = Operator("bob", Role.VIEWER, "hash", "TOTP", 6, "alice")


def token(digest: str, operator: str, kind: TokenKind = TokenKind.NAMED, *, name: str = "ci", ends: int = 100):
    return OperatorToken(digest * 64, operator, kind, name, Role.VIEWER, 1, ends)


@pytest.fixture
def operators(tmp_path: Path) -> Iterator[Operators]:
    state = State(tmp_path / "state.db")
    yield Operators(state)
    state.close()


def test_what_was_kept_is_what_is_there(operators: Operators) -> None:
    assert not operators.any()
    operators.add(BOB)
    operators.add(ALICE)
    assert operators.any()
    assert operators.operators() == [ALICE, BOB]
    assert operators.operator("alice") == ALICE
    assert operators.operator("Alice") is None
    with pytest.raises(StateError, match="there is an operator 'bob'"):
        operators.add(BOB)


def test_whether_it_is_the_first_is_asked_before_anything_is_kept(operators: Operators) -> None:
    asked: list[bool] = []

    def refuse(first: bool) -> None:
        asked.append(first)
        raise StateError("no")

    with pytest.raises(StateError):
        operators.add(ALICE, may=refuse)
    assert not operators.any()
    operators.add(ALICE)
    with pytest.raises(StateError):
        operators.add(BOB, may=refuse)
    assert asked == [True, False]


def test_the_last_admin_stays_one(operators: Operators) -> None:
    operators.add(ALICE)
    operators.add(BOB)
    with pytest.raises(StateError, match="alice is the last admin"):
        operators.remove("alice")
    with pytest.raises(StateError, match="alice is the last admin"):
        operators.change("alice", lambda one: replace(one, role=Role.VIEWER))
    operators.change("bob", lambda one: replace(one, role=Role.ADMIN))
    operators.remove("alice")
    assert [one.name for one in operators.operators()] == ["bob"]


def test_nobody_of_that_name(operators: Operators) -> None:
    for act in (operators.remove, lambda name: operators.change(name, lambda one: one)):
        with pytest.raises(StateError, match="there is no operator 'eve'"):
            act("eve")
    with pytest.raises(StateError, match="there is no operator 'eve'"):
        operators.add_token(token("a", "eve"), 0)
    with pytest.raises(StateError, match="there is no token"):
        operators.revoke("f" * 16)


def test_tokens_are_found_by_their_whole_digest_alone(operators: Operators) -> None:
    operators.add(ALICE)
    kept = token("a", "alice")
    operators.add_token(kept, 0)
    assert operators.token(kept.digest) == (kept, ALICE)
    assert operators.token(kept.digest[:16] + "b" * 48) is None
    with pytest.raises(StateError, match="alice has a token 'ci'"):
        operators.add_token(token("b", "alice"), 0)
    assert operators.revoke(kept.id) == kept
    assert operators.token(kept.digest) is None


def test_who_goes_takes_everything_along(operators: Operators) -> None:
    operators.add(ALICE)
    operators.add(BOB)
    operators.add_token(token("b", "bob"), 0)
    operators.add_token(token("a", "alice"), 0)
    operators.remove("bob")
    assert [one.operator for one in operators.tokens()] == ["alice"]


def test_sessions_end_apart_from_tokens(operators: Operators) -> None:
    operators.add(ALICE)
    old, new = (token(d, "alice", TokenKind.SESSION, ends=ends) for d, ends in (("1", 10), ("2", 90)))
    named = token("3", "alice", ends=5)
    for one in (old, named, new):
        operators.add_token(one, 20 if one is new else 0)
    assert operators.tokens(TokenKind.SESSION) == [new], "an ended one is let go when the next begins"
    assert operators.tokens() == [named], "an ended token is still shown"
    operators.end_sessions("alice", keep=new.id)
    assert operators.tokens(TokenKind.SESSION) == [new]
    operators.end_sessions("alice")
    assert operators.tokens(TokenKind.SESSION) == []
    assert operators.tokens() == [named]

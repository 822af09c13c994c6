"""Operators and their tokens in the state; of a token only the digest.
Counterpart: `app.operators`, which decides who gets in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, insert, select, true, update

from vedette.model.errors import StateError
from vedette.model.operators import Operator, OperatorToken, Role, TokenKind
from vedette.store.state import State
from vedette.store.tables import OPERATOR_TOKENS, OPERATORS

_OPERATOR = msgspec.json.Decoder(Operator)
_TOKEN = msgspec.json.Decoder(OperatorToken)


class Operators:
    """Who there is. StateError where somebody named is not there."""

    def __init__(self, state: State) -> None:
        self._state = state

    # ---------------------------------------------------------------- people
    def any(self) -> bool:
        """Whether there is an operator at all: else whoever may run commands may do everything."""
        with self._state.reading() as connection:
            return connection.execute(select(OPERATORS.c.name).limit(1)).first() is not None

    def operators(self) -> Sequence[Operator]:
        """Everybody, by name."""
        with self._state.reading() as connection:
            bodies = connection.execute(select(OPERATORS.c.body).order_by(OPERATORS.c.name)).scalars()
            return [_OPERATOR.decode(body) for body in bodies]

    def operator(self, name: str) -> Operator | None:
        """The operator of exactly this name."""
        with self._state.reading() as connection:
            return _operator_of(connection, name)

    def add(self, operator: Operator, *, may: Callable[[bool], None] = lambda _: None) -> None:
        """Take somebody in; `may` is asked in the same transaction whether that may be, given whether it is the first.

        StateError where the name is taken.
        """
        with self._state.writing() as connection:
            may(connection.execute(select(OPERATORS.c.name).limit(1)).first() is None)
            if _operator_of(connection, operator.name) is not None:
                raise StateError(f"there is an operator {operator.name!r}", hint="`vedette operators list` names them")
            connection.execute(insert(OPERATORS).values(name=operator.name, **_values(operator)))

    def change(self, name: str, to: Callable[[Operator], Operator | None]) -> Operator:
        """Change somebody by what is kept now, in one transaction; None leaves all as it is. As it is then."""
        with self._state.writing() as connection:
            operator = _operator_of(connection, name)
            if operator is None:
                raise _unknown(name)
            changed = to(operator)
            if changed is None:
                return operator
            if changed.role is not Role.ADMIN:
                _not_the_last(connection, operator)
            connection.execute(update(OPERATORS).where(OPERATORS.c.name == name).values(_values(changed)))
            return changed

    def remove(self, name: str) -> None:
        """Let somebody go, with every token."""
        with self._state.writing() as connection:
            operator = _operator_of(connection, name)
            if operator is None:
                raise _unknown(name)
            _not_the_last(connection, operator)
            connection.execute(delete(OPERATORS).where(OPERATORS.c.name == name))
            connection.execute(delete(OPERATOR_TOKENS).where(OPERATOR_TOKENS.c.operator == name))

    # ---------------------------------------------------------------- tokens
    def add_token(self, token: OperatorToken, now: int) -> None:
        """Keep a new token; sessions that ended before `now` are let go. StateError where the operator has its name."""
        with self._state.writing() as connection:
            ended = OPERATOR_TOKENS.c.expires_at <= now
            old = [one for one in _tokens(connection, ended) if one.kind is TokenKind.SESSION]
            for one in old:
                connection.execute(delete(OPERATOR_TOKENS).where(OPERATOR_TOKENS.c.id == one.id))
            if _operator_of(connection, token.operator) is None:
                raise _unknown(token.operator)
            named = _tokens(connection, OPERATOR_TOKENS.c.operator == token.operator)
            alike = [one for one in named if one.kind is TokenKind.NAMED and one.name == token.name]
            if token.kind is TokenKind.NAMED and alike:
                raise StateError(f"{token.operator} has a token {token.name!r}", hint="revoke it, or name another")
            body = msgspec.json.encode(token).decode()
            values = {"operator": token.operator, "expires_at": token.expires_at, "body": body}
            connection.execute(insert(OPERATOR_TOKENS).values(id=token.id, **values))

    def token(self, digest: str) -> tuple[OperatorToken, Operator] | None:
        """The token of this digest and whose it is, as both are kept now."""
        with self._state.reading() as connection:
            found = [one for one in _tokens(connection, OPERATOR_TOKENS.c.id == digest[:16]) if one.digest == digest]
            operator = _operator_of(connection, found[0].operator) if found else None
            return None if operator is None else (found[0], operator)

    def tokens(self, kind: TokenKind = TokenKind.NAMED) -> Sequence[OperatorToken]:
        """Every token of a kind, the one that ends first in front."""
        with self._state.reading() as connection:
            return [one for one in _tokens(connection, true()) if one.kind is kind]

    def revoke(self, token_id: str) -> OperatorToken:
        """Take a token back; it counts no more from now on."""
        with self._state.writing() as connection:
            found = _tokens(connection, OPERATOR_TOKENS.c.id == token_id)
            if not found:
                raise StateError(f"there is no token {token_id!r}", hint="`vedette operators token list` names them")
            connection.execute(delete(OPERATOR_TOKENS).where(OPERATOR_TOKENS.c.id == token_id))
            return found[0]

    def end_sessions(self, name: str, *, keep: str = "") -> None:
        """End every session of somebody but the one with the id `keep`."""
        with self._state.writing() as connection:
            for one in _tokens(connection, OPERATOR_TOKENS.c.operator == name):
                if one.kind is TokenKind.SESSION and one.id != keep:
                    connection.execute(delete(OPERATOR_TOKENS).where(OPERATOR_TOKENS.c.id == one.id))


def _values(operator: Operator) -> dict[str, str]:
    return {"role": operator.role.value, "body": msgspec.json.encode(operator).decode()}


def _operator_of(connection: Connection, name: str) -> Operator | None:
    body = connection.execute(select(OPERATORS.c.body).where(OPERATORS.c.name == name)).scalar()
    return None if body is None else _OPERATOR.decode(body)


def _tokens(connection: Connection, where: ColumnElement[bool]) -> list[OperatorToken]:
    statement = select(OPERATOR_TOKENS.c.body).where(where).order_by(OPERATOR_TOKENS.c.expires_at, OPERATOR_TOKENS.c.id)
    return [_TOKEN.decode(body) for body in connection.execute(statement).scalars()]


def _not_the_last(connection: Connection, operator: Operator) -> None:
    """Without an admin nobody could be let in, without any operator everybody would be."""
    admins = select(OPERATORS.c.name).where(OPERATORS.c.role == Role.ADMIN.value, OPERATORS.c.name != operator.name)
    if operator.role is Role.ADMIN and connection.execute(admins.limit(1)).first() is None:
        raise StateError(f"{operator.name} is the last admin", hint="make another one first")


def _unknown(name: str) -> StateError:
    return StateError(f"there is no operator {name!r}", hint="`vedette operators list` names them")

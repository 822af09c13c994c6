"""The text of a Sigma condition to a tree over the names it uses: `sel and not 1 of filter_*`.
Counterpart: `conditions` and `filters` put what each name looks for in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

LENGTH_LIMIT = 4096
DEPTH_LIMIT = 32

_TOKEN = re.compile(r"\s*(?:([()])|([A-Za-z0-9_*-]+)|(\S))")
_QUANTIFIERS = {"1": False, "any": False, "all": True}
THEM = "them"


class ExpressionError(ValueError):
    """A text that is no condition; the message says what was met and where (columns from 1)."""


@dataclass(frozen=True, slots=True)
class Name:
    """One named part of the detection."""

    name: str


@dataclass(frozen=True, slots=True)
class Selector:
    """`1 of` or `all of` the parts whose names match; `*` is any run. Names that begin with `_` only where it does."""

    pattern: str
    every: bool

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those of `names` it stands for, in their order."""
        pattern = "*" if self.pattern == THEM else self.pattern
        hidden = not pattern.startswith("_")
        return [name for name in names if _matches(pattern, name) and not (hidden and name.startswith("_"))]

    def __str__(self) -> str:
        return f"{'all' if self.every else '1'} of {self.pattern}"


@dataclass(frozen=True, slots=True)
class Negation:
    """`not`."""

    of: Expression


@dataclass(frozen=True, slots=True)
class Join:
    """`and` (every) or `or` of two or more."""

    every: bool
    of: tuple[Expression, ...]


Expression = Name | Selector | Negation | Join


def parse_expression(text: str) -> Expression:
    """The tree of a condition: `not` binds before `and`, `and` before `or`. ExpressionError where it is none.

    As pySigma reads it, in time linear in its length: words of the language are written in lower case, at most
    LENGTH_LIMIT characters, nested at most DEPTH_LIMIT deep.
    """
    if len(text) > LENGTH_LIMIT:
        raise ExpressionError(f"a condition of more than {LENGTH_LIMIT} characters")
    parser = _Parser(text)
    found = parser.disjunction(0)
    if (token := parser.token) is not None:
        raise parser.unexpected(token)
    return found


def _matches(pattern: str, name: str) -> bool:
    """Whether `name` is `pattern`, in which `*` is any run."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == first
    *middle, last = rest
    # Each star takes as little as it can: nothing is ever tried twice.
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.start = 0
        self.token: str | None = None
        self.advance()

    def advance(self) -> str | None:
        """The token, and go on to the next."""
        before = self.token
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            self.token, self.start = None, len(self.text)
        else:
            self.token, self.start, self.at = found[0].strip(), found.end() - len(found[0].strip()), found.end()
            if found[3] is not None:
                if found[3] == "|":
                    raise ExpressionError("'|' in a condition was given up for correlations: write one")
                raise self.unexpected(found[3])
        return before

    def unexpected(self, token: str | None) -> ExpressionError:
        what = "ends too early" if token is None else f"unexpected {token!r} at column {self.start + 1}"
        return ExpressionError(what)

    def disjunction(self, depth: int) -> Expression:
        return self.joined(depth, "or", every=False)

    def joined(self, depth: int, word: str, *, every: bool) -> Expression:
        parts = [self.joined(depth, "and", every=True) if word == "or" else self.negated(depth)]
        while self.token == word:
            self.advance()
            parts.append(self.joined(depth, "and", every=True) if word == "or" else self.negated(depth))
        return parts[0] if len(parts) == 1 else Join(every, tuple(parts))

    def negated(self, depth: int) -> Expression:
        count = 0
        while self.token == "not":
            self.advance()
            count += 1
        found = self.operand(depth)
        # An even number of them says nothing: the tree stays as flat as the meaning.
        return Negation(found) if count % 2 else found

    def operand(self, depth: int) -> Expression:
        token = self.token
        if token == "(":
            if depth >= DEPTH_LIMIT:
                raise ExpressionError(f"a condition nested deeper than {DEPTH_LIMIT}")
            self.advance()
            found = self.disjunction(depth + 1)
            if self.token != ")":
                raise self.unexpected(self.token)
            self.advance()
            return found
        if token is None or token in (")", "and", "or"):
            raise self.unexpected(token)
        start = self.start
        self.advance()
        if token in _QUANTIFIERS and self.token == "of":
            self.advance()
            at, pattern = self.start, self.advance()
            if pattern is None or pattern in ("(", ")"):
                self.start = at
                raise self.unexpected(pattern)
            return Selector(pattern, _QUANTIFIERS[token])
        if "*" in token:
            raise ExpressionError(
                f"unexpected {token!r} at column {start + 1}: write '1 of {token}' or 'all of {token}'"
            )
        return Name(token)

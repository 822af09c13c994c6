"""How literal text is written in a pattern of Op.LIKE.
Counterpart: `items` writes Sigma's strings so, `query` the words of a search, which needs nothing else of Sigma."""

from __future__ import annotations


def escape_like(text: str) -> str:
    """Literal text in the escape rules of Op.LIKE."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")

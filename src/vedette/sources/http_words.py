"""What is asked of a source by HTTP, and what it answers.
Counterpart: http_server.py makes the one and sends the other; http.py and otlp.py lie between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class RequestEnd(StrEnum):
    """What became of a request."""

    KEPT = "kept"
    NO_TOKEN = "no-token"
    BAD_TOKEN = "bad-token"
    BAD_TOKENS_LIMITED = "bad-tokens-limited"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    CUT_OFF = "cut-off"
    """The sender went before its body had come."""
    NO_SUCH_PATH = "no-such-path"
    BAD_ENCODING = "bad-encoding"
    """Content-Encoding or Content-Type that is not read."""
    BAD_BODY = "bad-body"
    BUSY = "busy"
    NOT_KEPT = "not-kept"
    STOPPED = "stopped"
    DEFECT = "defect"


@dataclass(frozen=True, slots=True)
class Asked:
    """A POST. headers: by name in small letters.

    body: raises TimeoutError where it takes too long, ConnectionError where it ends early. is_known: to be called where
    its sender proved who it is.
    """

    path: str
    headers: Mapping[str, str]
    address: str
    body: AsyncIterator[bytes]
    is_known: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """close: the connection ends with it. retry_after: seconds, 0 = not said."""

    status: int
    body: bytes = b""
    media_type: str | None = None
    retry_after: int = 0
    close: bool = False

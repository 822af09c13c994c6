"""What an agent asks its hub besides what is stored: the ledger's newest head, and to keep a cosignature of it.
Counterpart: `app.agent_control` asks, `app.hub_control` answers."""

from __future__ import annotations

from typing import TypeVar

import msgspec

PREFIX = b"vedette-ask\n"
"""Before these questions; what begins otherwise is a report."""
VERSION = 1
T = TypeVar("T")


class HeadAsked(msgspec.Struct, frozen=True, tag="head"):
    """The newest checkpoint, and the proof that it goes on from `size` leaves (0 = none was seen)."""

    size: int = 0
    version: int = VERSION


class Cosigned(msgspec.Struct, frozen=True, tag="cosigned"):
    """A cosignature/v1 line for the checkpoint of `size` leaves, and the witness's key."""

    size: int
    line: str
    key: str
    version: int = VERSION


class HeadTold(msgspec.Struct, frozen=True):
    """checkpoint: signed note; proof: hashes; key: of the log, as text."""

    checkpoint: str
    proof: tuple[bytes, ...]
    key: str
    version: int = VERSION


class Noted(msgspec.Struct, frozen=True):
    """Whether it was kept, and why not."""

    kept: bool
    reason: str = ""


Asked = HeadAsked | Cosigned


def ask_bytes(asked: Asked) -> bytes:
    """A question, packed."""
    return PREFIX + msgspec.json.encode(asked)


def read_ask(packed: bytes) -> Asked:
    """ValueError where it is none."""
    try:
        asked: Asked = msgspec.json.decode(packed.removeprefix(PREFIX), type=Asked)
    except RecursionError:
        raise ValueError("too deep") from None
    return asked


def read_answer(packed: bytes, kind: type[T]) -> T:
    """ValueError where it is none."""
    try:
        return msgspec.msgpack.decode(packed, type=kind)
    except RecursionError:
        raise ValueError("too deep") from None


def answer_bytes(answer: HeadTold | Noted) -> bytes:
    """An answer, packed."""
    return msgspec.msgpack.encode(answer)

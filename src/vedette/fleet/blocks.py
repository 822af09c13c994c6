"""What a hub wants blocked on its agents, as it is signed and told; a key holds all of it, so that nothing is missed.
Counterpart: `app.hub_control` tells it, `app.agent_blocks` carries it out where the host lets it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from vedette.fleet.signing import SignedError, SignedKind, SignedReason, opened

VERSION = 1
_FORMAT = "vedette-decisions"


class BlockAnswer(StrEnum):
    """What a host made of a block."""

    ENFORCED = "enforced"
    REFUSED = "refused"
    ENDED = "ended"


class WantedBlock(msgspec.Struct, frozen=True):
    """A block. id: UUIDv7, on every host the same; target: address or prefix; times: microseconds."""

    id: str
    target: str
    owner: str
    reason: str
    starts_at: int
    expires_at: int


class Wanted(msgspec.Struct, frozen=True):
    """Everything that is in force for a target (host id, or `all`). serial: higher than that of anything before."""

    serial: int
    target: str
    at: int
    blocks: tuple[WantedBlock, ...] = ()
    format: str = _FORMAT
    version: int = VERSION


def wanted_bytes(wanted: Wanted) -> bytes:
    """The canonical form, to be signed."""
    return msgspec.json.encode(wanted, order="deterministic")


def read_wanted(signed: bytes, authority: bytes) -> Wanted:
    """What the hub wants; SignedError where it is not believed or not understood."""
    body = opened(signed, SignedKind.DECISIONS, authority)
    try:
        wanted = msgspec.json.decode(body, type=Wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignedError(SignedReason.UNREADABLE, str(error)) from None
    if wanted.format != _FORMAT:
        raise SignedError(SignedReason.UNREADABLE, "another format")
    if wanted.version > VERSION:
        raise SignedError(SignedReason.NEWER)
    return wanted

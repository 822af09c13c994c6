"""What the engine and the kernel helper say to each other: typed verbs as msgpack, one datagram each, bounded.
Counterpart: helper_enforcer.py asks, kernel_helper.py answers; nothing else is understood."""

from __future__ import annotations

from typing import Annotated

import msgspec

FRAME_LIMIT = 1 << 16
"""Bytes; below the smallest default socket buffer, so that one frame always fits."""
ENTRIES_PER_FRAME = 800
TEXT_LIMIT = 64

Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]
Texts = Annotated[list[Text], msgspec.Meta(max_length=ENTRIES_PER_FRAME)]
Places = Annotated[
    list[Annotated[int, msgspec.Meta(ge=0, lt=ENTRIES_PER_FRAME)]], msgspec.Meta(max_length=ENTRIES_PER_FRAME)
]
Entries = Annotated[list[tuple[Text, Time]], msgspec.Meta(max_length=ENTRIES_PER_FRAME)]


class _Verb(msgspec.Struct, frozen=True, tag_field="verb", forbid_unknown_fields=True):
    id: Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]


class Allow(_Verb, frozen=True, tag="allow"):
    """The allowlist is these networks from now on. `first` begins a list; with `more` it goes on in the next frame."""

    networks: Texts
    first: bool = True
    more: bool = False


class Add(_Verb, frozen=True, tag="add"):
    """Drop packets from each address or network until its time (microseconds). now: the caller's time.

    override: places in `entries` of those that a person wants blocked though the allowlist has them.
    """

    now: Time
    entries: Entries
    override: Places = []


class Remove(_Verb, frozen=True, tag="remove"):
    """Let these through again."""

    targets: Texts


class Sync(_Verb, frozen=True, tag="sync"):
    """Make the set exactly these. `first` begins a list; with `more` it goes on in the next frame.

    override: as in Add.
    """

    now: Time
    entries: Entries
    first: bool = True
    more: bool = False
    override: Places = []


class List(_Verb, frozen=True, tag="list"):
    """What is blocked, from entry `start` on."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0


class Count(_Verb, frozen=True, tag="counters"):
    """What was dropped, from entry `start` on."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0


class Ping(_Verb, frozen=True, tag="ping"):
    """Are you there?"""


class Close(_Verb, frozen=True, tag="close"):
    """End; what is blocked stays blocked."""


Verb = Allow | Add | Remove | Sync | List | Count | Ping | Close


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The answer to the verb `id`; id 0: nobody asked, what was under way is lost.

    error, hint: "" when it was done. number: entries mended. entries: (target, end). counted:
    (target, packets, bytes). total: (packets, bytes). more: there are entries after these. note: what does not
    work and need not stop anybody.
    """

    id: int
    error: str = ""
    hint: str = ""
    note: str = ""
    number: int = 0
    entries: list[tuple[str, int]] = []
    counted: list[tuple[str, int, int]] = []
    total: tuple[int, int] = (0, 0)
    more: bool = False


class HelperConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The helper's one argument, as JSON. uid, gid: whom to become when started as root; parent: who started it.

    override_longest: microseconds a block that passes the allowlist may last.
    """

    parent: int
    floor: list[str] = []
    size: int = 65_536
    end_connections: bool = True
    uid: int = 65_534
    gid: int = 65_534
    override_longest: int = 3_600_000_000

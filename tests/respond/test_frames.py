from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.respond.frames import ENTRIES_PER_FRAME, FRAME_LIMIT, TEXT_LIMIT, Add, Ping, Reply, Verb

LONGEST = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"


@pytest.mark.parametrize(
    "frame",
    [
        {"verb": "run", "id": 1, "argv": ["sh"]},
        {"verb": "ping", "id": 1, "extra": 1},
        {"verb": "ping", "id": 0},
        {"verb": "ping"},
        {"verb": "add", "id": 1, "now": 0, "entries": [["192.0.2.1", -5]]},
        {"verb": "add", "id": 1, "now": 0, "entries": [["1" * (TEXT_LIMIT + 1), 5]]},
        {"verb": "add", "id": 1, "now": 0, "entries": [["192.0.2.1", 5]] * (ENTRIES_PER_FRAME + 1)},
        {"verb": "add", "id": 1, "now": 1 << 62, "entries": []},
        {"verb": "remove", "id": 1, "targets": ["192.0.2.1"] * (ENTRIES_PER_FRAME + 1)},
        {"verb": "remove", "id": 1, "targets": [7]},
        {"verb": "add", "id": 1, "now": 0, "entries": [], "override": ["192.0.2.1"]},
        {"verb": "allow", "id": 1, "networks": [7]},
        ["ping", 1],
    ],
)
def test_what_is_no_verb(frame):
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=Verb)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_verb_or_an_error(data):
    try:
        verb = msgspec.msgpack.decode(data, type=Verb)
    except msgspec.MsgspecError:
        return
    assert verb.id >= 1


def test_the_largest_frames_fit():
    entries = [(LONGEST, 1 << 60)] * ENTRIES_PER_FRAME
    assert len(msgspec.msgpack.encode(Add(1 << 62, 1 << 60, entries, [*range(ENTRIES_PER_FRAME)]))) < FRAME_LIMIT
    counted = [(LONGEST, 1 << 63, 1 << 63)] * ENTRIES_PER_FRAME
    assert len(msgspec.msgpack.encode(Reply(1 << 62, counted=counted, total=(1 << 63, 1 << 63)))) < FRAME_LIMIT


def test_round_trip_and_strict_replies():
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Ping(7)), type=Verb) == Ping(7)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"id": 1, "unknown": 1}), type=Reply)

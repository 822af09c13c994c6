"""Windows as versioned bytes that mean the same after a restart; what an older version wrote is read too.
Counterpart: `correlate` hands them to the commit point and takes them up again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vedette.detections.entries import Card, Counted, Entry
from vedette.detections.measured import ClosingWindow, window_of
from vedette.detections.plans import WindowPlan
from vedette.detections.vouched import vouched_window
from vedette.detections.windows import KeyWindow
from vedette.model.clock import BEGINNING
from vedette.model.errors import StateError
from vedette.model.events import Scalar

_NAME, _VERSION = "key-window", 3

_Row = tuple[int, int, int, str, str, str, int, int, Scalar | list[Scalar]]
_CardRow = tuple[int, int, int, str, str, str, bool, str, str]
_V1 = msgspec.json.Decoder(tuple[str, int, bool, int, int, bool, list[_Row]])
_V2 = msgspec.json.Decoder(tuple[str, int, bool, int, int, bool, list[_Row], list[_CardRow], int])
_V3 = msgspec.json.Decoder(tuple[str, int, bool, int, int, bool, list[_Row], list[_CardRow], int, list[_Row] | None])
_HEAD = msgspec.json.Decoder(list[msgspec.Raw])


def dump_window(window: KeyWindow, origins: Sequence[tuple[str, str, str]]) -> bytes:
    """The state of one key. origins: (host id, source, generation) by the index that entries have."""
    cards, judged = (window.cards, window.judged) if isinstance(window, ClosingWindow) else ([], BEGINNING)
    return msgspec.json.encode(
        [
            _NAME,
            _VERSION,
            window.fired,
            window.last,
            window.newest,
            window.inexact,
            _rows(window, origins),
            cards,
            judged,
            None if window.vouched is None else _rows(window.vouched, origins),
        ]
    )


def _rows(window: KeyWindow, origins: Sequence[tuple[str, str, str]]) -> list[list[object]]:
    return [[*entry[:3], *origins[entry.origin], *entry[4:]] for entry in window.entries]


def load_window(data: bytes, plan: WindowPlan, origin_index: dict[tuple[str, str, str], int]) -> KeyWindow:
    """A window from `dump_window`'s bytes; origins not seen yet are added. StateError where it cannot be read.

    What another kind of correlation measured under the same rule id is left out: the rule has changed.
    """
    try:
        head = _HEAD.decode(data)
        name, version = msgspec.json.decode(head[0], type=str), msgspec.json.decode(head[1], type=int)
        if name != _NAME or not 1 <= version <= _VERSION:
            raise StateError(f"correlation state is {name} version {version}", hint="written by a newer version")
        cards: list[_CardRow] = []
        judged = BEGINNING
        vouched: list[_Row] | None = None
        if version == 1:
            *_, fired, last, newest, inexact, rows = _V1.decode(data)
        elif version == 2:
            *_, fired, last, newest, inexact, rows, cards, judged = _V2.decode(data)
        else:
            *_, fired, last, newest, inexact, rows, cards, judged, vouched = _V3.decode(data)
    except (msgspec.MsgspecError, IndexError) as error:
        raise StateError(f"correlation state is damaged: {error}") from None
    entries = [_entry(row, origin_index) for row in rows]
    window = window_of(plan, inexact=inexact)
    window.fired, window.last, window.newest = fired, last, newest
    if isinstance(window, ClosingWindow):
        window.judged = judged
        if len(cards) == len(entries):
            window.entries, window.cards = entries, [Card(*row) for row in cards]
        entries = []
    if vouched is not None and not isinstance(window, ClosingWindow):
        known = [_entry(row, origin_index) for row in vouched]
        window.vouched = vouched_window(plan, [entry for entry in known if _fits(plan, entry.value)])
    fitting = [entry for entry in entries if _fits(plan, entry.value)]
    if not isinstance(window, ClosingWindow):
        window.hold(fitting)
    elif not all(_fits(plan, entry.value) for entry in window.entries):
        window.entries, window.cards = [], []
    return window


def _value(value: Scalar | list[Scalar]) -> Counted:
    return tuple(value) if isinstance(value, list) else value


def _fits(plan: WindowPlan, value: Counted) -> bool:
    if plan.numbers:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if plan.temporal:
        return isinstance(value, int) and not isinstance(value, bool)
    return True


def _entry(row: _Row, origin_index: dict[tuple[str, str, str], int]) -> Entry:
    return Entry(*row[:3], origin_index.setdefault(row[3:6], len(origin_index)), row[6], row[7], _value(row[8]))

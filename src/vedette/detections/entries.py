"""What windows are made of: one entry an event, the card of a record that may be reported later, what fired.
Counterpart: `sequential` and `columnar` make entries of matches, `windows` and `measured` hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vedette.model.events import Scalar

Counted = Scalar | tuple[Scalar, ...]
"""What a window measures of an entry: a value, a tuple of several, a number, or the bits of the rules that matched."""


class Entry(NamedTuple):
    """One event in a window. origin: index into the correlator's origins; check: of its bytes (`match.checks`)."""

    time: int
    repeat: int
    trust: int
    origin: int
    position: int
    check: int
    value: Counted


class Card(NamedTuple):
    """What a finding says of its firing record, for findings made when the record's batch is long gone.

    time: event time. opened: the engine's clock when the record came, never before its time. raw: `raw_hash`.
    """

    time: int
    opened: int
    created: int
    host_name: str
    source_ip: str
    user_name: str
    ambiguous: bool
    raw: str
    sample: str


@dataclass(frozen=True, slots=True)
class Fired:
    """A window when its condition became true. ordinal: equal records of the firing one's source before it."""

    entries: list[Entry]
    count: int
    trust: int
    ordinal: int
    inexact: bool


def ordinal_of(window: list[Entry], entry: Entry) -> int:
    """How many records before `entry` in its source have the same bytes; equal ones share the moment."""
    equal = 0
    for one in window:
        if one is entry:
            break
        if one.time == entry.time and one.check == entry.check and one.origin == entry.origin:
            equal += 1
    return equal


def time_of(entry: Entry) -> int:
    """The key by which windows are sorted."""
    return entry.time

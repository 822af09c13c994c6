"""fail2ban's filter, once its files are read: patterns over a line without its date, tried in order.
Counterpart: `rules.failregex` makes it, `detections.lines` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vedette.model.errors import Location


@dataclass(frozen=True, slots=True)
class LinePattern:
    """A regular expression in Python's dialect, its tags written out; where it stands.

    Groups have fail2ban's names: ip4, ip6, dns and fid say who, mlfid which lines belong together, nofail, mlfforget
    and mlfgained what a match means, content what of the line is looked at further.
    """

    text: str
    origin: Location


@dataclass(frozen=True, slots=True)
class LineFilter:
    """What makes a line a failure.

    failures: tried in order, the first that matches says who. ignored: a line one of them matches is none. prefix:
    must match first, where there is one. lines: so many lines are looked at together. dates: datepatterns in
    fail2ban's own words, empty = its defaults. journal: what it wants of the journal.
    """

    name: str
    failures: tuple[LinePattern, ...]
    ignored: tuple[LinePattern, ...] = ()
    prefix: LinePattern | None = None
    lines: int = 1
    dates: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> LineFilter:
        """What msgspec or JSON made of one, made whole again."""
        prefix = plain["prefix"]
        return cls(
            name=plain["name"],
            failures=tuple(map(_pattern, plain["failures"])),
            ignored=tuple(map(_pattern, plain["ignored"])),
            prefix=None if prefix is None else _pattern(prefix),
            lines=plain["lines"],
            dates=tuple(plain["dates"]),
            journal=tuple(plain["journal"]),
        )


def _pattern(plain: Mapping[str, Any]) -> LinePattern:
    return LinePattern(plain["text"], Location(**plain["origin"]))

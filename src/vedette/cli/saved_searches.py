"""`vedette search --save|--saved|--remove`: queries that watch.
Counterpart: `store.saved_searches` keeps them, `app.saved_searches` makes them rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vedette.cli.options import duration
from vedette.cli.output import note, table, write_json
from vedette.cli.state import operator
from vedette.model.errors import VedetteError
from vedette.model.levels import Level
from vedette.model.rules import Comparison
from vedette.text.times import duration_text, rfc3339


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a person wants watched, as written on the command line."""

    query: str
    window: str
    threshold: int
    below: bool
    by: tuple[str, ...]
    hours: str
    level: str


def save(name: str, chosen: Chosen, config: Path | None, data: Path | None) -> None:
    """Keep it, once it is known to make rules."""
    with operator(config, data) as at:
        from vedette.app.saved_searches import rules_from
        from vedette.store.saved_searches import SavedSearch, SavedSearches

        try:
            level = Level.parse(chosen.level)
        except ValueError as error:
            raise VedetteError(f"--level: {error}") from None
        search = SavedSearch(
            name,
            chosen.query,
            window=duration(chosen.window, "--window"),
            threshold=chosen.threshold,
            level=level.value,
            comparison=(Comparison.LT if chosen.below else Comparison.GTE).value,
            group_by=chosen.by,
            hours=_hours(chosen.hours),
            created_at=at.now(),
            created_by=at.operator,
        )
        rules_from(search)
        SavedSearches(at.state).save(search)
        note(f"saved as rule search-{name}; a running vedette takes it up at its next start")


def remove(name: str, config: Path | None, data: Path | None) -> None:
    """Forget it."""
    with operator(config, data) as at:
        from vedette.store.saved_searches import SavedSearches

        if not SavedSearches(at.state).remove(name):
            raise VedetteError(f"there is no saved search {name!r}", hint="--saved lists them")


def show(config: Path | None, data: Path | None, *, json: bool) -> None:
    """All of them, by name."""
    with operator(config, data) as at:
        from vedette.store.saved_searches import SavedSearches

        searches = SavedSearches(at.state).all()
        if json:
            write_json(
                {
                    "name": one.name,
                    "rule.id": f"search-{one.name}",
                    "query": one.query,
                    "window": duration_text(one.window),
                    "comparison": one.comparison,
                    "threshold": one.threshold,
                    "group_by": list(one.group_by),
                    "hours": list(one.hours),
                    "level": Level(one.level).label,
                    "created_at": rfc3339(one.created_at),
                    "created_by": one.created_by,
                }
                for one in searches
            )
            return
        rows = [
            (
                one.name,
                Level(one.level).label,
                f"{one.comparison} {one.threshold} in {duration_text(one.window)}",
                ", ".join(one.group_by) or "-",
                one.query,
            )
            for one in searches
        ]
        table(("NAME", "LEVEL", "WHEN", "BY", "QUERY"), rows)


def _hours(text: str) -> tuple[int, ...]:
    """`22-6` as 22, 23, 0 ... 5; nothing for the whole day."""
    if not text:
        return ()
    found = re.fullmatch("([0-9]{1,2})-([0-9]{1,2})", text)
    if found is None or int(found[1]) > 23 or int(found[2]) > 24:
        raise VedetteError(f"--hours: {text!r} is no stretch of hours", hint="22-6: from 22:00 until before 06:00, UTC")
    begin, end = int(found[1]), int(found[2]) % 24
    return tuple((begin + step) % 24 for step in range((end - begin - 1) % 24 + 1))

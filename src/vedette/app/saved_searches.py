"""Saved searches made into rules, which the engine runs beside those of the packs: no second way to judge a record.
Counterpart: `store.saved_searches` keeps them; `app.up` and the hub load what `rules_of` gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vedette.model.clock import DAY, SECOND
from vedette.model.errors import Location, RuleError
from vedette.model.levels import Level
from vedette.model.rules import (
    All,
    Comparison,
    Correlate,
    CorrelationKind,
    DatePart,
    Op,
    Rule,
    Scope,
    Test,
    Threshold,
)
from vedette.store.saved_searches import SavedSearch

LONGEST_WINDOW, MOST_FIELDS = 7 * DAY, 4
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_BELOW = (Comparison.LT, Comparison.LTE)


def rules_of(searches: Iterable[SavedSearch], *, say: Callable[[str], None] = lambda _: None) -> list[Rule]:
    """Two rules a search: the query, silent, and the correlation that counts its records. Scope fleet.

    One that cannot be used any more is left out and said: the others must not suffer from it.
    """
    rules: list[Rule] = []
    for search in searches:
        try:
            rules += rules_from(search)
        except RuleError as error:
            say(f"saved search {search.name} is left out: {error}")
    return rules


def rules_from(search: SavedSearch) -> list[Rule]:
    """The rules of one search; RuleError says what is wrong with it."""
    where = Location(f"saved search {search.name}")
    if not _NAME.fullmatch(search.name) or len(search.name) > 60:
        hint = "lower-case letters, digits and hyphens"
        raise RuleError(f"{search.name!r} is no name", location=where, hint=hint)
    from vedette.rules.query import parse_query

    query = parse_query(search.query, name=f"saved search {search.name}")
    if query.since is not None or query.until is not None:
        raise RuleError("a saved search looks at what comes: no @timestamp in it", location=where)
    try:
        comparison, level = Comparison(search.comparison), Level(search.level)
    except ValueError as error:
        raise RuleError(str(error), location=where) from None
    if not SECOND <= search.window <= LONGEST_WINDOW:
        raise RuleError("the window is between 1s and 7d", location=where)
    if search.threshold < (0 if comparison in _BELOW else 1):
        raise RuleError(f"a threshold of {search.threshold} says nothing", location=where)
    if len(search.group_by) > MOST_FIELDS:
        raise RuleError(f"more than {MOST_FIELDS} fields to group by", location=where)
    if any(not 0 <= hour <= 23 for hour in search.hours):
        raise RuleError("hours are 0 to 23", location=where)
    when = query.node
    if search.hours:
        when = All((when, Test("@timestamp", Op.EQUALS, tuple(search.hours), part=DatePart.HOUR)))
    matched = f"search-{search.name}-match"
    return [
        Rule(
            matched,
            f"Record of the saved search {search.name}",
            level,
            when,
            silent=True,
            scope=Scope.FLEET,
            origin=where,
        ),
        Rule(
            f"search-{search.name}",
            f"Saved search {search.name}",
            level,
            scope=Scope.FLEET,
            correlate=Correlate(
                CorrelationKind.EVENT_COUNT,
                (matched,),
                search.group_by,
                search.window,
                (Threshold(comparison, search.threshold),),
            ),
            key=search.group_by,
            description=search.query,
            advice="`vedette search` with the same query shows the records.",
            origin=where,
        ),
    ]

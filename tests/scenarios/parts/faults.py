"""What each fault cost, as the scenarios counted it: a row a fault, told to pytest, printed as a table at the end.
Counterpart: tests/scenarios/conftest.py prints it; docs/fleet.md holds it as it was printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

PROPERTY = "fault"
HEADINGS = ("fault", "sent", "arrived", "reported")


class Faults:
    """note: a pytest test's `record_property`, which also brings it home from another test process."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note

    def record(self, fault: str, sent: int, arrived: int, *reported: str) -> None:
        """What was sent while it happened, how much of that is in the lake, and what was said of it."""
        self._note(PROPERTY, [fault, f"{sent:,}", f"{arrived:,}", "; ".join(reported) or "nothing is missing"])


def table(rows: Iterable[list[str]]) -> str:
    """The rows as Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Level of a rule, finding and alert, ordered so that levels compare.
Counterpart: alerts route by it, notify chooses urgency by it."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """Sigma's five levels; written by name everywhere, compared by value."""

    INFORMATIONAL = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """The level as people and files write it, `high` for example."""
        return self._name_.lower()

    @classmethod
    def parse(cls, text: str) -> Level:
        """The level called `text`; ValueError when there is none of that name."""
        try:
            return cls[text.upper()]
        except KeyError:
            known = ", ".join(level.label for level in cls)
            raise ValueError(f"unknown level {text!r}: one of {known}") from None

    @classmethod
    def from_ossec(cls, level: int) -> Level:
        """OSSEC's 0-16 as our levels (design, section 2); ValueError outside the range."""
        if not 0 <= level <= 16:
            raise ValueError(f"OSSEC level {level} is not in 0..16")
        for floor, ours in ((14, cls.CRITICAL), (12, cls.HIGH), (7, cls.MEDIUM), (4, cls.LOW)):
            if level >= floor:
                return ours
        return cls.INFORMATIONAL

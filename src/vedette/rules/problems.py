"""What is wrong with a rule file, as data: severity, place, rule, message, hint.
Counterpart: the loader and `lint` make problems, `cli` prints them and decides the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from vedette.model.errors import Location, RuleError


class Severity(StrEnum):
    """An error keeps the rule from running, or our packs from being right; a warning is most likely a mistake;
    a note is worth knowing and may be meant."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class ProblemKind(StrEnum):
    """What sort of problem it is; stable, so that people can filter on it."""

    BROKEN = "broken"
    """Could not be loaded: syntax, unknown key, field or modifier, unsupported feature."""
    UNKNOWN_FIELD = "unknown-field"
    UNUSED_DETECTION = "unused-detection"
    DUPLICATE_NAME = "duplicate-name"
    NO_CASE = "no-case"
    NO_ADVICE = "no-advice"
    NO_LEVEL = "no-level"
    FIELD_NOT_GIVEN = "field-not-given"
    UNSAFE_RESPONSE = "unsafe-response"
    MISSING_REFERENCE = "missing-reference"
    FILTER_KEEPS = "filter-keeps"
    """A filter whose condition negates nothing: its rules keep only what it finds."""
    NO_ATOM = "no-atom"
    """There is nothing to scan for, so every record of its log source is looked at."""
    REGEX_NOT_LINEAR = "regex-not-linear"
    DEPRECATED = "deprecated"
    """`timeframe`, or an aggregation in the condition."""
    DEAD_RULE = "dead-rule"
    """No record, or no window, can ever satisfy it."""
    DEAD_BRANCH = "dead-branch"
    """One of its alternatives can never hold."""
    IDLE_FILTER = "idle-filter"
    """An exclusion that excludes nothing."""
    NO_PARSER = "no-parser"
    """No parser gives records of its log source."""
    FIELD_SPELLING = "field-spelling"
    """Other rules of the log source spell the field otherwise."""
    PAIRING_LOST = "pairing-lost"
    """Tests on one object of an array may be met by two different ones."""
    CHOSEN_KEY = "chosen-key"
    """Whoever is watched chooses what its alerts are counted by."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; `rule_id` is empty where no rule could be told."""

    kind: ProblemKind
    severity: Severity
    location: Location
    rule_id: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        rule = f" [{self.rule_id}]" if self.rule_id else ""
        hint = f" (hint: {self.hint})" if self.hint else ""
        return f"{self.location}: {self.severity}: {self.message}{hint}{rule}"

    @classmethod
    def from_error(cls, error: RuleError, rule_id: str = "", kind: ProblemKind = ProblemKind.BROKEN) -> Problem:
        """The problem an error stands for."""
        where = error.location or Location("<unknown>")
        return cls(kind, Severity.ERROR, where, rule_id, error.message, error.hint)

    def as_error(self) -> RuleError:
        """The error that stops the run."""
        return RuleError(self.message, location=self.location, hint=self.hint)


_LONGEST_WORD = 64
_MOST_WORDS = 200


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint naming the nearest known word, or "" where none is near.

    Comparing takes long: nothing is said of words no person writes, and of many only those that begin alike are asked.
    """
    if len(word) > _LONGEST_WORD:
        return ""
    words = list(known)
    if len(words) > _MOST_WORDS:
        words = [one for one in words if one.startswith(word[:3])][:_MOST_WORDS]
    close = get_close_matches(word, words, n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else ""

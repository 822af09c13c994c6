"""Errors a person has to mend, each with the place and a hint.
Counterpart: `cli` prints them and exits 2; nothing else catches them wholesale."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.model.operators import LoginReason
from vedette.model.reasons import InventoryReason


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file a person wrote; line and column are 1-based, 0 = unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        text = self.file
        if self.line:
            text += f":{self.line}"
            if self.column:
                text += f":{self.column}"
        return text


class VedetteError(Exception):
    """Something a person must mend. `str()` gives place, what is wrong, and the hint."""

    def __init__(self, message: str, *, location: Location | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.location}: {self.message}" if self.location else self.message
        return f"{text} (hint: {self.hint})" if self.hint else text


class RuleError(VedetteError):
    """A rule, pattern or case file that cannot be used as written."""


class ConfigError(VedetteError):
    """A configuration that cannot be used as written."""


class LoginError(VedetteError):
    """Somebody was not let in, or may not do what they asked for."""

    def __init__(self, message: str, *, reason: LoginReason, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class StateError(VedetteError):
    """Something stored on disk that this version cannot use (newer format, damaged, not writable)."""


class EnforcementError(VedetteError):
    """An enforcer could not do what it was told; the decision stands and is tried again."""


class InventoryError(VedetteError):
    """An inventory that cannot be read, or says what cannot be meant; the last that was known of it stands."""

    def __init__(
        self, reason: InventoryReason, message: str, *, location: Location | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, location=location, hint=hint)
        self.reason = reason

"""Integrity: trees read and compared with how they were, and changes told as they happen.
Counterpart: `app.integrity` runs it, at once or as a source; docs/integrity.md says what it does not see."""

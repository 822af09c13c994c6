"""Where in its file a rule speaks of a field: rules are compiled without the places of their tests.
Counterpart: `lint` asks for places; the files are those the loader read."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vedette.model.errors import Location
from vedette.model.rules import Rule

_KEY_END = (":", "|", "'", '"', " ")


@dataclass(slots=True)
class Places:
    """Reads each file once, and only where something is to be told of it."""

    _lines: dict[str, list[str]] = field(default_factory=dict)

    def of(self, rule: Rule, name: str) -> Location:
        """The line at which `name` stands as a key within the document of `rule`; the rule's own where it does not."""
        lines = self._lines.get(rule.origin.file)
        if lines is None:
            try:
                lines = Path(rule.origin.file).read_text("utf-8", "replace").splitlines()
            except OSError:
                lines = []
            self._lines[rule.origin.file] = lines
        for number, line in enumerate(islice(lines, rule.origin.line, None), rule.origin.line + 1):
            if line.startswith("---"):
                break
            at = line.find(name)
            while at >= 0:
                before, after = line[:at].rstrip()[-1:], line[at + len(name) :][:1]
                if before in ("", "-", "{", ",", "'", '"') and after in _KEY_END:
                    return Location(rule.origin.file, number, at + 1)
                at = line.find(name, at + 1)
        return rule.origin

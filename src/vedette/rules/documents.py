"""Rule files as documents whose every key knows its place.
Counterpart: `text.documents` reads the YAML; `sigma`, `extras` and `cases` work on the documents."""

from __future__ import annotations

from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.text import documents
from vedette.text.documents import DEPTH_LIMIT, FILE_LIMIT, NODE_LIMIT, Document, Path_, Plain, Yaml

__all__ = [
    "DEPTH_LIMIT",
    "FILE_LIMIT",
    "NODE_LIMIT",
    "Document",
    "Path_",
    "Plain",
    "Yaml",
    "parse_documents",
    "read_documents",
]


def read_documents(path: Path) -> list[Document]:
    """The documents of a file; RuleError where it is unreadable, too large or no YAML."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror or error}", location=Location(str(path))) from error
    return parse_documents(raw, str(path))


def parse_documents(raw: bytes, file: str) -> list[Document]:
    """The documents in `raw` (UTF-8); empty ones are left out. RuleError with file:line:column."""
    return documents.parse_documents(raw, file, RuleError)

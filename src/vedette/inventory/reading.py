"""A YAML file checked against a pydantic class, every error with file, line, column and hint.
Counterpart: `yaml` and whatever else in this room a person writes by hand; `text.documents` knows the places."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vedette.model.errors import ConfigError, Location
from vedette.text.documents import FILE_LIMIT, Document, parse_documents

M = TypeVar("M", bound=BaseModel)


def read_document(path: Path, what: str) -> Document:
    """The one document of a file that only its owner's people may write; ConfigError else. what: "a port policy"."""
    return parse_document(read_trusted(path), str(path), what)


def read_trusted(path: Path, most: int = FILE_LIMIT) -> bytes:
    """What stands in a file that only its owner's people may write, a byte more than `most` at the longest."""
    location = Location(str(path))
    try:
        with path.open("rb") as stream:
            mode = path.stat().st_mode
            raw = stream.read(most + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", location=location) from None
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        raise ConfigError(
            "everybody may write it, and with it what counts as right", location=location, hint="chmod o-w"
        )
    return raw


def entries_trusted(folder: Path) -> list[Path]:
    """What stands in a folder, sorted; ConfigError where everybody may put something there."""
    location = Location(str(folder))
    try:
        mode, found = folder.stat().st_mode, sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", location=location) from None
    if mode & stat.S_IWOTH:
        raise ConfigError(
            "everybody may put files there, and with them what counts as right", location=location, hint="chmod o-w"
        )
    return found


def parse_document(raw: bytes, file: str, what: str) -> Document:
    """The one document in `raw`; ConfigError where there is none, or more."""
    documents = parse_documents(raw, file, ConfigError)
    if not documents:
        raise ConfigError(f"is empty: no {what}", location=Location(file, 1, 1), hint="begin with `version: 1`")
    if len(documents) > 1:
        raise ConfigError("holds two documents", location=documents[1].start, hint="one file, one document")
    return documents[0]


def validated(model: type[M], document: Document) -> M:
    """The document as `model`; ConfigError names the place of the first problem and counts the others."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    path = written_path(document, first["loc"])
    message, hint = str(first["msg"]).removeprefix("Value error, "), ""
    if first["type"] == "extra_forbidden":
        message = "is not a key that stands here"
        close = difflib.get_close_matches(str(path[-1] if path else ""), known_keys(model), n=1)
        hint = f"did you mean {close[0]}?" if close else ""
    elif first["type"] == "missing":
        message = f"{first['loc'][-1]} is missing"
    message, _, more = message.partition(" (hint: ")
    hint = hint or more.removesuffix(")")
    if len(problems) > 1:
        message += f"; {len(problems) - 1} more after it"
    name = ".".join(str(part) for part in path)
    raise ConfigError(f"{name}: {message}" if name else message, location=document.at(*path), hint=hint)


def written_path(document: Document, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The path of keys an error of pydantic speaks of, less the parts that name types and not keys."""
    path: tuple[int | str, ...] = ()
    for part in loc:
        if (*path, part) in document.marks:
            path = (*path, part)
    return path


def known_keys(model: type[BaseModel]) -> list[str]:
    """Every key that may stand somewhere in a document of this class."""
    definitions = model.model_json_schema(by_alias=True)
    names = set(definitions.get("properties", {}))
    for definition in definitions.get("$defs", {}).values():
        names.update(definition.get("properties", {}))
    return sorted(names)

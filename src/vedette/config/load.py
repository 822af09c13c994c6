"""Reads the configuration: YAML 1.2, one file and its conf.d, every error with file, line and column.
Counterpart: `cli config check` and `app` call it; it never half-applies anything."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vedette.config.folders import DEFAULT_PATH
from vedette.config.settings import Settings
from vedette.model.errors import ConfigError, Location
from vedette.text.documents import Document, parse_documents

_LARGEST = 1 << 20

_Path = tuple[str | int, ...]
_Marks = dict[_Path, Location]


def load_settings(path: Path | None = None) -> Settings:
    """The settings in `path` and the `conf.d/*.yml` beside it, or the defaults where no file is.

    path: None takes DEFAULT_PATH where it exists; a path given must exist. ConfigError names the place of
    the first error and counts the others.
    """
    return load_with_places(path)[0]


def load_with_places(path: Path | None = None) -> tuple[Settings, Mapping[tuple[str | int, ...], Location]]:
    """As `load_settings`, and where each key and item was written, for errors that only a look around finds."""
    if path is None:
        if not DEFAULT_PATH.exists():
            return Settings(), {}
        path = DEFAULT_PATH
    tree: dict[str, Any] = {}
    marks: _Marks = {}
    for file in [path, *sorted((path.parent / "conf.d").glob("*.yml"))]:
        document = _read(file)
        if document is None:
            continue
        if file is path and document.data and "version" not in document.data:
            raise ConfigError("version is missing", location=Location(str(file), 1, 1), hint="begin with `version: 1`")
        own_marks = {place: Location(str(file), *mark) for place, mark in document.marks.items()}
        _merge(tree, document.data, (), marks, own_marks)
    try:
        return Settings.model_validate(tree), marks
    except ValidationError as error:
        raise _located(error, marks, path) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration (draft 2020-12)."""
    generated = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def _read(file: Path) -> Document | None:
    """The document of a file; None of one that is empty."""
    where = Location(str(file))
    try:
        status = file.stat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
            raise ConfigError(
                "everybody may write it, and with it whom we block and tell", location=where, hint=f"chmod o-w {file}"
            )
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", location=where) from None
    if len(raw) > _LARGEST:
        raise ConfigError(f"larger than {_LARGEST} bytes", location=where)
    documents = parse_documents(raw, str(file), ConfigError, core=True)
    if len(documents) > 1:
        raise ConfigError("holds two documents", location=documents[1].start, hint="one file, one document")
    return documents[0] if documents else None


def _merge(tree: dict[str, Any], more: Mapping[str, Any], path: _Path, marks: _Marks, new: _Marks) -> None:
    """Add a file: mappings are joined, lists appended, and nothing may be set twice."""
    for key, value in more.items():
        here = (*path, key)
        if key not in tree:
            tree[key] = value
            marks.update({place: mark for place, mark in new.items() if place[: len(here)] == here})
        elif isinstance(tree[key], dict) and isinstance(value, dict):
            _merge(tree[key], value, here, marks, new)
        elif isinstance(tree[key], list) and isinstance(value, list):
            shift = len(tree[key])
            tree[key] = [*tree[key], *value]
            for place, mark in new.items():
                if place[: len(here)] == here and len(place) > len(here) and isinstance(place[len(here)], int):
                    marks[*here, int(place[len(here)]) + shift, *place[len(here) + 1 :]] = mark
        elif here == ("version",) and tree[key] == value:
            continue
        else:
            words = f"{key} is already set in {_nearest(marks, here)}"
            raise ConfigError(words, location=_nearest(new, here), hint="set it once")


def _nearest(marks: _Marks, path: _Path) -> Location | None:
    """Where a key was written, or what is around it: what an alias stands for was written elsewhere."""
    return next((marks[path[:size]] for size in range(len(path), 0, -1) if path[:size] in marks), None)


def _located(error: ValidationError, marks: _Marks, path: Path) -> ConfigError:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    place = _place(first["loc"], marks)
    name = ".".join(str(part) for part in place)
    message = str(first["msg"]).removeprefix("Value error, ")
    hint = ""
    if first["type"] == "extra_forbidden":
        message, key = "is not a setting", str(first["loc"][-1])
        if not place or place[-1] != key:
            name = f"{name}.{key}"  # an alias stands for it
        close = difflib.get_close_matches(key, _known_names(Settings), n=1)
        hint = f"did you mean {close[0]}?" if close else ""
    if len(problems) > 1:
        message += f"; {len(problems) - 1} more after it"
    location = marks.get(place, Location(str(path)))
    return ConfigError(f"{name}: {message}" if name else message, location=location, hint=hint)


def _place(loc: Iterable[str | int], marks: _Marks) -> _Path:
    """The written path an error speaks of: pydantic's own, less the parts that name types and not keys."""
    place: _Path = ()
    for part in loc:
        if (*place, part) in marks:
            place = (*place, part)
    return place


@cache
def _known_names(model: type[BaseModel]) -> list[str]:
    definitions = model.model_json_schema(by_alias=True)
    names = set(definitions.get("properties", {}))
    for definition in definitions.get("$defs", {}).values():
        names.update(definition.get("properties", {}))
    return sorted(names)

"""Reads the configuration: YAML 1.2, one file and its conf.d, every error with file, line and column.
Counterpart: `cli config check` and `app` call it; it never half-applies anything."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from vedette.config.settings import Settings
from vedette.model.errors import ConfigError, Location

DEFAULT_PATH = Path("/etc/vedette/vedette.yml")
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
        own_marks: _Marks = {}
        document = _plain(_read(file), (), own_marks, str(file))
        if not isinstance(document, dict):
            raise ConfigError("the file must hold a mapping", location=Location(str(file), 1, 1))
        if file is path and document and "version" not in document:
            raise ConfigError("version is missing", location=Location(str(file), 1, 1), hint="begin with `version: 1`")
        _merge(tree, document, (), marks, own_marks)
    try:
        return Settings.model_validate(tree), marks
    except ValidationError as error:
        raise _located(error, marks, path) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration (draft 2020-12)."""
    generated = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def _read(file: Path) -> Any:
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    yaml.allow_duplicate_keys = False
    try:
        status = file.stat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
            raise ConfigError(
                "everybody may write it, and with it whom we block and tell",
                location=Location(str(file)),
                hint=f"chmod o-w {file}",
            )
        raw = file.read_bytes()
        if len(raw) > _LARGEST:
            raise ConfigError(f"larger than {_LARGEST} bytes", location=Location(str(file)))
        return yaml.load(raw.decode())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", location=Location(str(file))) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}", location=Location(str(file))) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Location(str(file), mark.line + 1, mark.column + 1) if mark else Location(str(file))
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise ConfigError(problem, location=place) from None
    except YAMLError as error:
        raise ConfigError(str(error).splitlines()[0], location=Location(str(file))) from None


def _plain(node: Any, path: _Path, marks: _Marks, file: str) -> Any:
    """The plain value of a YAML node; the place of every key and item goes into `marks`."""
    if isinstance(node, CommentedMap):
        out: dict[str, Any] = {}
        for key, value in node.items():
            line, column = node.lc.key(key)
            place = Location(file, line + 1, column + 1)
            if not isinstance(key, str):
                raise ConfigError(f"key {key!r} is not text", location=place)
            marks[*path, key] = place
            out[key] = _plain(value, (*path, key), marks, file)
        return out
    if isinstance(node, CommentedSeq):
        items = []
        for index, value in enumerate(node):
            line, column = node.lc.item(index)
            marks[*path, index] = Location(file, line + 1, column + 1)
            items.append(_plain(value, (*path, index), marks, file))
        return items
    if node is None:
        return {} if not path else None
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return str(node)


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
            raise ConfigError(f"{key} is already set in {marks[here]}", location=new[here], hint="set it once")


def _located(error: ValidationError, marks: _Marks, path: Path) -> ConfigError:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    place = _place(first["loc"], marks)
    name = ".".join(str(part) for part in place)
    message = str(first["msg"]).removeprefix("Value error, ")
    hint = ""
    if first["type"] == "extra_forbidden":
        message = "is not a setting"
        close = difflib.get_close_matches(str(place[-1] if place else ""), _known_names(Settings), n=1)
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


def _known_names(model: type[BaseModel]) -> list[str]:
    definitions = model.model_json_schema(by_alias=True)
    names = set(definitions.get("properties", {}))
    for definition in definitions.get("$defs", {}).values():
        names.update(definition.get("properties", {}))
    return sorted(names)

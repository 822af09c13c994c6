"""One line of the configuration that a command writes: in a file of its own in `conf.d`, all of it or nothing.
Counterpart: `promotion` writes how far alerts go by it, `block_promotion` how far responses have climbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from vedette.config.folders import DEFAULT_PATH
from vedette.config.load import load_with_places
from vedette.model.errors import ConfigError
from vedette.system.files import write_atomic
from vedette.text.escape import shorten, terminal
from vedette.text.times import rfc3339

_WHY_LIMIT = 200


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file in `conf.d` that commands write, and a person may edit. header: what stands at its top."""

    name: str
    header: str

    def beside(self, config: Path | None) -> Path:
        """Where it is for the configuration `config` (None: the usual one); ConfigError where there is none."""
        path = config or DEFAULT_PATH
        if not path.exists():
            raise ConfigError(f"there is no configuration {path}", hint="a file that says `version: 1` is one")
        return path.parent / "conf.d" / self.name


@dataclass(frozen=True, slots=True)
class Line:
    """keys: where it stands. what: how a person calls it. comment: who, from what, why."""

    keys: tuple[str, ...]
    value: str
    what: str
    comment: str


def why_of(text: str) -> str:
    """A reason as it may stand in a file and on a terminal."""
    return shorten(terminal(" ".join(text.split())), _WHY_LIMIT)


def comment_of(now: int, who: str, before: str, why: str) -> str:
    """What stands behind a line."""
    return f"{rfc3339(now)[:10]} {terminal(who)}, from {before}" + (f": {why}" if why else "")


def set_line(config: Path | None, file: OwnFile, line: Line, then: Callable[[], object]) -> Path:
    """Write `line`, see that the configuration can be read, and do `then`; what stood there is back where that fails.

    ConfigError where the line is set in another file, or this one cannot be written; whatever `then` raises.
    """
    path = file.beside(config)
    _, places = load_with_places(config)
    place = places.get(line.keys)
    if place is not None and Path(place.file) != path:
        hint = f"write {line.value} there, or take it out"
        raise ConfigError(f"{line.what} is set here", location=place, hint=hint)
    before = path.read_bytes() if path.exists() else None
    try:
        _write(path, _changed(path, before, file, line))
        try:
            load_with_places(config)
            then()
        except (ConfigError, OSError):
            # What stood there before is worth more than half a change.
            if before is None:
                path.unlink(missing_ok=True)
            else:
                _write(path, before)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="run this as root") from None
    return path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    # A running `up` reads it again after it gave its rights away.
    write_atomic(path, data, mode=None if path.exists() else 0o644)


def _changed(path: Path, before: bytes | None, file: OwnFile, line: Line) -> bytes:
    """The file with one line set, everything else as it was."""
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    yaml.width = 10_000
    tree = CommentedMap()
    if before is not None:
        try:
            tree = yaml.load(before.decode()) or tree
        except (UnicodeDecodeError, YAMLError) as error:
            raise ConfigError(f"{path} is not YAML", hint=str(error).splitlines()[0]) from None
    else:
        tree.yaml_set_start_comment(file.header)
    *above, last = line.keys
    place = tree
    place.fa.set_block_style()
    for key in above:
        place = place.setdefault(key, CommentedMap())
        place.fa.set_block_style()
    place[last] = line.value
    place.yaml_add_eol_comment(line.comment, last, column=0)
    out = StringIO()
    yaml.version = None
    yaml.dump(tree, out)
    return out.getvalue().encode()

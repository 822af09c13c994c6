"""What reaches the terminal: JSON lines with flat ECS names, or tables; nothing from a log unescaped.
Counterpart: every command prints through here, and errors end here with exit code 2."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn

import msgspec
import orjson

from vedette.model.errors import VedetteError
from vedette.text.escape import presentable, terminal

# Exit codes, the same for every command (see docs/cli.md).
OK, FOUND, WRONG = 0, 1, 2

_BEYOND_ASCII = re.compile("[^\x00-\x7e]")


class Format(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


def json_line(record: Mapping[str, Any]) -> bytes:
    """One object as a line. Text that was not UTF-8 has U+FFFD, and its bytes beside it as `<field>_b64`."""
    try:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        pass  # of what it cannot write, some can be made presentable
    else:
        if line.isascii() and b"\x7f" not in line:
            return line
    out: dict[str, Any] = {}
    for name, value in record.items():
        out[name] = _presentable(name, value, out)
    line = orjson.dumps(out, option=orjson.OPT_APPEND_NEWLINE)
    if line.isascii() and b"\x7f" not in line:
        return line
    # JSON leaves C1 and bidirectional controls as they are; escaped they are the same to a program, and a
    # terminal does not obey them.
    return _BEYOND_ASCII.sub(_escaped, line.decode()).encode()


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    if terminal(character) == character:
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _presentable(name: str, value: Any, beside: dict[str, Any]) -> Any:
    if isinstance(value, str):
        text, raw = presentable(value)
        if raw is not None:
            beside[f"{name}_b64"] = base64.b64encode(raw).decode()
        return text
    if isinstance(value, Mapping):
        nested: dict[str, Any] = {}
        for key, one in value.items():
            nested[key] = _presentable(key, one, nested)
        return nested
    if isinstance(value, (list, tuple)):
        return [_presentable(name, one, {}) for one in value]
    return value


def write_json(records: Iterable[Mapping[str, Any]]) -> None:
    """Print objects, one a line."""
    for record in records:
        sys.stdout.buffer.write(json_line(record))
    sys.stdout.buffer.flush()


def say(text: str = "") -> None:
    """A line for people on standard output; control characters are written out."""
    sys.stdout.write(terminal(text) + "\n")


def note(text: str) -> None:
    """A line for people on standard error; control characters are written out."""
    sys.stderr.write(terminal(text) + "\n")
    sys.stderr.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: coloured and fitted on a terminal, plain and unshortened when piped."""
    cells = [[terminal(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def fail(error: VedetteError | str) -> NoReturn:
    """Say what is wrong and end with exit code 2."""
    note(f"vedette: {error}")
    raise SystemExit(WRONG)


@contextmanager
def errors_said() -> Any:
    """Inside, a VedetteError or a broken pipe ends the program the way a person expects."""
    try:
        yield
    except VedetteError as error:
        fail(error)
    except BrokenPipeError:
        # The reader has gone (`| head`); Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(OK) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def plain(record: Any) -> dict[str, Any]:
    """A model object as JSON-ready values."""
    converted = msgspec.to_builtins(record)
    assert isinstance(converted, dict)
    return converted

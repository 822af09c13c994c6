"""Results as CSV or Parquet: nothing a spreadsheet or a terminal would obey, and a file that is whole or not there.
Counterpart: `cli.search` chooses; JSON lines are written by `cli.output`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import orjson

from vedette.model.errors import VedetteError
from vedette.text.escape import presentable, terminal
from vedette.text.times import parse_rfc3339

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FIRST = ("@timestamp", "host.name", "process.name", "message")


def columns_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every field of the records: those people look at first, the others by name, the record itself last."""
    names = {name for record in records for name in record}
    first = [name for name in _FIRST if name in names]
    last = ["event.original"] if "event.original" in names else []
    return [*first, *sorted(names - {*first, *last}), *last]


def cell(value: Any) -> str:
    """A value as CSV has it: on one line, and never the beginning of a formula (OWASP, CSV Injection)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    text = terminal(value if isinstance(value, str) else _json(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(out: IO[str], columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> None:
    """A header and a line a record (RFC 4180, with newlines of this system's kind)."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([cell(name) for name in columns])
    for record in records:
        writer.writerow([cell(record.get(name)) for name in columns])


def write_parquet(out: IO[bytes], columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    """A column a field: numbers and truth values as such where all of them are, times as times, else text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: _array([record.get(name) for record in records], name) for name in columns}
    pq.write_table(pa.table(arrays), out, compression="zstd")


def _array(values: list[Any], name: str) -> Any:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if name == "@timestamp" and kinds == {str}:
        return pa.array([parse_rfc3339(value) for value in values], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds and kinds <= {int, float} and all(abs(value) < 2**63 for value in values if value is not None):
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    texts = [None if one is None else presentable(one if isinstance(one, str) else _json(one))[0] for one in values]
    return pa.array(texts, pa.string())


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when all is well, and is gone when it is not. VedetteError."""
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as made:
            beside = Path(made.name)
    except OSError as error:
        raise VedetteError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise VedetteError(f"cannot write {path}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)

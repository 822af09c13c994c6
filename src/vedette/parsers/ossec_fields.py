"""What OSSEC's decoders find, as columns beside those of our own parsers; ECS names where ours say nothing.
Counterpart: `rules.ossec` tests these columns; `app.detection` puts this around a parser when such rules are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from vedette.model.batch import Batch, RecordFormat
from vedette.model.events import Column, Table, Value
from vedette.model.protocols import Parser
from vedette.parsers.ossec import Cut, Decoded, OssecDecoder
from vedette.parsers.ossec_decoders import DecoderTable
from vedette.text.addresses import canonical
from vedette.text.escape import decode

PREFIX = "ossec."
_DATA = "ossec.data."
_ECS = {
    "source.ip": ("srcip",),
    "user.name": ("dstuser", "srcuser"),
}
"""ECS fields that decoders may give, of programs that no parser of ours knows."""


class OssecParser:
    """A parser, and the decoders of a table over the same records."""

    def __init__(self, inner: Parser, table: DecoderTable) -> None:
        self._inner = inner
        self._decoder = OssecDecoder(table)

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`; decoders run when one of their columns is first asked for."""
        table = self._inner.parse(batch)
        records = _Records(batch, table, self._decoder)
        table.provide_all({f"{PREFIX}{name}": _provider(records, name) for name in _MADE})
        table.provide_more(records.data)
        for name, sources in _ECS.items():
            table.provide_over(name, _ecs(table, records, sources, address=name == "source.ip"))
        return table


class _Records:
    """The records of one batch, decoded once."""

    def __init__(self, batch: Batch, table: Table, decoder: OssecDecoder) -> None:
        self.batch, self._table, self._decoder = batch, table, decoder
        self._decoded: list[Decoded] | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def decoded(self) -> list[Decoded]:
        """One entry a record."""
        if self._decoded is None:
            batch, decoder = self.batch, self._decoder
            location = batch.origin.source
            if batch.format is RecordFormat.MESSAGE and batch.header is not None:
                header = batch.header
                self._decoded = [
                    decoder.decode_cut(Cut(header.host[row], header.program[row] or None, self._text(row)), location)
                    for row in range(len(batch))
                ]
            else:
                self._decoded = [decoder.decode(self._text(row), location) for row in range(len(batch))]
        return self._decoded

    def data(self, field: str) -> Column | None:
        """What decoders call by the name in `field`; None for the fields of others."""
        if not field.startswith(_DATA):
            return None
        name = field.removeprefix(_DATA)
        return Column.from_values([one.fields.get(name) for one in self.decoded()])

    def _text(self, row: int) -> str:
        text = decode(self.batch.raw(row))
        return text.replace("\n", " ") if "\n" in text else text

    def moments(self) -> list[datetime]:
        """When each happened, by the clock on the wall."""
        try:
            zone = ZoneInfo(self.batch.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            zone = ZoneInfo("UTC")
        return [datetime.fromtimestamp(time // 1_000_000, UTC).astimezone(zone) for time in self._table.time.tolist()]


_MADE: dict[str, Callable[[_Records], Sequence[str | int | None]]] = {
    "log": lambda records: [one.cut.log for one in records.decoded()],
    "program": lambda records: [one.cut.program for one in records.decoded()],
    "host": lambda records: [one.cut.host for one in records.decoded()],
    "size": lambda records: [len(one.cut.log) for one in records.decoded()],
    "decoder": lambda records: [one.decoder or None for one in records.decoded()],
    "category": lambda records: [one.category for one in records.decoded()],
    "first": lambda records: [one.first or None for one in records.decoded()],
    "location": lambda records: [records.batch.origin.source] * len(records),
    "user": lambda records: [one.fields.get("dstuser") or one.fields.get("srcuser") for one in records.decoded()],
    "minute": lambda records: [60 * moment.hour + moment.minute for moment in records.moments()],
    "weekday": lambda records: [moment.weekday() for moment in records.moments()],
}


def _provider(records: _Records, name: str) -> Callable[[], Column]:
    return lambda: Column.from_values(list(_MADE[name](records)))


def _ecs(table: Table, records: _Records, names: Sequence[str], *, address: bool) -> Callable[[Column], Column]:
    """The field as our parsers give it, and of programs that none of them knows as decoders do.

    Of a program that ours do know they would have said so: a decoder reads what an attacker wrote as well.
    """

    def over(ours: Column) -> Column:
        unknown = table.column("vedette.service").codes < 0
        if not unknown.any():
            return ours
        decoded = records.decoded()
        values: list[Value | None] = [None] * len(decoded)
        for row in np.flatnonzero(unknown & (ours.codes < 0)).tolist():
            fields = decoded[row].fields
            text = next((fields[name] for name in names if fields.get(name)), None)
            values[row] = canonical(text) if address and text else text
        theirs = Column.from_values(values)
        if not theirs.values:
            return ours
        codes = np.where(theirs.codes >= 0, theirs.codes + np.int32(len(ours.values)), ours.codes)
        return Column(codes.astype(np.int32), [*ours.values, *theirs.values])

    return over

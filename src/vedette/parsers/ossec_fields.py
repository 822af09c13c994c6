"""What OSSEC's decoders find, as columns beside those of our own parsers; ECS names where ours say nothing.
Counterpart: `rules.ossec` tests these columns; `app.detection` puts this around a parser when such rules are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from vedette.model.batch import Batch, Int32, RecordFormat
from vedette.model.events import Column, Table
from vedette.model.protocols import Parser
from vedette.parsers.ossec import Cut, Decoded, OssecDecoder, cut_header, printable
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
    """The records of one batch, each text of a program decoded once."""

    def __init__(self, batch: Batch, table: Table, decoder: OssecDecoder) -> None:
        self.batch, self._table, self._decoder = batch, table, decoder
        self._made: tuple[Int32, list[Decoded]] | None = None
        self._hosts: list[str | None] = []

    def __len__(self) -> int:
        return len(self.batch)

    def decoded(self) -> tuple[Int32, list[Decoded]]:
        """int32[n] of each record into what was decoded."""
        if self._made is None:
            location = self.batch.origin.source
            decode_cut = self._decoder.decode_cut
            seen: dict[tuple[str | None, str], int] = {}
            texts: list[str] = []
            codes = np.empty(len(self), dtype=np.int32)
            for row, (text, cut) in enumerate(self._cuts()):
                key = (cut.program, cut.log)
                self._hosts.append(cut.host)
                codes[row] = code = seen.setdefault(key, len(seen))
                if code == len(texts):
                    texts.append(text)
            # Whole texts only where no decoder knows what is left of them.
            found = [decode_cut(Cut(None, *key), location) for key in seen]
            found = [
                one if one.decoder or not text else self._decoder.decode_archived(text, one, location)
                for one, text in zip(found, texts, strict=True)
            ]
            self._made = codes, found
        return self._made

    def _cuts(self) -> Iterator[tuple[str, Cut]]:
        """The text of each record, and what is left of it without its header."""
        batch = self.batch
        if batch.format is RecordFormat.MESSAGE and batch.header is not None:
            header = batch.header
            for row in range(len(batch)):
                yield "", Cut(header.host[row], header.program[row] or None, self._text(row))
            return
        for row in range(len(batch)):
            text = printable(self._text(row))
            yield text, cut_header(text)

    def _text(self, row: int) -> str:
        text = decode(self.batch.raw(row))
        return text.replace("\n", " ") if "\n" in text else text

    def column(self, made: Callable[[Decoded], str | int | None]) -> Column:
        """What `made` says of each record."""
        codes, found = self.decoded()
        column = _encoded([made(one) for one in found])
        return Column(column.codes[codes], column.values)

    def data(self, field: str) -> Column | None:
        """What decoders call by the name in `field`; None for the fields of others."""
        if not field.startswith(_DATA):
            return None
        name = field.removeprefix(_DATA)
        return self.column(lambda one: one.fields.get(name))

    def hosts(self) -> Column:
        """The hosts that headers name."""
        self.decoded()
        return _encoded(self._hosts)

    def moments(self) -> list[datetime]:
        """When each happened, by the clock on the wall."""
        try:
            zone = ZoneInfo(self.batch.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            zone = ZoneInfo("UTC")
        return [datetime.fromtimestamp(time // 1_000_000, UTC).astimezone(zone) for time in self._table.time.tolist()]


def _encoded(values: Sequence[str | int | None]) -> Column:
    """Values as a column; None is absent."""
    seen: dict[str | int | None, int] = {None: -1}
    codes = np.array([seen.setdefault(value, len(seen) - 1) for value in values], dtype=np.int32)
    return Column(codes, list(seen)[1:])


_MADE: dict[str, Callable[[_Records], Column]] = {
    "log": lambda records: records.column(lambda one: one.cut.log),
    "program": lambda records: records.column(lambda one: one.cut.program),
    "host": lambda records: records.hosts(),
    "size": lambda records: records.column(lambda one: len(one.cut.log)),
    "decoder": lambda records: records.column(lambda one: one.decoder or None),
    "category": lambda records: records.column(lambda one: one.category),
    "first": lambda records: records.column(lambda one: one.first or None),
    "location": lambda records: Column.constant(len(records), records.batch.origin.source),
    "user": lambda records: records.column(lambda one: one.fields.get("dstuser") or one.fields.get("srcuser")),
    "minute": lambda records: _encoded([60 * moment.hour + moment.minute for moment in records.moments()]),
    "weekday": lambda records: _encoded([moment.weekday() for moment in records.moments()]),
}


def _provider(records: _Records, name: str) -> Callable[[], Column]:
    return lambda: _MADE[name](records)


def _ecs(table: Table, records: _Records, names: Sequence[str], *, address: bool) -> Callable[[Column], Column]:
    """The field as our parsers give it, and of programs that none of them knows as decoders do.

    Of a program that ours do know they would have said so: a decoder reads what an attacker wrote as well.
    """

    def over(ours: Column) -> Column:
        unknown = table.column("vedette.service").codes < 0
        if not unknown.any():
            return ours

        def said(one: Decoded) -> str | None:
            text = next((one.fields[name] for name in names if one.fields.get(name)), None)
            return canonical(text) if address and text else text

        theirs = records.column(said)
        taken = unknown & (ours.codes < 0) & (theirs.codes >= 0)
        if not taken.any():
            return ours
        codes = np.where(taken, theirs.codes + np.int32(len(ours.values)), ours.codes)
        return Column(codes.astype(np.int32), [*ours.values, *theirs.values])

    return over

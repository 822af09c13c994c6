"""The parser that hands each batch to the parser of its format.
Counterpart: sources and `replay` say the format in `Batch.format`; `app` composes it and `detections` ask it."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.model.batch import Batch, RecordFormat
from vedette.model.events import Table
from vedette.model.protocols import Parser


class RoutingParser:
    """Parsers by format; every format has one."""

    def __init__(self, parsers: Mapping[RecordFormat, Parser]) -> None:
        self._parsers = dict(parsers)

    def of(self, record_format: RecordFormat) -> Parser:
        """The parser of a format."""
        return self._parsers[record_format]

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`."""
        return self._parsers[batch.format].parse(batch)

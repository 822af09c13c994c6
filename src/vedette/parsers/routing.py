"""The parser that hands each batch to the parser of its format.
Counterpart: sources and `replay` say the format in `Batch.format`; `app` composes it and `detections` ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vedette.model.batch import Batch, RecordFormat
from vedette.model.events import Table
from vedette.model.protocols import Parser


class RoutingParser:
    """Parsers by format, each made when the first batch of its format comes."""

    def __init__(self, makers: Mapping[RecordFormat, Callable[[], Parser]]) -> None:
        self._makers = makers
        self._parsers: dict[Callable[[], Parser], Parser] = {}

    def of(self, record_format: RecordFormat) -> Parser:
        """The parser of a format."""
        maker = self._makers[record_format]
        found = self._parsers.get(maker)
        if found is None:
            found = self._parsers[maker] = maker()
        return found

    def parse(self, batch: Batch) -> Table:
        """The events of `batch`."""
        return self.of(batch.format).parse(batch)

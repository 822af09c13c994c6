"""The parsers for every format as one, each imported when its first record comes.
Counterpart: `app.detection` gives it to the matcher of the rules, `app.search` to that of a query."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from vedette.detections.interest import Interest
from vedette.detections.linescan import LineParser
from vedette.detections.needs import log_sources
from vedette.model.batch import Batch, RecordFormat
from vedette.model.events import Table
from vedette.model.protocols import Counter, Parser
from vedette.model.rules import Rule
from vedette.parsers import cache as pattern_cache
from vedette.parsers.parser import SyslogParser, wanted_of
from vedette.parsers.routing import RoutingParser
from vedette.system import kept


def routed_parser(rules: Sequence[Rule], counter: Counter) -> Parser:
    """Our parsers for every format, looking at what `rules` can match."""
    # Line filters read lines themselves: on their behalf no message is matched against patterns.
    reading = [rule for rule in rules if getattr(rule, "lines", None) is None]
    lines = SyslogParser(
        pattern_cache.load(kept.folder()), wanted_of(log_sources(reading)), counter, interest=Interest(reading)
    )
    parser: Parser = RoutingParser(
        {
            RecordFormat.SYSLOG: lines,
            RecordFormat.MESSAGE: lines,
            RecordFormat.JSON: _Later("json", "JsonParser", counter),
            RecordFormat.AUDIT: _Later("audit", "AuditParser", counter),
            RecordFormat.ACCESS: _Later("access", "AccessParser", counter, lines),
        }
    )
    if len(reading) != len(rules):
        parser = LineParser(parser, rules)
    return _with_decoders(parser, rules)


def _with_decoders(parser: Parser, rules: Sequence[Rule]) -> Parser:
    """`parser`, and the decoders that rules of decision trees name."""
    files = dict.fromkeys(file for rule in rules if rule.branch is not None for file in rule.branch.decoders)
    if not files:
        return parser
    from vedette.parsers.ossec_decoders import read_decoders
    from vedette.parsers.ossec_fields import OssecParser

    return OssecParser(parser, read_decoders(map(Path, files)))


class _Later:
    """A parser of our own that is imported when the first record of its format comes."""

    def __init__(self, module: str, name: str, *given: object) -> None:
        """given: what the parser is made of."""
        self._module, self._name = module, name
        self._given = given
        self._parser: Parser | None = None

    def parse(self, batch: Batch) -> Table:
        """As the parser does."""
        if self._parser is None:
            made = getattr(import_module(f"vedette.parsers.{self._module}"), self._name)
            self._parser = made(*self._given)
        assert self._parser is not None
        return self._parser.parse(batch)

"""Bytes to fields, pure: syslog headers, and patterns that give events their fields.
Counterpart: `sources` hand over batches, `detections` are handed a `SyslogParser`."""

from vedette.parsers.parser import Description, Reading, SeenField, SyslogParser
from vedette.parsers.registry import PATTERNS, PatternSet
from vedette.parsers.syslog import span_of_file

__all__ = ["PATTERNS", "Description", "PatternSet", "Reading", "SeenField", "SyslogParser", "span_of_file"]

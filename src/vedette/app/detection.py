"""Rules and parsers made into a matcher, for `replay`, `up`, `explain` and the case runner alike.
Counterpart: `rules` and `parsers` load, `detections` run; this is where they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vedette.app.counters import Counters
from vedette.app.formats import format_of
from vedette.app.routed import routed_parser
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.model.batch import REPLAY_HOST_ID, Batch, Origin, RecordFormat, Trust, lines_of
from vedette.model.errors import RuleError
from vedette.model.findings import Finding
from vedette.model.protocols import Counter
from vedette.model.rules import LogSource, Rule
from vedette.parsers import cache as pattern_cache
from vedette.parsers.parser import SyslogParser, wanted_of
from vedette.parsers.syslog import span_of_file
from vedette.rules import cache
from vedette.rules.files import PACKS, TREE_SUFFIX, iter_files, pipeline_files
from vedette.rules.ossec_lists import ListStore
from vedette.system import kept
from vedette.text.audit_lines import arrange

if TYPE_CHECKING:
    from vedette.rules.settings import RulesSettings


def load_rules(
    paths: Sequence[Path],
    *,
    packs: bool = True,
    keep_going: bool = False,
    settings: RulesSettings | None = None,
    pipelines: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[Rule]:
    """Our packs and the rules in `paths`, which `pipelines` change besides those of the settings.

    RuleError for the first broken one, unless `keep_going` says them all.
    """
    return _load(paths, packs, keep_going, settings, pipelines, say)[0]


def _load(
    paths: Sequence[Path],
    packs: bool,
    keep_going: bool,
    settings: RulesSettings | None,
    pipelines: Sequence[str],
    say: Callable[[str], None],
) -> tuple[list[Rule], str]:
    """The rules, and the key of them and no others; "" where there is none."""
    where, key = kept.folder(), ""
    try:
        chain = [*(settings.pipelines if settings else ()), *pipelines]
        files = [*iter_files([*([PACKS] if packs else []), *paths]), *pipeline_files(chain)]
        if any(file.suffix == TREE_SUFFIX for file in files):
            files += ListStore(paths).files()
        key = cache.key_of(files, packs, settings, pipelines)
    except (OSError, RuleError):
        pass  # what cannot be read is told by `load`, with its place
    else:
        known = cache.kept(key, where)
        if known is not None and (keep_going or not known[1]):
            rules, left_out = known
            for words in left_out:
                say(words)
            return rules, key
    # What compiles rules takes longer to import than a short replay lasts.
    from vedette.rules.loading import load

    result = load(paths, packs=packs, keep_going=keep_going, settings=settings, pipelines=pipelines)
    left_out = [f"left out: {problem.as_error()}" for problem in result.errors]
    for words in left_out:
        say(words)
    if key:
        cache.keep(key, result.rules, left_out, where)
    return list(result.rules), key


def load_matcher(
    paths: Sequence[Path],
    *,
    packs: bool = True,
    keep_going: bool = False,
    counter: Counter,
    settings: RulesSettings | None = None,
    pipelines: Sequence[str] = (),
    skew_limit: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Matcher:
    """A matcher over our packs and the rules in `paths`."""
    rules, key = _load(paths, packs, keep_going, settings, pipelines, say)
    return matcher_of(rules, counter=counter, skew_limit=skew_limit, key=key)


def matcher_of(rules: Sequence[Rule], *, counter: Counter, skew_limit: int = 0, key: str = "") -> Matcher:
    """A matcher over `rules` that parses what they look at. key: of these rules and no others, if there is one."""
    return Matcher(rules, routed_parser(rules, counter), skew_limit=skew_limit, cache=kept.folder(), key=key)


def parser_of(logsources: Iterable[LogSource], counter: Counter) -> SyslogParser:
    """Our parsers, looking at what rules of these log sources can match."""
    return SyslogParser(pattern_cache.load(kept.folder()), wanted_of(logsources), counter)


_WARMING = b"Jan  1 00:00:0%d host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2"


def warm_up(matcher: Matcher) -> None:
    """Run records through `matcher` and windows that are thrown away: the first real one must not pay for first use."""
    correlator = Correlator(matcher.rules, counter=Counters())
    for second in range(6):
        batch = batch_of_lines([_WARMING % second], year=2026)
        correlator.process(stretch_of(batch, matcher.match(batch)))


def found_alone(matcher: Matcher, batch: Batch) -> list[Finding]:
    """What comes of one batch by itself, in windows that are thrown away."""
    correlator = Correlator(matcher.rules, counter=Counters())
    return correlator.process(stretch_of(batch, matcher.match(batch))).findings


class CaseEngine:
    """Runs rules over a few lines, as cases beside rules want it. year: of the first line.

    The same sequence of rules is compiled once, however many cases it runs.
    """

    def __init__(self, year: int = 2026) -> None:
        self._year = year
        self._rules: Sequence[Rule] = ()
        self._matcher: Matcher | None = None

    def __call__(self, rules: Sequence[Rule], lines: Sequence[bytes]) -> Sequence[Finding]:
        if self._matcher is None or rules is not self._rules:
            self._rules, self._matcher = rules, matcher_of(rules, counter=Counters())
        return found_alone(self._matcher, batch_of_lines(lines, year=self._year))


# Lines that tell a format; all of a batch are of one.
_LOOKED_AT = 20


def batch_of_lines(lines: Sequence[bytes], *, year: int, timezone: str = "UTC", read_at: int = 0) -> Batch:
    """Lines at hand, of the format they look like, as one attested batch; positions are line numbers.

    Those of Linux audit are joined by event, unless they are whole events. read_at: where `year` is 0.
    """
    first, last = (lines[0], lines[-1]) if lines else (b"", b"")
    year, read_at = span_of_file(first, last, year=year, mtime=read_at, timezone=timezone)
    block, starts, ends = lines_of(lines)
    positions = np.arange(1, len(lines) + 1, dtype=np.int64)
    record_format = format_of(b"\n".join(lines[:_LOOKED_AT]))
    if record_format is RecordFormat.AUDIT and not any(b"\n" in line for line in lines):
        events = arrange(block, starts, ends)
        block, starts, ends, positions = events.block, events.starts, events.ends, positions[events.firsts]
    return Batch(
        origin=Origin(REPLAY_HOST_ID, "lines"),
        number=0,
        block=block,
        starts=starts,
        ends=ends,
        positions=positions,
        read_at=read_at,
        format=record_format,
        trust=Trust.ATTESTED,
        timezone=timezone,
        year=year,
        spooled=True,
    )

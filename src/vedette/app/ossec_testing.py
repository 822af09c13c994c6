"""The engine as OSSEC's and Wazuh's tests ask it: the rule, level and decoder of the last of some lines.
Counterpart: `rules.ossec_tests` reads and judges the cases; `cli.rules.testing` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vedette.app.counters import Counters
from vedette.app.routed import routed_parser
from vedette.detections.branches import Branches
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.model.batch import REPLAY_HOST_ID, Batch, Origin, RecordFormat, Trust
from vedette.model.errors import RuleError
from vedette.model.events import Table
from vedette.model.protocols import Parser
from vedette.model.rules import Rule
from vedette.rules.cases import CaseResult
from vedette.rules.loading import load
from vedette.rules.ossec import dialect_in
from vedette.rules.ossec_tests import Verdict, read_tests, run_tests

_READ_AT = 1_767_268_800_000_000


class _Noon:
    """A parser whose records all come at noon of a working day.

    In the tests of others a session is typed in at once, whatever its lines say of the time.
    """

    def __init__(self, inner: Parser) -> None:
        self._inner = inner

    def parse(self, batch: Batch) -> Table:
        """As the parser does."""
        table = self._inner.parse(batch)
        table.time = np.full(len(batch), _READ_AT, dtype=np.int64)
        return table


class OssecTester:
    """Verdicts on sessions; each begins with nothing remembered, and takes no time."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [rule for rule in rules if rule.branch is not None]
        self._matcher = Matcher(self._rules, _Noon(routed_parser(self._rules, Counters())))

    def __call__(self, lines: Sequence[str]) -> Verdict:
        batch = _batch(lines)
        judge = self._matcher.judge(batch)
        decoder = judge.table.column("ossec.decoder").value(len(lines) - 1)
        matches = self._matcher.match(batch)
        n = len(matches.rows)
        stretch = stretch_of(batch, replace(matches, window=matches.time))
        branches = Branches(self._rules, Counters(), max_keys=1000, track=False)
        zeros = np.zeros(n, dtype=np.int64)
        told, firings = branches.run(
            stretch, zeros, [batch.origin], matches.trust.astype(np.int64), np.ones(n, dtype=np.bool_)
        )
        place = int(np.searchsorted(matches.rows, len(lines) - 1))
        winner = next((one.rule for one in firings if one.index == place), -1)
        for index, rows in told.matches.hits.items():
            if place in rows:
                winner = index
        if winner < 0 or place >= n:
            return Verdict("", "", str(decoder or ""))
        rule = self._rules[winner]
        assert rule.branch is not None
        return Verdict(rule.id, str(rule.branch.weight), str(decoder or ""))


def run_ossec(
    tests: Sequence[Path], rules: Sequence[Path], dialect: str, unreadable: list[RuleError]
) -> list[CaseResult]:
    """The cases in `tests`, judged by the rules, decoders and lists under `rules`; what cannot be read is appended."""
    loaded = load(rules, keep_going=True, dialect=dialect)
    unreadable += [problem.as_error() for problem in loaded.errors]
    tester = OssecTester(loaded.rules)
    results = []
    for path in tests:
        try:
            cases = read_tests(path, dialect_in(rules, dialect))
        except RuleError as error:
            unreadable.append(error)
            continue
        results += run_tests(cases, tester)
    return results


def _batch(lines: Sequence[str]) -> Batch:
    encoded = [line.encode("utf-8", "surrogateescape") for line in lines]
    lengths = np.asarray([len(line) for line in encoded], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    return Batch(
        origin=Origin(REPLAY_HOST_ID, "stdin"),
        number=0,
        block=b"".join(line + b"\n" for line in encoded),
        starts=starts,
        ends=starts + lengths,
        positions=np.arange(1, len(lines) + 1, dtype=np.int64),
        read_at=_READ_AT,
        format=RecordFormat.SYSLOG,
        trust=Trust.ATTESTED,
        year=2026,
        spooled=True,
    )

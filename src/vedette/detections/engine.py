"""Batches in, findings out: matching and correlation of one process, in order.
Counterpart: `app` feeds it from the sources and takes its outcome to the commit point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vedette.detections.correlate import Correlator
from vedette.detections.match import Matcher
from vedette.detections.matches import Matches
from vedette.detections.stretch import Outcome, Stretch
from vedette.model.batch import Batch
from vedette.model.protocols import Counter
from vedette.model.reasons import DropReason
from vedette.model.rules import tests_of


@dataclass(frozen=True, slots=True)
class Engine:
    """One matcher and one correlator over the same rules."""

    matcher: Matcher
    correlator: Correlator
    counter: Counter
    watch: Callable[[Batch, Matches], None] | None = None
    """Sees what matched before it is correlated."""

    def process(self, batch: Batch) -> Outcome:
        """Judge `batch`, which must follow the one before it in ingest order."""
        matches = self.matcher.match(batch)
        self.counter.add("records", n=matches.n)
        if matches.unreadable:
            self.counter.add("records_dropped", DropReason.HEADER_UNREADABLE, matches.unreadable)
        for reason, n in batch.dropped.items():
            self.counter.add("records_dropped", reason, n)
        if self.watch is not None:
            self.watch(batch, matches)
        outcome = self.correlator.process(stretch_of(batch, matches))
        outcome.skewed = matches.skewed
        if matches.undecided:
            self.counter.add("values_undecided", n=matches.undecided)
            outcome.undecided = self._undecided()
        if matches.skewed:
            self.counter.add("records_skewed", n=matches.skewed)
        return outcome

    def _undecided(self) -> tuple[str, ...]:
        """Ids of the rules that ask what could not be decided."""
        leaves = self.matcher.leaves.undecided_since()
        rules = self.matcher.rules
        return tuple(rule.id for rule in rules if any(leaf in leaves for leaf in tests_of(rule.when)))


def stretch_of(
    batch: Batch, matches: Matches, raw: Callable[[int], bytes] | None = None, *, samples: bool = True
) -> Stretch:
    """The matches of one batch as the correlator takes them."""
    rows = matches.rows
    highs: Sequence[int] = [matches.batch_high] if matches.n else []
    return Stretch(
        matches=matches,
        origins=[batch.origin] if matches.n else [],
        codes=np.zeros(len(rows), dtype=np.int64),
        highs=highs,
        created=batch.read_at,
        raw=raw or (lambda index: batch.raw(int(rows[index]))),
        samples=samples,
    )

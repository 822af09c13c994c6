"""Similar lines put together: a fixed-depth tree of words, whose places that differ become `<*>`.
Counterpart: `app.search_pipes` feeds it for `| clusters` and `| new`. Source: He et al., Drain, ICWS 2017."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST, CHILDREN, DEPTH, LONGEST, WORDS = 2_000, 100, 2, 2_000, 100
"""Clusters kept, branches of a node, words the tree looks at, characters and words of a line looked at."""
SIMILAR = 0.5
ANY = "<*>"

# What differs between equal events before anything is compared: numbers, addresses, hashes, times.
_VARIABLE = re.compile(
    r"(?<![A-Za-z0-9])(?:0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){2,7}"
    r"|[0-9]+(?:[.:,/-][0-9]+)*)(?![A-Za-z0-9])"
)
_DIGIT = re.compile("[0-9]")


@dataclass(slots=True)
class Cluster:
    """Lines alike. words: ANY where they differ; count, first, last (microseconds), example: of the period at hand.

    before: how many there were in the period before.
    """

    words: list[str]
    count: int = 0
    before: int = 0
    first: int = 0
    last: int = 0
    example: str = ""

    @property
    def text(self) -> str:
        """The words as a line."""
        return " ".join(self.words)


class Clusters:
    """Clusters of the lines given so far; bounded. full: whether lines were left out because there are too many."""

    def __init__(self) -> None:
        self._leaves: dict[tuple[str, ...], list[Cluster]] = {}
        self._branches: dict[tuple[str, ...], set[str]] = {}
        self._known: dict[str, Cluster] = {}
        self._all: list[Cluster] = []
        self.full = False

    def begin(self) -> None:
        """What comes from now on is the period at hand; what came was the one before."""
        for cluster in self._all:
            cluster.before, cluster.count, cluster.example = cluster.count, 0, ""

    def add(self, text: str, time: int) -> None:
        """One line."""
        masked = _VARIABLE.sub(ANY, text[:LONGEST])
        cluster = self._known.get(masked)
        if cluster is None:
            cluster = self._find(masked.split(maxsplit=WORDS)[:WORDS])
            if cluster is None:
                self.full = True
                return
            if len(self._known) < 10 * MOST:
                self._known[masked] = cluster
        if not cluster.count:
            cluster.first = cluster.last = time
            cluster.example = text[:LONGEST]
        cluster.count += 1
        cluster.first, cluster.last = min(cluster.first, time), max(cluster.last, time)

    def by_count(self) -> list[Cluster]:
        """The most frequent first."""
        return sorted(self._all, key=lambda one: (-one.count, one.text))

    def _find(self, words: list[str]) -> Cluster | None:
        path: tuple[str, ...] = (str(len(words)),)
        for word in words[:DEPTH]:
            branches = self._branches.setdefault(path, set())
            if _DIGIT.search(word) or (word not in branches and len(branches) >= CHILDREN):
                word = ANY
            branches.add(word)
            path = (*path, word)
        leaf = self._leaves.setdefault(path, [])
        best, most = None, -1.0
        for cluster in leaf:
            same = sum(a == b for a, b in zip(cluster.words, words, strict=True) if a != ANY or b == ANY)
            ratio = same / len(words) if words else 1.0
            if ratio > most:
                best, most = cluster, ratio
        if best is not None and most >= SIMILAR:
            best.words = [a if a == b else ANY for a, b in zip(best.words, words, strict=True)]
            return best
        if len(self._all) >= MOST:
            return None
        made = Cluster(words)
        leaf.append(made)
        self._all.append(made)
        return made

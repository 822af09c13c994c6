"""Hosts that should be alike, held against each other: what one has and the others have not, without baseline or rule.
Counterpart: baselines and the facts that the source `rootkit` tells are what is compared; `cli.integrity` prints it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vedette.model.integrity import FileType
from vedette.sources.integrity.baseline import Baseline, Row
from vedette.sources.integrity.digest import entry

FILE = "file"
AMONG_THOSE = "file told"
"""How kinds begin of which only hosts that told something are compared: that others did not means nothing."""
MISSING = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing of one host. key: what is compared, as a path. value: what it is there; empty = it is not there."""

    host: str
    kind: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Odd:
    """Hosts of which something differs from what it is on most. of: how many hosts were compared; alike: how many of
    them have the usual value."""

    kind: str
    key: str
    value: str
    usual: str
    hosts: tuple[str, ...]
    of: int
    alike: int

    @property
    def words(self) -> str:
        """For people."""
        what = f"{self.value or 'not there'}, on the others {self.usual or 'not there'}"
        return f"{len(self.hosts)} of {self.of} differ: {self.kind} {self.key}: {what}: {', '.join(self.hosts)}"


def odd_ones(facts: Iterable[Fact], hosts: Collection[str], *, least: int = 5, most: float = 0.1) -> Iterator[Odd]:
    """What differs on a few. facts: sorted by kind and key, at most one a host and key. hosts: all that are compared.

    Below `least` hosts nothing is usual, and nothing is told. Told is a value that at most the share `most` of them has
    (one host always may), where all the rest but that share agree: during a staged upgrade nobody is odd.
    """
    if len(hosts) < least:
        return
    for (kind, key), found in groupby(facts, key=lambda fact: (fact.kind, fact.key)):
        by_host = {one.host: one.value for one in found if one.host in hosts}
        if not kind.startswith(AMONG_THOSE):
            by_host = dict.fromkeys(hosts, MISSING) | by_host
        elif len(by_host) < least:
            continue
        few = max(1, int(len(by_host) * most))
        counted = Counter(by_host.values())
        usual, alike = counted.most_common(1)[0]
        if alike < len(by_host) - few:
            continue
        for value in sorted(counted.keys() - {usual}):
            having = tuple(sorted(host for host, one in by_host.items() if one == value))
            yield Odd(kind, key, value, usual, having, len(by_host), alike)


def facts_of(baselines: Sequence[tuple[str, Baseline]]) -> Iterator[Fact]:
    """The files of many hosts, path by path: host and its baseline. Memory does not grow with the files."""

    def told(host: str, baseline: Baseline) -> Iterator[tuple[tuple[bytes, bytes], str, Row]]:
        return ((row.key, host, row) for row in baseline.rows())

    streams = [told(host, baseline) for host, baseline in baselines]
    for _, host, row in heapq.merge(*streams, key=lambda one: (one[0], one[1])):
        path = row.folder.rstrip(b"/") + b"/" + row.name
        yield Fact(host, FILE, path.decode("utf-8", "surrogateescape"), _value(path, row))


def _value(path: bytes, row: Row) -> str:
    """What must be the same on hosts that are alike: not times, sizes of folders and numbers of inodes."""
    one = entry(path, row.read)
    words = [one.type.value, f"{one.mode:04o}", f"{one.uid}:{one.gid}"]
    if one.type is FileType.FILE:
        words.append(one.sha256.hex()[:32])
    elif one.type is FileType.SYMLINK:
        words.append("to " + one.target.decode("utf-8", "surrogateescape"))
    return " ".join(words)


class Told:
    """Facts that hosts told, as flat records: of each host the newest of a kind.

    Records are `facts-told` of the source `rootkit`, and changes of files of packages that the source `integrity` told:
    those are held against the hosts that told of the same file of the same version of the package. A host is called by
    `host.name`, or `host.id` where the record has none.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], tuple[str, list[str]]] = {}
        self._files: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._same: dict[str, str] = {}
        """Like hosts say the same: each fact is held once."""

    def add(self, record: Mapping[str, Any]) -> None:
        """One more record, in any order; what tells no facts is passed by."""
        host = str(record.get("host.name") or record.get("host.id") or "")
        if record.get("event.action") in ("file-added", "file-changed") and record.get("package.version"):
            package = f"{record.get('package.name')} {record['package.version']}"
            about = (host, f"{AMONG_THOSE} of {package}", str(record.get("file.path", "")))
            told_at, digest = str(record.get("@timestamp", "")), str(record.get("file.hash.sha256", ""))
            if host and digest and told_at >= self._files.get(about, ("", ""))[0]:
                self._files[about] = told_at, digest[:32]
        if record.get("event.action") != "facts-told":
            return
        kind, at = str(record.get("vedette.rootkit.kind", "")), str(record.get("@timestamp", ""))
        told = record.get("vedette.rootkit.facts") or []
        if host and kind and at >= self._newest.get((host, kind), ("", []))[0]:
            facts = [told] if isinstance(told, str) else [str(one) for one in told]
            self._newest[host, kind] = at, [self._same.setdefault(one, one) for one in facts]

    def facts(self) -> list[Fact]:
        """All of them, sorted by kind and key."""
        return [fact for kind in self.kinds() for fact in self._facts(kind)]

    def kinds(self) -> list[str]:
        """What is told of, in order."""
        return sorted({kind for _, kind in self._newest} | {kind for _, kind, _ in self._files})

    def hosts(self, kind: str) -> set[str]:
        """Who told of a kind, though it be that there is nothing."""
        return {host for host, one in self._newest if one == kind} | {
            host for host, one, _ in self._files if one == kind
        }

    def odd(self, kind: str, hosts: Collection[str], *, least: int = 5, most: float = 0.1) -> Iterator[Odd]:
        """What a few of these hosts have otherwise; those that did not tell of the kind are not compared."""
        return odd_ones(self._facts(kind), self.hosts(kind) & set(hosts), least=least, most=most)

    def _facts(self, kind: str) -> list[Fact]:
        found = [Fact(host, kind, path, one[1]) for (host, of, path), one in self._files.items() if of == kind]
        for (host, of), (_, facts) in self._newest.items():
            if of == kind:
                for fact in facts:
                    key, _, value = fact.partition(" = ")
                    found.append(Fact(host, kind, key, value or "there"))
        return sorted(found, key=lambda one: (one.key, one.host))


def facts_told(records: Iterable[Mapping[str, Any]]) -> list[Fact]:
    """The facts in records with flat names, as `Told` takes them."""
    told = Told()
    for record in records:
        told.add(record)
    return told.facts()

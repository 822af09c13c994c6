"""A tiny parser of `key=value` records and rules built by hand: what the engine's own tests run on.
Counterpart: the real parser is `vedette.parsers`; the engine must not know the difference."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

import numpy as np

from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.match import Matcher
from vedette.model.batch import Batch, Origin, Trust, split_lines
from vedette.model.events import Column, Kinds, RecordKind, Table
from vedette.model.findings import Finding
from vedette.model.rules import Rule

SECOND = 1_000_000
FIELDS = (
    "event.action",
    "user.name",
    "source.ip",
    "source.port",
    "host.name",
    "vedette.ssh.method",
    "process.command_line",
)


def kinds_of(services: Sequence[str]) -> Kinds:
    """Linux records of these services, sshd's and sudo's also of `auth`."""
    groups = {name: frozenset({name} | ({"auth"} if name in ("sshd", "sudo") else set())) for name in services}
    return Kinds.from_kinds([RecordKind("linux", services=groups[name]) for name in services])


class Tallies:
    """A counter to look into."""

    def __init__(self) -> None:
        self.seen: Tally[tuple[str, str]] = Tally()

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        self.seen[name, str(reason.value if isinstance(reason, Enum) else reason)] += n


class PairParser:
    """Records like `t=12 service=sshd user.name=bob repeat=3`; t in seconds."""

    def parse(self, batch: Batch) -> Table:
        rows = [
            dict(pair.split("=", 1) for pair in batch.raw(row).decode().split() if "=" in pair)
            for row in range(len(batch))
        ]
        table = Table(
            batch,
            time=np.asarray([int(float(row.get("t", "0")) * SECOND) for row in rows], dtype=np.int64),
            kinds=kinds_of([row.get("service", "sshd") for row in rows]),
            repeat=np.asarray([int(row.get("repeat", "1")) for row in rows], dtype=np.int32),
        )
        for field in FIELDS:
            table.provide(field, lambda field=field: Column.from_values([row.get(field) for row in rows]))
        return table


def batch_of(
    lines: Sequence[str], *, number: int = 0, first: int = 1, trust: Trust = Trust.ATTESTED, source: str = "stdin"
) -> Batch:
    block = "".join(line + "\n" for line in lines).encode()
    starts, ends = split_lines(block)
    return Batch(
        origin=Origin("host-1", source),
        number=number,
        block=block,
        starts=starts,
        ends=ends,
        positions=np.arange(first, first + len(starts), dtype=np.int64),
        read_at=0,
        trust=trust,
    )


def engine_of(rules: Sequence[Rule], **options: object) -> Engine:
    tallies = Tallies()
    return Engine(Matcher(rules, PairParser()), Correlator(rules, counter=tallies, **options), tallies)  # type: ignore[arg-type]


def run(rules: Sequence[Rule], lines: Sequence[str], cuts: Sequence[int] = (), **options: object) -> list[Finding]:
    """The findings over `lines`, cut into batches before each index in `cuts`."""
    engine = engine_of(rules, **options)
    bounds = [0, *sorted(set(cuts)), len(lines)]
    findings = []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        batch = batch_of(lines[begin:end], number=number, first=begin + 1)
        findings.extend(engine.process(batch).findings)
    return findings

"""Like hosts held against each other: baselines that were gathered, and facts that the lake holds.
Counterpart: `sources.integrity.alike` compares; `cli.integrity` prints what comes out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from vedette.model.errors import Location, StateError, VedetteError
from vedette.sources.integrity.alike import Odd, facts_of, facts_told, odd_ones
from vedette.sources.integrity.baseline import Baseline


def odd_hosts(baselines: Sequence[Path], facts: Path | None, *, least: int, most: float) -> Iterator[dict[str, Any]]:
    """Each thing that a few hosts have otherwise, with flat names. VedetteError where too few can be compared.

    A baseline is called as its file, without what follows the last dot. facts: JSON lines, `-` = standard input.
    """
    if not baselines and facts is None:
        raise VedetteError("nothing to compare", hint="give baselines of like hosts, or --facts")
    with ExitStack() as stack:
        opened = [(path.stem, stack.enter_context(Baseline(path))) for path in baselines]
        hosts = {host for host, _ in opened}
        if len(hosts) != len(opened):
            raise VedetteError("two baselines have the same name", hint="name each file after its host")
        if opened:
            if len({tuple(one.header.trees) for _, one in opened}) != 1:
                raise StateError("the baselines are of different trees", hint="make each with the same --tree")
            yield from _told(odd_ones(facts_of(opened), _enough(hosts, least), least=least, most=most))
    if facts is not None:
        found = facts_told(_records(facts))
        by_host = {one.host for one in found}
        yield from _told(odd_ones(found, _enough(by_host, least), least=least, most=most))


def _enough(hosts: set[str], least: int) -> set[str]:
    if len(hosts) < least:
        raise VedetteError(
            f"{len(hosts)} hosts are too few to say what is usual", hint=f"--least {least} or more of them"
        )
    return hosts


def _told(odd: Iterable[Odd]) -> Iterator[dict[str, Any]]:
    for one in odd:
        yield {
            "message": one.words,
            "kind": one.kind,
            "key": one.key,
            "value": one.value,
            "usual": one.usual,
            "host.name": list(one.hosts),
            "count": len(one.hosts),
            "of": one.of,
        }


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = sys.stdin.buffer.readlines() if str(path) == "-" else path.read_bytes().splitlines()
    except OSError as error:
        raise VedetteError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise VedetteError("not a JSON object", location=Location(str(path), number)) from None
        if isinstance(record, dict):
            yield record

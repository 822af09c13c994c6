"""Our verdicts beside those of an independent judge, pySigma's rules in SQLite: `python -m bench.agreement`.
Counterpart: `agreement_known.yml` argues each difference; docs/agreement.md is what came out last."""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import yaml
from sigma.exceptions import SigmaError
from sigma.modifiers import SigmaAllModifier
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import (
    SigmaBool,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExpansion,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SpecialChars,
)

from vedette.app.counters import Counters
from vedette.detections.match import Matcher
from vedette.model.batch import REPLAY_HOST_ID, Batch, Origin, RecordFormat
from vedette.model.rules import LogSource, Rule
from vedette.parsers.json import JsonParser
from vedette.rules.loading import load
from vedette.rules.regression import records_of

Event = dict[str, str | int | float | bool | None]
Pair = tuple[str, int]
"""A rule and the number of the event that it matches."""

KNOWN = Path(__file__).with_name("agreement_known.yml")
FOLDERS = ("rules", "rules-emerging-threats", "rules-threat-hunting")


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Sample:
    """One event: as our parsers read it, and as the judge's table holds it. name: where it is from."""

    name: str
    raw: bytes
    flat: Event


_SYSTEM = ("EventID", "Channel", "Computer", "Level", "Task", "Opcode", "Keywords", "Version")


def flat(event: Mapping[str, Any]) -> Event:
    """A Windows event as one row: its data under their own names, and what rules ask of its head."""
    inner = event["Event"]
    system, data = inner["System"], inner.get("EventData") or inner.get("UserData") or {}
    row: Event = {name: system[name] for name in _SYSTEM if name in system}
    row["Provider_Name"] = system["Provider"]["#attributes"]["Name"]
    # Some providers write names with blanks, which rules leave out.
    row.update({name.replace(" ", ""): value for name, value in data.items() if not isinstance(value, dict | list)})
    return row


def samples_of(folder: Path) -> list[Sample]:
    """Every event of SigmaHQ's regression folders."""
    found = []
    for file in sorted(folder.rglob("*.json")):
        for number, raw in enumerate(records_of(file.read_bytes())):
            found.append(Sample(f"{file.relative_to(folder).as_posix()}:{number}", raw, flat(orjson.loads(raw))))
    return found


# ------------------------------------------------------------------------------------- events made from the rules


class Maker:
    """Events that hold what a rule looks for, or nearly: its own values, some left out, some of another case."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def events(self, rule: SigmaRule, n: int) -> Iterator[Event]:
        """`n` of them; fewer where a rule looks for nothing in a field."""
        parts = list(rule.detection.detections.items())
        wanted = [one for one in parts if not one[0].startswith(("filter", "exclu", "false"))] or parts
        for number in range(n):
            pieces: dict[str, list[_Piece]] = {}
            for _, detection in wanted if number % 3 == 0 else parts:
                if number % 3 < 2 or self._random.random() < 0.6:
                    self._gather(detection, pieces)
            event = {name: self._value(some) for name, some in pieces.items()}
            if event:
                yield event

    def _gather(self, detection: SigmaDetection | SigmaDetectionItem, pieces: dict[str, list[_Piece]]) -> None:
        if isinstance(detection, SigmaDetectionItem):
            self._item(detection, pieces)
            return
        inner = list(detection.detection_items)
        # A list of maps is alternatives; a map is all of its items.
        if inner and isinstance(inner[0], SigmaDetection):
            inner = [self._random.choice(inner)]
        for one in inner:
            self._gather(one, pieces)

    def _item(self, item: SigmaDetectionItem, pieces: dict[str, list[_Piece]]) -> None:
        values = list(item.value)
        if not values or self._random.random() < 0.03:
            return
        every = SigmaAllModifier in item.modifiers
        for value in values if every else [self._random.choice(values)]:
            while isinstance(value, SigmaExpansion):
                value = self._random.choice(value.values)
            made = self._piece(value)
            if made is not None:
                pieces.setdefault(item.field or "message", []).append(made)

    def _piece(self, value: object) -> _Piece | None:
        pick = self._random
        match value:
            case SigmaString():
                parts = list(value.s)
                if not all(isinstance(part, str | SpecialChars) for part in parts):
                    return None  # a placeholder
                filled = "".join(part if isinstance(part, str) else self._filling(part) for part in parts)
                if pick.random() < 0.2:
                    filled = filled.swapcase()
                many = SpecialChars.WILDCARD_MULTI
                return _Piece(filled, bool(parts) and parts[0] is many, bool(parts) and parts[-1] is many)
            case SigmaNumber():
                return _Piece(value.number, False, False)
            case SigmaBool():
                return _Piece(value.boolean, False, False)
            case SigmaCompareExpression():
                return _Piece(value.number.number + pick.choice((-1, 0, 1)), False, False)
            case SigmaCIDRExpression():
                network = value.network
                return _Piece(str(network[pick.randrange(min(network.num_addresses, 2**31))]), False, False)
            case SigmaRegularExpression():
                made = from_pattern(str(value.regexp), pick)
                return None if made is None else _Piece(made, True, True)
            case SigmaNull():
                return None
        return None

    def _filling(self, wildcard: SpecialChars) -> str:
        many = wildcard is SpecialChars.WILDCARD_MULTI
        return self._random.choice(("", "", "x", "Zz 9", "\\") if many else ("q", "7", "."))

    def _value(self, pieces: list[_Piece]) -> str | int | float | bool:
        """One value of all that is asked of a field: what stands first, what anywhere, what last."""
        whole = [one for one in pieces if not (one.open_front or one.open_back)]
        if whole:
            return self._random.choice(whole).text
        first = [str(one.text) for one in pieces if not one.open_front]
        last = [str(one.text) for one in pieces if not one.open_back]
        middle = [str(one.text) for one in pieces if one.open_front and one.open_back]
        return "".join([*first[:1], *middle, *last[:1]])


@dataclass(frozen=True)
class _Piece:
    """Text that a field must hold; open where anything may stand before or behind it."""

    text: str | int | float | bool
    open_front: bool
    open_back: bool


def from_pattern(pattern: str, pick: random.Random) -> str | None:
    """A text that a regular expression should find; None where it is too involved to make one."""
    parser = re._parser  # type: ignore[attr-defined]
    try:
        return "".join(_of_tree(parser.parse(pattern), pick))
    except (re.error, ValueError, OverflowError, RecursionError):
        return None


def _of_tree(tree: Iterable[tuple[Any, Any]], pick: random.Random) -> Iterator[str]:
    for op, argument in tree:
        match str(op):
            case "LITERAL":
                yield chr(argument)
            case "NOT_LITERAL":
                yield "~" if argument != ord("~") else "-"
            case "ANY":
                yield pick.choice("x9 ")
            case "IN":
                yield _of_class(argument, pick)
            case "BRANCH":
                yield from _of_tree(pick.choice(argument[1]), pick)
            case "SUBPATTERN":
                yield from _of_tree(argument[3], pick)
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, inner = argument
                for _ in range(pick.randint(low, min(int(high), low + 3))):
                    yield from _of_tree(inner, pick)
            case "AT":
                pass
            case other:
                raise ValueError(other)


def _of_class(members: Sequence[tuple[Any, Any]], pick: random.Random) -> str:
    letters = {"CATEGORY_DIGIT": "07", "CATEGORY_WORD": "a_Z5", "CATEGORY_SPACE": " \t", "CATEGORY_NOT_SPACE": "x"}
    if str(members[0][0]) == "NEGATE":
        raise ValueError("negated")
    op, argument = pick.choice(members)
    match str(op):
        case "LITERAL":
            return chr(argument)
        case "RANGE":
            return chr(pick.randint(*argument))
        case "CATEGORY":
            return pick.choice(letters[str(argument)]) if str(argument) in letters else _no_class(argument)
    return _no_class(op)


def _no_class(what: object) -> str:
    raise ValueError(str(what))


# -------------------------------------------------------------------------------------------------------- verdicts


def ours(rules: Sequence[Rule], samples: Sequence[Sample]) -> set[Pair]:
    """What our engine says of JSON events."""
    ends = np.asarray(list(accumulate(len(one.raw) + 1 for one in samples)), dtype=np.int64) - 1
    batch = Batch(
        origin=Origin(REPLAY_HOST_ID, "agreement"),
        number=0,
        block=b"".join(one.raw + b"\n" for one in samples),
        starts=ends - [len(one.raw) for one in samples],
        ends=ends,
        positions=np.arange(len(samples), dtype=np.int64),
        read_at=0,
        format=RecordFormat.JSON,
        spooled=True,
    )
    matches = Matcher(rules, JsonParser(Counters())).match(batch)
    return {(rules[index].id, int(matches.rows[at])) for index, hits in matches.hits.items() for at in hits.tolist()}


class Judge:
    """pySigma's reading of rules as SQL, over a table of flat events; it shares no code with our engine."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        from sigma.backends.sqlite import sqliteBackend

        columns: dict[str, str] = {}

        class Backend(sqliteBackend):  # type: ignore[misc]
            """Columns by number: names of fields tell case apart, SQLite's do not."""

            def escape_and_quote_field(self, field: str) -> str:
                return columns.setdefault(field, f"c{len(columns)}")

        self._backend = Backend(fulltext_field="every value", collate_nocase=False)
        self._columns = columns
        self._samples = samples
        self._filled: set[str] = set()
        self._table = sqlite3.connect(":memory:")
        self._table.create_function("REGEXP", 2, _regexp, deterministic=True)
        self._table.execute("CREATE TABLE logs (n INTEGER PRIMARY KEY)")
        self._table.executemany("INSERT INTO logs VALUES (?)", [(n,) for n in range(len(samples))])

    def matched(self, rule: SigmaRule) -> set[int]:
        """The numbers of the events it matches; SigmaError where the judge cannot read it."""
        found: set[int] = set()
        for query in self._backend.convert_rule(rule):
            self._fill()
            condition = str(query).split(" WHERE ", 1)[1]
            found.update(n for (n,) in self._table.execute(f"SELECT n FROM logs WHERE {condition}"))
        return found

    def _fill(self) -> None:
        """Columns that no rule before asked for."""
        for name, column in self._columns.items():
            if column in self._filled:
                continue
            self._filled.add(column)
            self._table.execute(f"ALTER TABLE logs ADD COLUMN {column} TEXT COLLATE NOCASE")
            rows = [(self._cell(one, name), n) for n, one in enumerate(self._samples)]
            self._table.executemany(
                f"UPDATE logs SET {column} = ? WHERE n = ?", [row for row in rows if row[0] is not None]
            )

    @staticmethod
    def _cell(sample: Sample, name: str) -> str | int | float | None:
        if name == "every value":
            return "\n".join(one for one in sample.flat.values() if isinstance(one, str))
        value = sample.flat.get(name)
        return str(value).lower() if isinstance(value, bool) else value


# ---------------------------------------------------------------------------------------------------- log sources


class Coverage:
    """Which Windows events a log source covers, as SigmaHQ's own table for its scanner has it."""

    def __init__(self, table: Path) -> None:
        sources: dict[str, Any] = yaml.load(table.read_text(), yaml.CSafeLoader)["logsources"]
        self._entries = list(sources.values())

    def covers(self, logsource: LogSource, event: Event) -> bool:
        """A rule that names no more than a product looks at all of its events."""
        if logsource.product not in ("", "windows"):
            return False
        if logsource.category:
            return any(
                self._service(entry["rewrite"]["service"], event)
                and all(event.get(name) == value for name, value in entry["conditions"].items())
                for entry in self._entries
                if entry.get("category") == logsource.category and entry.get("product") == "windows"
            ) and (not logsource.service or self._service(logsource.service, event))
        return not logsource.service or self._service(logsource.service, event)

    def _service(self, service: str, event: Event) -> bool:
        channel = f"WinEventLog:{event.get('Channel')}".lower()
        return any(
            channel in (str(source).lower() for source in entry.get("sources", ()))
            for entry in self._entries
            if entry.get("service") == service and "category" not in entry
        )


# ---------------------------------------------------------------------------------------------------- comparison


@dataclass
class Outcome:
    """One comparison. Differences are by rule id, with what they were seen on."""

    what: str
    rules: int
    events: int
    both: int
    only_ours: dict[str, list[Sample]] = field(default_factory=dict)
    only_theirs: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """How many verdicts were compared."""
        return self.rules * self.events

    def differences(self) -> Iterator[tuple[str, str, Sample]]:
        """Rule id, who alone says it matches, and the event."""
        for who, found in (("ours", self.only_ours), ("theirs", self.only_theirs)):
            for rule, samples in found.items():
                for sample in samples:
                    yield rule, who, sample


@dataclass
class Rules:
    """The same rules as we read them and as pySigma does; apart: those that one of us cannot read, with the reason."""

    ours: list[Rule]
    theirs: list[SigmaRule]
    apart: dict[str, str]


def rules_of(folders: Sequence[Path]) -> Rules:
    """The detection rules in `folders` that both can read. A correlation is no verdict on one event."""
    loaded = load(folders, keep_going=True)
    own = {rule.id: replace(rule, silent=False) for rule in loaded.rules if rule.correlate is None}
    apart = {problem.rule_id: f"we: {problem.message}" for problem in loaded.errors}
    theirs: dict[str, SigmaRule] = {}
    judge = Judge([])
    for folder in folders:
        for file in sorted(folder.rglob("*.yml")):
            for document in yaml.load_all(file.read_text(), yaml.CSafeLoader):
                if "detection" not in document:
                    continue
                rule_id = str(document["id"])
                try:
                    rule = SigmaRule.from_dict(document)
                    judge.matched(rule)
                except (SigmaError, sqlite3.Error) as error:
                    apart.setdefault(rule_id, f"the judge: {error}")
                else:
                    theirs[rule_id] = rule
    for rule_id in own.keys() ^ theirs.keys():
        apart.setdefault(rule_id, "we: not loaded" if rule_id in theirs else "the judge: not there")
    both = [rule_id for rule_id in theirs if rule_id not in apart]
    return Rules([own[one] for one in both], [theirs[one] for one in both], apart)


def compare(what: str, rules: Rules, samples: Sequence[Sample], coverage: Coverage | None = None) -> Outcome:
    """Every rule over every event; without `coverage` its log source is left out, so that each looks at all of them."""
    own = rules.ours if coverage else [replace(rule, logsource=LogSource()) for rule in rules.ours]
    mine = ours(own, samples)
    judge = Judge(samples)
    verdicts: set[Pair] = set()
    for rule, sigma in zip(own, rules.theirs, strict=True):
        for n in judge.matched(sigma):
            if coverage is None or coverage.covers(rule.logsource, samples[n].flat):
                verdicts.add((rule.id, n))
    outcome = Outcome(what, len(own), len(samples), len(mine & verdicts))
    for pairs, found in ((mine - verdicts, outcome.only_ours), (verdicts - mine, outcome.only_theirs)):
        for rule_id, n in sorted(pairs):
            found.setdefault(rule_id, []).append(samples[n])
    return outcome


def made(rules: Rules, seed: int, each: int) -> list[Sample]:
    """Events made from each rule."""
    maker = Maker(seed)
    return [
        Sample(f"{rule.id}:{n}", orjson.dumps(event), event)
        for rule in rules.theirs
        for n, event in enumerate(maker.events(rule, each))
    ]


@dataclass(frozen=True)
class Known:
    """A difference that is understood. rule: its id; only: who alone says that it matches."""

    rule: str
    only: str
    because: str


def known() -> list[Known]:
    """The differences that are argued."""
    return [Known(**entry) for entry in yaml.load(KNOWN.read_text(), yaml.CSafeLoader) or []]


def unknown(outcome: Outcome, argued: Sequence[Known]) -> list[str]:
    """The differences nobody has argued, in words."""
    fine = {(one.rule, one.only) for one in argued}
    return [
        f"{outcome.what}: {rule}: only {who}: {sample.name}: {sample.raw.decode('utf-8', 'replace')[:300]}"
        for rule, who, sample in outcome.differences()
        if (rule, who) not in fine
    ]


def comparisons(
    corpus: Path, *, seeds: Sequence[int], each: int, say: Callable[[str], None] = lambda _: None
) -> tuple[Rules, list[Outcome]]:
    """All comparisons over `corpus` (a checkout of SigmaHQ's rules, with thor.yml beside them)."""
    rules = rules_of([corpus / name for name in FOLDERS])
    say(f"{len(rules.ours)} rules that both read")
    samples = samples_of(corpus / "regression_data")
    outcomes = [
        compare("regression samples", rules, samples, Coverage(corpus / "thor.yml")),
        compare("regression samples, log sources left out", rules, samples),
    ]
    for seed in seeds:
        say(f"events made from the rules, seed {seed}")
        outcomes.append(
            compare(f"events made from the rules (seed {seed}), log sources left out", rules, made(rules, seed, each))
        )
    return rules, outcomes


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The agreement table as Markdown."""
    lines = [
        "| rules over | rules | events | pairs compared | both match | only ours | only theirs |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in outcomes:
        mine, theirs = (sum(map(len, found.values())) for found in (one.only_ours, one.only_theirs))
        lines.append(
            f"| {one.what} | {one.rules:,} | {one.events:,} | {one.pairs:,} | {one.both:,} | {mine:,} | {theirs:,} |"
        )
    return lines


def main() -> int:
    """Exit 1 where a difference is not argued."""
    parser = argparse.ArgumentParser(prog="python -m bench.agreement", description="Our verdicts beside pySigma's.")
    parser.add_argument("corpus", type=Path, help="checkout of SigmaHQ/sigma: rules*, regression_data, thor.yml")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="of the events made from the rules")
    parser.add_argument("--each", type=int, default=3, help="events made from each rule (default 3)")
    given = parser.parse_args()
    rules, outcomes = comparisons(
        given.corpus, seeds=given.seeds, each=given.each, say=lambda text: print(text, file=sys.stderr, flush=True)
    )
    print("\n".join(table(outcomes)))
    print(f"\nNot compared, because one side cannot read them ({len(rules.apart)}):\n")
    for rule_id, why in sorted(rules.apart.items()):
        print(f"- {rule_id}: {why}")
    argued = known()
    met = {(rule, who) for outcome in outcomes for rule, who, _ in outcome.differences()}
    print("\nDifferences:\n")
    for one in argued:
        seen = "" if (one.rule, one.only) in met else " (not met in this run)"
        print(f"- {one.rule}, only {one.only}: {one.because}{seen}")
    left = [line for outcome in outcomes for line in unknown(outcome, argued)]
    for line in left:
        print(f"- NOT ARGUED: {line}")
    return 1 if left else 0


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _regexp(pattern: str, value: object) -> bool:
    return value is not None and _pattern(pattern).search(str(value)) is not None


if __name__ == "__main__":
    sys.exit(main())

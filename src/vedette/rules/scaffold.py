"""A rule to begin with, from sample records: what those share that must fire, and what tells them from the others.
Counterpart: `app.scaffolding` reads the samples and proves the draft; `cli.rules.beginning` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any as Anything

from vedette.model.errors import VedetteError
from vedette.model.events import RecordKind, Scalar, Value
from vedette.model.fields import FIELDS
from vedette.model.levels import Level
from vedette.model.rules import LogSource, Op

VALUES_LIMIT = 5
"""More different values than these are no list a person would write."""
CASES_LIMIT = 3
WORD = 4
"""Characters a word, a common beginning or a common end has at least."""

# What happened, in the words of those who wrote the record: looked at first, in this order.
_LEADING = (
    "event.action",
    "eventSource",
    "eventName",
    "verb",
    "objectRef.resource",
    "EventID",
    "type",
    "operationName",
    "OperationName",
    "eventType",
    "Operation",
    "action",
    "cs-method",
    "http.request.method",
)
_PATHS = (
    "Image",
    "OriginalFileName",
    "ParentImage",
    "TargetFilename",
    "ImageLoaded",
    "TargetObject",
    "exe",
    "PipeName",
)
_TEXTS = ("CommandLine", "ScriptBlockText", "process.command_line", "cs-uri-query", "c-uri", "url.original", "message")
# Says when, where or which one, and never what: a rule that asks for it fits one record.
_NOT_ASKED = re.compile(
    r"@timestamp|event\.(?:created|ingested|original|kind|category)|host\..*|process\.(?:pid|name)|log\..*"
    r"|vedette\.(?:repeat|trust|service|pattern|source\..*|ssh\.connection|ssh\.fingerprint|session\.id)"
    r"|(?:source|destination)\..*|user\.id|message"
    r"|UtcTime|TimeCreated|EventRecordID|.*(?:Guid|GUID|guid)|.*(?<!Event)I[dD]|Computer|Version|Level|Task|Opcode"
    r"|Keywords|.*Hash(?:es)?|RuleName|Channel|Provider_Name|.*[tT]ime(?:stamp)?|CreationUtcTime|auid|ses|pid|ppid"
)
_ID_LIKE = re.compile(
    r"[{(]?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}[)}]?|[0-9a-fA-F]{16,}|0x[0-9a-fA-F]+|\d{6,}"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*|\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]+:[0-9a-f.:]*"
)
_WORDS = re.compile(rf"[A-Za-z_][A-Za-z_-]{{{WORD - 1},}}")
_SLUG = re.compile(r"[^a-z0-9]+")


class ScaffoldError(VedetteError):
    """Samples no rule can be made of."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A record and what the parsers made of it. place: where a person finds it."""

    raw: bytes
    fields: Mapping[str, Value]
    kind: RecordKind
    place: str = ""

    @property
    def message(self) -> str:
        """Its message, "" where it has none."""
        value = self.fields.get("message")
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One test of the draft: a field (or "" for keywords) and values, any of which will do (all, for keywords)."""

    field: str
    op: Op
    values: tuple[Scalar, ...]

    def holds(self, sample: Sample) -> bool:
        """Whether a sample satisfies it."""
        if not self.field:
            return all(str(value).casefold() in sample.message.casefold() for value in self.values)
        found = sample.fields.get(self.field)
        return any(self._one(one) for one in (found if isinstance(found, tuple) else (found,)) if one is not None)

    def _one(self, found: Scalar) -> bool:
        text = _text(found).casefold()
        wanted = tuple(_text(value).casefold() for value in self.values)
        match self.op:
            case Op.STARTSWITH:
                return text.startswith(wanted)
            case Op.ENDSWITH:
                return text.endswith(wanted)
            case Op.CONTAINS:
                return any(one in text for one in wanted)
            case _:
                return text in wanted


@dataclass(slots=True)
class Draft:
    """A rule before it is written. firing, quiet: records for its cases."""

    id: str
    title: str
    level: Level
    logsource: LogSource
    asked: list[Asked]
    excluded: list[Asked]
    key: tuple[str, ...]
    firing: list[Sample]
    quiet: list[bytes] = field(default_factory=list)
    samples: int = 0


def draft(
    wanted: Sequence[Sample],
    unwanted: Sequence[Sample],
    *,
    rule_id: str = "",
    title: str = "",
    level: Level = Level.LOW,
) -> Draft:
    """What all of `wanted` share and none of `unwanted` has; ScaffoldError names two that cannot be told apart."""
    if not wanted:
        raise ScaffoldError("there is no record to make a rule of", hint="--from takes lines, or files of lines")
    source = _logsource(wanted)
    left = [sample for sample in unwanted if source.covers(sample.kind)]
    asked = _leading(wanted, source)
    if not asked and not left:
        asked = next(([test] for test in _candidates(wanted, source)), [])
    left = [sample for sample in left if all(test.holds(sample) for test in asked)]
    # The nearest ones say most about what the rule leaves alone.
    near = sorted(unwanted, key=lambda sample: sample not in left)
    while left:
        best = _best(_candidates(wanted, source), left)
        if best is None:
            break
        asked.append(best)
        left = [sample for sample in left if best.holds(sample)]
    excluded = _excluded(wanted, left) if left else []
    if not asked:
        raise ScaffoldError(
            "the samples share nothing a rule could ask for", hint="give samples of one kind, or fewer of them"
        )
    title = title or _title(asked)
    return Draft(
        id=rule_id or _slug(title),
        title=title,
        level=level,
        logsource=source,
        asked=asked,
        excluded=excluded,
        key=_key(wanted),
        firing=_varied(wanted, asked),
        quiet=[sample.raw for sample in near[:CASES_LIMIT]],
        samples=len(wanted),
    )


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _logsource(samples: Sequence[Sample]) -> LogSource:
    """The narrowest log source that covers all samples."""
    products = {sample.kind.product for sample in samples}
    categories = frozenset.intersection(*(sample.kind.categories for sample in samples))
    services = frozenset.intersection(*(sample.kind.services for sample in samples))
    product = products.pop() if len(products) == 1 else ""
    if len(categories) > 1:
        # An event of the registry is also one of setting a value: the narrower word says more.
        categories = frozenset(word for word in categories if not word.endswith("_event")) or categories
    if categories:
        return LogSource(product, sorted(categories)[0])
    named = {str(sample.fields.get("vedette.service")) for sample in samples} & services
    service = sorted(named or services)[0] if services else ""
    if not product and not service:
        raise ScaffoldError(
            "no parser of ours knows these records, so no log source can be named",
            hint="`vedette explain` shows what is made of one",
        )
    return LogSource(product, "", service)


# ---------------------------------------------------------------------------------------------- what is asked


def _shared(samples: Sequence[Sample]) -> dict[str, list[Scalar]]:
    """The fields that every sample has one value of, with the different values in order of first use."""
    out: dict[str, list[Scalar]] = {}
    for name in samples[0].fields:
        values = [sample.fields.get(name) for sample in samples]
        if any(value is None or isinstance(value, tuple) for value in values) or "|" in name:
            continue
        distinct: dict[str, Scalar] = {}
        for value in values:
            assert not isinstance(value, tuple)
            distinct.setdefault(_text(value), value)
        out[name] = list(distinct.values())
    return out


def _leading(samples: Sequence[Sample], source: LogSource) -> list[Asked]:
    """What happened, where the records say it in a field for that."""
    shared = _shared(samples)
    asked = []
    for name in _LEADING:
        values = shared.get(name, [])
        # The category says the event id already.
        if 0 < len(values) <= VALUES_LIMIT and not (name == "EventID" and source.category):
            asked.append(Asked(name, Op.EQUALS, tuple(values)))
    return asked


def _candidates(samples: Sequence[Sample], source: LogSource) -> Iterator[Asked]:
    """Tests that hold on every sample, those a person would write first."""
    shared = _shared(samples)
    names = [name for name in (*_PATHS, *_TEXTS) if name in shared and name != "message"]
    names += [name for name in shared if name not in names and not _NOT_ASKED.fullmatch(name)]
    # Texts that an attacker writes come last: he may write them otherwise.
    names.sort(key=lambda name: name in FIELDS and FIELDS[name].attacker_text)
    for name in names:
        if name == "EventID" and source.category:
            continue
        yield from _of_field(name, shared[name])
    yield from _keywords(samples)


def _of_field(name: str, values: Sequence[Scalar]) -> Iterator[Asked]:
    texts = [_text(value) for value in values]
    if name in _PATHS:
        bases = tuple(dict.fromkeys(_base(text) for text in texts))
        if len(bases) <= VALUES_LIMIT and all(len(base) > WORD for base in bases):
            yield Asked(name, Op.ENDSWITH, bases)
    elif name not in _TEXTS and len(values) <= VALUES_LIMIT and not any(map(_ID_LIKE.fullmatch, texts)):
        yield Asked(name, Op.EQUALS, tuple(values))
    if all(isinstance(value, str) for value in values):
        begin = _common(texts)
        end = _common([text[::-1] for text in texts])[::-1]
        if len(values) > 1 and len(begin) >= WORD:
            yield Asked(name, Op.STARTSWITH, (begin,))
        if len(values) > 1 and len(end) >= WORD:
            yield Asked(name, Op.ENDSWITH, (end,))
        for word in _words(texts):
            yield Asked(name, Op.CONTAINS, (word,))


def _base(path: str) -> str:
    """The last part of a path with what stands before it."""
    at = max(path.rfind("\\"), path.rfind("/"))
    return path[at:] if at >= 0 else path


def _common(texts: Sequence[str]) -> str:
    """The common beginning, cut back to whole words."""
    first, last = min(texts), max(texts)
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, texts)))
    begin = first[:length]
    return begin if length == len(first) else begin[: max(map(begin.rfind, " /\\:=.-")) + 1]


def _words(texts: Sequence[str]) -> list[str]:
    """Words that stand in every text, longest first."""
    shared = set.intersection(*(set(_WORDS.findall(text)) for text in texts))
    return sorted(shared, key=lambda word: (-len(word), word))[:20]


def _keywords(samples: Sequence[Sample]) -> Iterator[Asked]:
    words = _words([sample.message for sample in samples])
    if words:
        yield Asked("", Op.CONTAINS, tuple(words[:2]))
        yield from (Asked("", Op.CONTAINS, (word,)) for word in words)


def _best(candidates: Iterable[Asked], left: Sequence[Sample]) -> Asked | None:
    """The candidate that rules out most of `left`, the first of several; None where none rules out any."""
    best, most = None, 0
    for test in candidates:
        out = sum(not test.holds(sample) for sample in left)
        if out > most:
            best, most = test, out
    return best


def _excluded(wanted: Sequence[Sample], left: Sequence[Sample]) -> list[Asked]:
    """Values that records which must not fire have, and none of those that must."""
    for name, values in _shared(left).items():
        if _NOT_ASKED.fullmatch(name) or len(values) > VALUES_LIMIT:
            continue
        test = Asked(name, Op.EQUALS, tuple(values))
        if not any(test.holds(sample) for sample in wanted):
            return [test]
    one, other = wanted[0], left[0]
    raise ScaffoldError(
        f"nothing tells {other.place or 'a record that must not fire'} from {one.place or 'one that must'}: "
        f"all that is asked of one holds of the other",
        hint="`vedette explain` shows the fields of each; add the difference by hand, or leave that sample out",
    )


def _key(samples: Sequence[Sample]) -> tuple[str, ...]:
    """What alerts are joined by: never text that an attacker chooses."""
    for name in ("source.ip", "host.name"):
        if all(sample.fields.get(name) for sample in samples) and not FIELDS[name].attacker_text:
            return (name,)
    return ()


def _varied(samples: Sequence[Sample], asked: Sequence[Asked]) -> list[Sample]:
    """A few samples that differ in what is asked, the first of each."""
    seen: dict[tuple[str, ...], Sample] = {}
    for sample in samples:
        if writable(sample.raw):
            seen.setdefault(tuple(str(sample.fields.get(test.field)) for test in asked), sample)
    if not seen:
        raise ScaffoldError("no sample can stand in a rule file as text", hint="a case is a line of UTF-8")
    return list(seen.values())[:CASES_LIMIT]


def writable(raw: bytes) -> bool:
    """Whether a record can stand in a YAML file as lines of text; of several lines only an event of Linux audit."""
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError:
        return False
    return all(line.isprintable() for line in lines) and (
        len(lines) == 1 or all(" msg=audit(" in line for line in lines)
    )


# ---------------------------------------------------------------------------------------------- writing


def _title(asked: Sequence[Asked]) -> str:
    # Whatever a record says stands in the title as plain words alone.
    words = " ".join(re.findall(r"[A-Za-z0-9_]+", " ".join(_text(value) for value in asked[0].values[:2])))
    return (words[:1].upper() + words[1:60]).strip() or "New rule"


def _slug(title: str) -> str:
    return "my-" + (_SLUG.sub("-", title.lower()).strip("-") or "rule")


def document(made: Draft, expected: Sequence[Mapping[str, Scalar]]) -> str:
    """The draft as a rule file. expected: the key of the finding of each record of `made.firing`."""
    import yaml

    detection: dict[str, Anything] = {"selection": {}}
    keywords = [test for test in made.asked if not test.field]
    for test in made.asked:
        if test.field:
            detection["selection"].update(_item(test))
    parts = ["selection"]
    if not detection["selection"]:
        del detection["selection"]
        parts = []
    if keywords:
        words = list(dict.fromkeys(_written(value) for test in keywords for value in test.values))
        detection["keywords"] = {"|all": words}
        parts.append("keywords")
    condition = " and ".join(parts)
    if made.excluded:
        detection["filter"] = {name: value for test in made.excluded for name, value in _item(test).items()}
        condition += " and not filter"
    detection["condition"] = condition
    source = made.logsource
    tree: dict[str, Anything] = {
        "title": made.title,
        "id": made.id,
        "status": "experimental",
        "description": f"Drafted from {made.samples} sample record{'' if made.samples == 1 else 's'}.",
        "level": made.level.label,
        "logsource": {
            name: word
            for name, word in (("product", source.product), ("category", source.category), ("service", source.service))
            if word
        },
        "detection": detection,
        "vedette": {
            "notify": "store",
            **({"key": list(made.key)} if made.key else {}),
            "cases": [
                *(
                    {
                        "name": f"fires on sample {number}",
                        "lines": sample.raw.decode().split("\n"),
                        "expect": [dict(key)],
                    }
                    for number, (sample, key) in enumerate(zip(made.firing, expected, strict=True), 1)
                ),
                *(
                    {"name": f"is quiet on sample {number}", "lines": raw.decode().split("\n"), "expect": []}
                    for number, raw in enumerate(made.quiet, 1)
                ),
            ],
        },
    }
    # As the reader of rules reads YAML: what it would take for a date or a truth value is quoted.
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1_000_000))


def _item(test: Asked) -> dict[str, Anything]:
    name = test.field if test.op is Op.EQUALS else f"{test.field}|{test.op.value}"
    values = [_written(value) for value in test.values]
    return {name: values[0] if len(values) == 1 else values}


def _written(value: Scalar) -> Scalar:
    """A value as Sigma reads it back: wildcards and what would escape them are escaped."""
    if not isinstance(value, str):
        return value
    out = []
    for at, character in enumerate(value):
        if character in "*?" or (character == "\\" and value[at + 1 : at + 2] in ("*", "?", "\\")):
            out.append("\\")
        out.append(character)
    return "".join(out)

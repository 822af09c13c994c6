"""Rules of OSSEC and Wazuh 4.x, as they are, compiled into the rules of one decision tree.
Counterpart: `loading` hands the files in; `ossec_conditions` reads what rules ask, `ossec_tree` who is whose child."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.model.levels import Level
from vedette.model.rules import All, Branch, Node, Op, Precedent, Response, Rule, Test
from vedette.rules.files import TREE_SUFFIX, iter_files
from vedette.rules.ossec_conditions import Conditions, memory_field
from vedette.rules.ossec_lists import ListStore
from vedette.rules.ossec_tree import Placed, plant
from vedette.rules.ossec_words import (
    ATTRIBUTES,
    CARRIED,
    CATEGORIES,
    CATEGORY,
    DATA,
    DECODER,
    FIRST,
    HOST,
    LOCATION,
    LOG,
    MEMORY,
    OSSEC_MARKS,
    OTHERS,
    PATTERNS,
    PLACING,
    SAME,
    WAZUH_MARKS,
    Dialect,
)
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean
from vedette.text.ossec_xml import Element, read_fragment

_SECOND = 1_000_000
_TIMEFRAME = 360
_MOST_BEFORE = 10_000
_ANSWERED = 6
"""The least level that active responses of OSSEC are bound to as it is shipped."""
_ADDRESS = f"{DATA}srcip"
_WORDS = re.compile(r"[,\s]+")
_MITRE = re.compile(r"T\d{4}(?:\.\d{3})?\Z")
_KNOWN = {
    *CARRIED,
    *PLACING,
    *OTHERS,
    *PATTERNS,
    *(f"{name}_pcre2" for name in PATTERNS),
    "pcre2",
    *(f"{word}_{name}" for word in ("same", "different", "not_same") for name in SAME),
}


@dataclass(frozen=True, slots=True)
class OssecRules:
    """What came of reading: the rules of the tree in load order, and every problem met."""

    rules: tuple[Rule, ...]
    problems: tuple[Problem, ...]
    dialect: Dialect


@dataclass(slots=True)
class _Reading:
    dialect: Dialect
    lists: ListStore
    problems: list[Problem] = field(default_factory=list)
    placed: dict[str, Placed] = field(default_factory=dict)

    def warn(self, message: str, where: Location, rule_id: str) -> None:
        self.problems.append(Problem(ProblemKind.BROKEN, Severity.WARNING, where, rule_id, message))


def read_ossec(files: Sequence[Path], lists: Iterable[Path], dialect: Dialect | None = None) -> OssecRules:
    """The rules in `files` (decoder files among them are for the parser), with the lists under `lists`.

    dialect: None tells it from what is written there. Nothing is raised: what is broken is left out and told.
    """
    documents: list[tuple[Path, list[Element]]] = []
    problems: list[Problem] = []
    for path in files:
        try:
            documents.append((path, read_fragment(path)))
        except RuleError as error:
            problems.append(Problem.from_error(error))
    decoders = tuple(
        str(path) for path, elements in documents if any(element.name == "decoder" for element in elements)
    )
    groups = [(path, element) for path, elements in documents for element in elements if element.name == "group"]
    reading = _Reading(dialect or dialect_of(documents), ListStore(lists), problems)
    if groups and not decoders:
        reading.warn("rules without a decoder file know no fields", Location(str(groups[0][0])), "")
    for path, group in groups:
        conditions = Conditions(str(path), reading.dialect, reading.lists)
        for element in group.children:
            if element.name == "rule":
                _take(reading, element, group.attributes.get("name", ""), conditions)
            elif element.name != "var":
                where = Location(str(path), element.line)
                problems.append(Problem.from_error(RuleError(f"<{element.name}> in a group", location=where)))
    planted = plant(list(reading.placed.values()), problems)
    return OssecRules(tuple(_finished(planted, decoders)), tuple(problems), reading.dialect)


def dialect_in(paths: Iterable[Path], given: str = "auto") -> Dialect:
    """Whose words the rules and decoders under `paths` use; `given` where that says one."""
    if given != "auto":
        return Dialect(given)
    documents = []
    for path in dict.fromkeys(iter_files(paths)):
        if path.suffix == TREE_SUFFIX:
            with suppress(RuleError):
                documents.append((path, read_fragment(path)))
    return dialect_of(documents)


def dialect_of(documents: Iterable[tuple[Path, list[Element]]]) -> Dialect:
    """Whose words are in these files: Wazuh's where more of them are its own than OSSEC's."""
    ossec = wazuh = 0
    for _path, elements in documents:
        waiting = list(elements)
        while waiting:
            element = waiting.pop()
            waiting.extend(element.children)
            ossec += element.name in OSSEC_MARKS
            pattern = element.name in PATTERNS or element.name in ("prematch", "field")
            wazuh += element.name in WAZUH_MARKS or (pattern and bool({"type", "negate"} & element.attributes.keys()))
    return Dialect.WAZUH if wazuh > ossec else Dialect.OSSEC


def _take(reading: _Reading, element: Element, group: str, conditions: Conditions) -> None:
    where = Location(conditions.file, element.line)
    rule_id = element.attributes.get("id", "")
    try:
        placed = _Rule(reading, element, group, conditions).read()
    except FileNotFoundError as error:
        reading.warn(f"rule {rule_id} is off: there is no list {error}", where, rule_id)
        return
    except _PassedOverError as error:
        reading.warn(f"rule {rule_id} is off: {error}", where, rule_id)
        return
    except RuleError as error:
        reading.problems.append(Problem.from_error(error, rule_id))
        return
    known = reading.placed.get(placed.rule.id)
    if element.attributes.get("overwrite", "no") == "yes":
        if known is None:
            missing = RuleError(f"overwrites rule {rule_id}, which is not there before it", location=where)
            reading.problems.append(Problem.from_error(missing, rule_id))
        else:
            reading.placed[placed.rule.id] = known.overwritten(placed)
    elif known is not None:
        twice = RuleError(
            f"rule {rule_id} is there twice, first in {known.rule.origin}", location=where, hint='overwrite="yes"'
        )
        reading.problems.append(Problem.from_error(twice, rule_id))
    else:
        reading.placed[placed.rule.id] = placed


class _PassedOverError(Exception):
    """A rule that its own program passes over, and goes on."""


class _Rule:
    """Reads one rule."""

    def __init__(self, reading: _Reading, element: Element, group: str, conditions: Conditions) -> None:
        self._reading, self._element, self._conditions = reading, element, conditions
        self._wazuh = reading.dialect is Dialect.WAZUH
        self._group = group
        self._where = Location(conditions.file, element.line)
        self._id = element.attributes.get("id", "")

    def _error(self, message: str, element: Element | None = None, hint: str = "") -> RuleError:
        where = self._where if element is None else Location(self._conditions.file, element.line)
        return RuleError(f"rule {self._id}: {message}", location=where, hint=hint)

    def read(self) -> Placed:
        element = self._element
        for name in element.attributes:
            if name not in ATTRIBUTES:
                raise self._error(f"unknown attribute {name!r}", hint=did_you_mean(name, ATTRIBUTES))
        for child in element.children:
            if child.name not in _KNOWN:
                raise self._error(f"unknown element <{child.name}>", child, did_you_mean(child.name, _KNOWN))
        number, weight = self._number("id", 0, 999_999), self._number("level", 0, 16)
        for name in ("maxsize", "frequency", "timeframe", "ignore", "accuracy"):
            if name in element.attributes:
                self._number(name, 0, 999_999)
        if any(element.all("if_matched_regex")):
            raise self._error("if_matched_regex has no equal", hint="if_matched_sid or if_matched_group")
        category = element.first("category", "syslog")
        if category not in CATEGORIES:
            raise self._error(f"there is no category {category!r}", hint=", ".join(CATEGORIES))
        if self._wazuh and self._id.strip() in self._numbers("if_sid"):
            raise _PassedOverError("it is its own parent")
        decoded_as = element.first("decoded_as")
        when: list[Node] = []
        if decoded_as:
            when.append(self._decoded_as(decoded_as))
        conditions = self._conditions.of(element)
        when += conditions.parts if isinstance(conditions, All) else [conditions]
        words = [word for word in _WORDS.split(",".join((self._group, *self._texts("group")))) if word]
        options = {word for text in self._texts("options") for word in _WORDS.split(text) if word}
        precedent, counts = self._precedent()
        description = " ".join(" ".join(self._texts("description")).split())
        rule = Rule(
            id=str(number),
            name=description or f"rule {number}",
            level=Level.from_ossec(weight),
            when=All(tuple(when)),
            groups=tuple(dict.fromkeys(words)),
            order=9900 if not weight else 100 * weight - (50 if element.attributes.get("accuracy") == "0" else 0),
            stop=True,
            silent=not weight or "no_log" in options,
            tags=self._tags(),
            references=tuple(child.text.strip() for child in element.all("info") if child.text.strip()),
            origin=self._where,
            # A single line blocks nobody: only what counts by address may, once a person lets it.
            response=Response() if weight >= _ANSWERED and precedent and _ADDRESS in precedent.same else None,
            branch=Branch(
                weight=weight,
                passes="noalert" in element.attributes
                and not (self._wazuh and element.attributes["noalert"].strip() == "0"),
                precedent=precedent,
                first=FIRST if any(element.all("if_fts")) else "",
                changed=LOG if any(element.all("check_diff")) else "",
                quiet=int(element.attributes.get("ignore", 0)) * _SECOND,
                ignores=self._memory("ignore"),
                ignored=self._memory("check_if_ignored"),
            ),
        )
        return Placed(
            rule,
            group=",".join(words),
            category=category,
            root=number < 10,
            sids=tuple(self._numbers("if_sid")),
            groups=self._joined("if_group"),
            level=self._joined("if_level"),
            matched_sids=tuple(self._numbers("if_matched_sid")),
            matched_groups=self._joined("if_matched_group"),
            anywhere=decoded_as == "windows_eventchannel",
            counts=counts,
        )

    def _texts(self, name: str) -> list[str]:
        return [child.text.strip() for child in self._element.all(name)]

    def _joined(self, name: str) -> str:
        return ",".join(self._texts(name)).strip(", ")

    def _number(self, name: str, least: int, most: int) -> int:
        text = self._element.attributes.get(name, "")
        if not (text.strip().isascii() and text.strip().isdigit() and least <= int(text) <= most):
            raise self._error(f"{name}={text!r} is no number from {least} to {most}")
        return int(text)

    def _numbers(self, name: str) -> list[str]:
        found = []
        for child in self._element.all(name):
            for word in _WORDS.split(child.text.strip()):
                if word and not (word.isascii() and word.isdigit()):
                    if self._wazuh:
                        raise _PassedOverError(f"<{name}> names rules by their numbers, not {word!r}")
                    raise self._error(f"<{name}> names rules by their numbers, not {word!r}", child)
                if word:
                    found.append(str(int(word)))
        return found

    def _decoded_as(self, name: str) -> Node:
        # What the agent of Wazuh decodes on Windows comes to us as JSON.
        names = (name, "json") if name == "windows_eventchannel" else (name,)
        return Test(DECODER, Op.EQUALS, names, cased=True)

    def _tags(self) -> tuple[str, ...]:
        ids = [one.text.strip() for mitre in self._element.all("mitre") for one in mitre.all("id")]
        return tuple(f"attack.{one.lower()}" for one in ids if _MITRE.match(one))

    def _memory(self, name: str) -> tuple[str, ...]:
        fields: list[str] = []
        for child in self._element.all(name):
            text = child.text.lower()
            known = [memory_field(field) for word, field in MEMORY.items() if word in text]
            known += [memory_field("location")] if "location" in text else []
            known += [DECODER] if "name" in text else []
            if not known:
                raise self._error(f"<{name}> names no field it could remember: {text!r}", child)
            fields += known
        return tuple(dict.fromkeys(fields))

    def _precedent(self) -> tuple[Precedent | None, bool]:
        """What must have come before, without whose; whether anything must."""
        element = self._element
        counts = any(element.all("if_matched_sid")) or any(element.all("if_matched_group"))
        same: list[str] = []
        different: list[str] = []
        for child in element.children:
            if child.name in ("same_field", "not_same_field", "different_field"):
                names = [f"{DATA}{word.lower()}" for word in _WORDS.split(child.text.strip()) if word]
                (same if child.name == "same_field" else different).extend(names)
            elif child.name in ("same_location", "different_location"):
                place = LOCATION if self._wazuh else HOST
                (same if child.name == "same_location" else different).append(place)
            elif child.name.startswith("same_") and child.name[5:] in SAME:
                same.append(f"{DATA}{SAME[child.name[5:]]}")
            elif child.name.startswith("different_"):
                different.append(f"{DATA}{SAME[child.name[10:]]}")
            elif child.name.startswith("not_same_") and child.name[9:] in SAME:
                name = f"{DATA}{SAME[child.name[9:]]}"
                # In OSSEC it takes back what `same_` asked for; Wazuh asks for another value.
                if self._wazuh:
                    different.append(name)
                elif name in same:
                    same.remove(name)
        frequency = int(element.attributes.get("frequency", 0))
        if not counts:
            if (same or different or frequency) and not any(element.all("check_diff")):
                raise self._error("counts what came before, but has no if_matched_sid or if_matched_group")
            return None, False
        before = max(frequency - 2, 0) + 1 if self._wazuh else frequency + 1
        if before > _MOST_BEFORE:
            raise self._error(f"frequency={frequency} is more than {_MOST_BEFORE}")
        timeframe = int(element.attributes.get("timeframe", _TIMEFRAME))
        fields = tuple(dict.fromkeys(same)), tuple(dict.fromkeys(different))
        return Precedent((), before, timeframe * _SECOND, *fields, told=not self._wazuh), True


def _finished(planted: Sequence[Placed], decoders: tuple[str, ...]) -> Iterable[Rule]:
    for placed in planted:
        rule = placed.rule
        assert rule.branch is not None
        branch = replace(rule.branch, decoders=decoders)
        if not rule.parents:
            rule = replace(rule, when=All((*_parts(rule.when), Test(CATEGORY, Op.EQUALS, (placed.category,)))))
        yield replace(rule, branch=branch)


def _parts(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, All) else (node,)

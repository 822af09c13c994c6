"""Who is whose child in the decision tree of OSSEC and Wazuh rules, and whose matches each rule counts.
Counterpart: `ossec` reads the rules; what names rules that are not there, or itself, falls and is told."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from vedette.model.errors import RuleError
from vedette.model.rules import Rule
from vedette.rules.problems import Problem, ProblemKind, Severity
from vedette.text.osregex import Anchor, os_match

DEEPEST = 60
"""Parents above each other; real rules have less than ten."""
EDGES = 500_000
PATTERNS = 2_000
"""Different groups that rules may ask for."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule, and what it says of its place. group: its groups as one text, which is what patterns look at.

    anywhere: it stands in the tree of its category and in that of syslog. counts: it counts what came before.
    """

    rule: Rule
    group: str
    category: str
    root: bool
    sids: tuple[str, ...] = ()
    groups: str = ""
    level: str = ""
    matched_sids: tuple[str, ...] = ()
    matched_groups: str = ""
    anywhere: bool = False
    counts: bool = False
    counted: tuple[str, ...] = field(default=())

    def overwritten(self, by: Placed) -> Placed:
        """This rule as `by` has it: all but its place in the tree and whose matches it counts."""
        assert self.rule.branch is not None
        assert by.rule.branch is not None
        precedent = by.rule.branch.precedent or self.rule.branch.precedent
        branch = replace(by.rule.branch, precedent=precedent if self.counts else None)
        return replace(self, rule=replace(by.rule, branch=branch), group=by.group)


def plant(placed: Sequence[Placed], problems: list[Problem]) -> list[Placed]:
    """The rules with their parents and what they count, in load order."""
    known = {one.rule.id: place for place, one in enumerate(placed)}
    roots: dict[str, str] = {}
    for one in placed:
        if one.root:
            roots.setdefault(one.category, one.rule.id)
    named = _Named(placed)
    planted = []
    edges = 0
    for place, one in enumerate(placed):
        try:
            if edges > EDGES:
                raise RuleError("the rules before it have too many parents", location=one.rule.origin)
            parents = _parents(one, place, named, known, roots, problems)
            counted = _counted(one, named, known)
        except RuleError as error:
            problems.append(Problem.from_error(error, one.rule.id, ProblemKind.MISSING_REFERENCE))
            continue
        edges += len(parents) + len(counted)
        branch = one.rule.branch
        assert branch is not None
        if branch.precedent is not None:
            branch = replace(branch, precedent=replace(branch.precedent, of=counted))
        planted.append(replace(one, rule=replace(one.rule, parents=parents, branch=branch)))
    return _without_loops(_grounded(planted, problems), problems)


def _grounded(planted: list[Placed], problems: list[Problem]) -> list[Placed]:
    """The rules of which a parent stands, each with those that do."""
    by_id = {one.rule.id: one for one in planted}
    children: dict[str, list[str]] = {}
    left: dict[str, int] = {}
    for one in planted:
        if one.rule.parents:
            left[one.rule.id] = len(one.rule.parents)
            for parent in one.rule.parents:
                children.setdefault(parent, []).append(one.rule.id)
    falling = [parent for parent in children if parent not in by_id]
    fallen = set(falling)
    while falling:
        for child in children.get(falling.pop(), ()):
            left[child] -= 1
            if not left[child] and child not in fallen:
                fallen.add(child)
                falling.append(child)
                words = f"rule {child} is off with all of its parents"
                problems.append(Problem.from_error(RuleError(words, location=by_id[child].rule.origin), child))
    standing = [one for one in planted if one.rule.id not in fallen]
    if not fallen:
        return standing
    return [
        replace(one, rule=replace(one.rule, parents=tuple(name for name in one.rule.parents if name not in fallen)))
        for one in standing
    ]


class _Named:
    """Which rules have a level or a group, each question answered once."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self._placed = placed
        self._of_group: dict[str, list[int]] = {}
        self._of_level: dict[int, list[int]] = {}

    def group(self, pattern: str) -> list[int]:
        """Places of the rules whose groups, as one text, have what the pattern says."""
        if pattern not in self._of_group:
            if len(self._of_group) >= PATTERNS:
                raise ValueError(f"more than {PATTERNS} different groups are asked for")
            search = group_search(pattern)
            seen: dict[str, bool] = {}
            found = []
            for place, one in enumerate(self._placed):
                if one.group not in seen:
                    seen[one.group] = search(one.group)
                if seen[one.group]:
                    found.append(place)
            self._of_group[pattern] = found
        return self._of_group[pattern]

    def level(self, least: int) -> list[int]:
        """Places of the rules of that level or above."""
        if least not in self._of_level:
            self._of_level[least] = [place for place, one in enumerate(self._placed) if _weighs(one, least)]
        return self._of_level[least]

    def before(self, found: list[int], place: int) -> tuple[str, ...]:
        """Of the rules found those before `place`; where there is none, those after it."""
        cut = bisect_left(found, place)
        some = found[:cut] or found[cut + (cut < len(found) and found[cut] == place) :]
        return tuple(self._placed[at].rule.id for at in some)

    def ids(self, found: list[int]) -> tuple[str, ...]:
        """The rules found."""
        return tuple(self._placed[at].rule.id for at in found)


def _parents(
    one: Placed, place: int, named: _Named, known: dict[str, int], roots: dict[str, str], problems: list[Problem]
) -> tuple[str, ...]:
    if one.root:
        return ()
    # A rule that counts and says no more of its place stands below what it counts.
    counting = one.counts and not one.sids and not one.groups
    sids = one.sids or (one.matched_sids if counting else ())
    groups = one.groups or (one.matched_groups if counting and not sids else "")
    if sids:
        found = [sid for sid in sids if sid in known and sid != one.rule.id]
        missing = [sid for sid in sids if sid not in known]
        if one.rule.id in sids:
            raise RuleError(f"rule {one.rule.id} is its own parent", location=one.rule.origin)
        if not found:
            raise RuleError(f"rule {one.rule.id}: there is no rule {missing[0]}", location=one.rule.origin)
        for sid in missing:
            words = f"rule {one.rule.id}: there is no rule {sid}"
            problem = Problem(
                ProblemKind.MISSING_REFERENCE,
                Severity.WARNING,
                one.rule.origin,
                one.rule.id,
                words,
                "it is passed over",
            )
            problems.append(problem)
        return tuple(dict.fromkeys(found))
    if one.level:
        if not one.level.isascii() or not one.level.isdigit():
            raise RuleError(f"rule {one.rule.id}: if_level={one.level!r} is no level", location=one.rule.origin)
        return _some(one, named.before(named.level(int(one.level)), place))
    if groups:
        return _some(one, named.before(_asked(one, named, groups), place))
    parents = [roots[category] for category in (one.category, "syslog")[: 1 + one.anywhere] if category in roots]
    return tuple(dict.fromkeys(parents))


def _weighs(other: Placed, least: int) -> bool:
    assert other.rule.branch is not None
    # Level 0 is looked at first, as if it were the highest.
    return other.rule.branch.weight >= least or not other.rule.branch.weight


def _asked(one: Placed, named: _Named, pattern: str) -> list[int]:
    try:
        return named.group(pattern)
    except ValueError as error:
        raise RuleError(f"rule {one.rule.id}: {error}", location=one.rule.origin) from None


def _some(one: Placed, found: tuple[str, ...]) -> tuple[str, ...]:
    if not found:
        raise RuleError(
            f"rule {one.rule.id}: there is no rule of {'level ' + one.level if one.level else 'group ' + one.groups}",
            location=one.rule.origin,
        )
    return found


def group_search(pattern: str) -> Callable[[str], bool]:
    """Whether a rule's groups, as one text, have what an OS_Match pattern says."""
    parts = [(anchor, literal.lower()) for anchor, literal in os_match(pattern)]
    if all(anchor is Anchor.ANYWHERE for anchor, _literal in parts):
        literals = [literal for _anchor, literal in parts]
        return lambda text: any(literal in text.lower() for literal in literals)
    joined = re.compile("|".join(_regex(anchor, literal) for anchor, literal in parts))
    return lambda text: joined.search(text.lower()) is not None


def _regex(anchor: Anchor, literal: str) -> str:
    start = r"\A" if anchor in (Anchor.START, Anchor.WHOLE) else ""
    end = r"\Z" if anchor in (Anchor.END, Anchor.WHOLE) else ""
    return start + re.escape(literal) + end


def _counted(one: Placed, named: _Named, known: dict[str, int]) -> tuple[str, ...]:
    if not one.counts:
        return ()
    if one.matched_sids:
        found = tuple(sid for sid in one.matched_sids if sid in known)
        if not found:
            raise RuleError(f"rule {one.rule.id}: there is no rule {one.matched_sids[0]}", location=one.rule.origin)
        return found
    found = named.ids(_asked(one, named, one.matched_groups))
    if not found:
        raise RuleError(f"rule {one.rule.id}: there is no group {one.matched_groups!r}", location=one.rule.origin)
    return found


def _without_loops(planted: list[Placed], problems: list[Problem]) -> list[Placed]:
    """The rules that lead up to one without parents, and not too deep: what is left of a loop never does."""
    depth: dict[str, int] = {one.rule.id: 0 for one in planted if not one.rule.parents}
    children: dict[str, list[str]] = {}
    for one in planted:
        for parent in one.rule.parents:
            children.setdefault(parent, []).append(one.rule.id)
    waiting = {one.rule.id: len(one.rule.parents) for one in planted if one.rule.parents}
    ready = list(depth)
    while ready:
        parent = ready.pop()
        for child in children.get(parent, ()):
            waiting[child] -= 1
            depth[child] = max(depth.get(child, 0), depth[parent] + 1)
            if not waiting[child]:
                ready.append(child)
    kept = []
    for one in planted:
        if waiting.get(one.rule.id):
            error = RuleError(f"rule {one.rule.id} is in a loop of parents, or below one", location=one.rule.origin)
        elif depth.get(one.rule.id, 0) > DEEPEST:
            error = RuleError(f"rule {one.rule.id} has more than {DEEPEST} above it", location=one.rule.origin)
        else:
            kept.append(one)
            continue
        problems.append(Problem.from_error(error, one.rule.id))
    ids = {one.rule.id for one in kept}
    return [_pruned(one, ids) for one in kept]


def _pruned(one: Placed, ids: set[str]) -> Placed:
    branch = one.rule.branch
    assert branch is not None
    if branch.precedent is not None and not ids.issuperset(branch.precedent.of):
        of = tuple(sid for sid in branch.precedent.of if sid in ids)
        branch = replace(branch, precedent=replace(branch.precedent, of=of))
        return replace(one, rule=replace(one.rule, branch=branch))
    return one

"""Who is whose child in the decision tree of OSSEC and Wazuh rules, and whose matches each rule counts.
Counterpart: `ossec` reads the rules; what names rules that are not there, or itself, falls and is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from vedette.model.errors import RuleError
from vedette.model.rules import Rule
from vedette.rules.problems import Problem, ProblemKind, Severity
from vedette.text.osregex import Anchor, os_match

DEEPEST = 60
"""Parents above each other; real rules have less than ten."""
EDGES = 500_000


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
    standing = list(placed)
    while True:
        planted = _once(standing, problems)
        if len(planted) == len(standing):
            break
        # A rule that fell may have been the only parent of others.
        standing = [one for one in standing if one.rule.id in {kept.rule.id for kept in planted}]
    return _without_loops(planted, problems)


def _once(standing: Sequence[Placed], problems: list[Problem]) -> list[Placed]:
    known = {one.rule.id: place for place, one in enumerate(standing)}
    roots: dict[str, str] = {}
    for one in standing:
        if one.root:
            roots.setdefault(one.category, one.rule.id)
    planted = []
    edges = 0
    for place, one in enumerate(standing):
        try:
            parents = _parents(one, place, standing, known, roots, problems)
            counted = _counted(one, standing, known)
            edges += len(parents) + len(counted)
            if edges > EDGES:
                raise RuleError("the rules have too many parents", location=one.rule.origin)
        except RuleError as error:
            problems.append(Problem.from_error(error, one.rule.id, ProblemKind.MISSING_REFERENCE))
            continue
        branch = one.rule.branch
        assert branch is not None
        if branch.precedent is not None:
            branch = replace(branch, precedent=replace(branch.precedent, of=counted))
        planted.append(replace(one, rule=replace(one.rule, parents=parents, branch=branch)))
    return planted


def _parents(
    one: Placed,
    place: int,
    standing: Sequence[Placed],
    known: dict[str, int],
    roots: dict[str, str],
    problems: list[Problem],
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
            if problem not in problems:
                problems.append(problem)
        return tuple(dict.fromkeys(found))
    if one.level:
        if not one.level.isascii() or not one.level.isdigit():
            raise RuleError(f"rule {one.rule.id}: if_level={one.level!r} is no level", location=one.rule.origin)
        least = int(one.level)
        return _some(one, place, standing, lambda other: other.rule.branch is not None and _weighs(other, least))
    if groups:
        search = group_search(groups)
        return _some(one, place, standing, lambda other: search(other.group))
    parents = [roots[category] for category in (one.category, "syslog")[: 1 + one.anywhere] if category in roots]
    return tuple(dict.fromkeys(parents))


def _weighs(other: Placed, least: int) -> bool:
    assert other.rule.branch is not None
    # Level 0 is looked at first, as if it were the highest.
    return other.rule.branch.weight >= least or not other.rule.branch.weight


def _some(one: Placed, place: int, standing: Sequence[Placed], wanted: Callable[[Placed], bool]) -> tuple[str, ...]:
    """Rules before this one that are wanted; where there is none, those after it."""
    for others in (standing[:place], standing[place + 1 :]):
        found = tuple(other.rule.id for other in others if wanted(other))
        if found:
            return found
    raise RuleError(
        f"rule {one.rule.id}: there is no rule of {'level ' + one.level if one.level else 'group ' + one.groups}",
        location=one.rule.origin,
    )


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


def _counted(one: Placed, standing: Sequence[Placed], known: dict[str, int]) -> tuple[str, ...]:
    if not one.counts:
        return ()
    if one.matched_sids:
        found = tuple(sid for sid in one.matched_sids if sid in known)
        if not found:
            raise RuleError(f"rule {one.rule.id}: there is no rule {one.matched_sids[0]}", location=one.rule.origin)
        return found
    search = group_search(one.matched_groups)
    found = tuple(other.rule.id for other in standing if search(other.group))
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

"""What is said of a condition is certain: held against the reference over random conditions and records.
Counterpart: vedette.rules.contradictions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detections.reference import holds

from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test
from vedette.rules.contradictions import can_hold_together, implies, judge


def one(_field: str) -> bool:
    return True


def several(_field: str) -> bool:
    return False


def t(op: Op, *values: object, field: str = "f", every: bool = False, cased: bool = False) -> Test:
    return Test(field, op, values, every, cased)  # type: ignore[arg-type]


A, B = t(Op.EQUALS, "a"), t(Op.EQUALS, "b")
EXE = t(Op.ENDSWITH, "\\cmd.exe", "\\powershell.exe")

DEAD = {
    "two values at once": All((A, B)),
    "deep inside": All((All((A, t(Op.EQUALS, "x", field="g"))), All((B,)))),
    "a choice of nothing": Any(()),
    "not always": Not(All(())),
    "itself and not itself": All((A, Not(A))),
    "the filter swallows the selection": All((EXE, Not(t(Op.ENDSWITH, ".exe")))),
    "each alternative": All((A, Any((B, t(Op.STARTSWITH, "c"))))),
    "beginnings": All((t(Op.STARTSWITH, "C:\\"), t(Op.STARTSWITH, "D:\\"))),
    "ends": All((t(Op.ENDSWITH, ".exe"), t(Op.LIKE, "*.dll"))),
    "a pattern and a value": All((t(Op.LIKE, "a?c*"), t(Op.EQUALS, "abd"))),
    "all of two": t(Op.EQUALS, "a", "b", every=True),
    "absent and a value": All((t(Op.NULL), A)),
    "absent and there": All((t(Op.EXISTS, False), t(Op.EXISTS, True))),
    "not there and a value": All((Not(t(Op.EXISTS, True)), t(Op.CONTAINS, "a"))),
    "an empty interval": All((t(Op.GT, 5), t(Op.LTE, 5))),
    "a number outside": All((t(Op.EQUALS, 22), t(Op.GT, "1024"))),
    "an address outside": All((t(Op.EQUALS, "192.0.2.1"), t(Op.CIDR, "198.51.100.0/24"))),
    "networks apart": All((t(Op.CIDR, "192.0.2.0/24"), t(Op.CIDR, "2001:db8::/32", "198.51.100.0/24"))),
    "an address filtered by its network": All((t(Op.CIDR, "192.0.2.0/28"), Not(t(Op.CIDR, "192.0.2.0/24")))),
    "a keyword within a keyword": All((Raw("PWCrack"), Not(Raw("crack")))),
    "true and false": All((t(Op.EQUALS, True), t(Op.EQUALS, False))),
}
ALIVE = {
    "nothing asked": All(()),
    "two fields": All((A, t(Op.EQUALS, "b", field="g"))),
    "a case apart": All((t(Op.EQUALS, "a"), Not(t(Op.EQUALS, "a", cased=True)))),
    "a narrower filter": All((t(Op.ENDSWITH, ".exe"), Not(EXE))),
    "one alternative": All((A, Any((B, t(Op.STARTSWITH, "a"))))),
    "overlapping patterns": All((t(Op.STARTSWITH, "ab"), t(Op.LIKE, "a*c"))),
    "an escaped star": All((t(Op.LIKE, "a\\*"), t(Op.EQUALS, "a*"))),
    "there and null": All((t(Op.EXISTS, True), t(Op.NULL))),
    "an interval": All((t(Op.GTE, 5), t(Op.LTE, 5))),
    "a number as text": All((t(Op.EQUALS, "22"), t(Op.LT, 1024))),
    "true as text": All((t(Op.EQUALS, True), t(Op.EQUALS, "TRUE"))),
    "an expression, of which nothing is known": All((t(Op.REGEX, "^a$"), B)),
    "keywords": All((Raw("a"), Not(Raw("ab")))),
}


@pytest.mark.parametrize("name", DEAD)
def test_what_can_never_hold(name: str):
    assert judge(DEAD[name], one).dead


@pytest.mark.parametrize("name", ALIVE)
def test_what_can_hold_is_not_accused(name: str):
    assert judge(ALIVE[name], one).dead == ""


def test_a_field_with_several_values_may_have_two():
    assert judge(All((A, B)), several).dead == ""
    assert judge(All((A, Not(t(Op.EQUALS, "a", "b")))), several).dead
    assert can_hold_together(A, B, several)
    assert not can_hold_together(A, B, one)


def test_reasons_name_both_tests():
    assert judge(All((A, B)), one).dead == "'f equals 'a'' and 'f equals 'b'' cannot both hold"
    verdict = judge(All((A, Not(t(Op.CONTAINS, "a")))), one)
    assert verdict.dead == "'f contains 'a'' holds wherever 'f equals 'a'' does, and is ruled out"


def test_parts_that_never_hold_are_told_where_the_whole_may():
    branch = judge(All((A, Any((B, t(Op.EQUALS, "x", field="g"))))), one)
    assert (branch.dead, len(branch.branches), branch.filters) == ("", 1, [])
    idle = judge(All((A, Not(B), Not(All((B, t(Op.EQUALS, "x", field="g")))))), one)
    assert (idle.dead, idle.branches) == ("", [])
    assert len(idle.filters) == 2
    useful = judge(All((A, Not(All((A, t(Op.EQUALS, "x", field="g")))))), one)
    assert (useful.dead, useful.branches, useful.filters) == ("", [], [])


def test_a_condition_with_very_many_values_is_judged_in_bounded_time():
    many = t(Op.CONTAINS, *(f"value {n}" for n in range(3000)))
    assert judge(All((many, Not(t(Op.CONTAINS, *(f"other {n}" for n in range(3000)))))), one).dead == ""


def test_a_condition_with_very_many_tests_is_judged_in_bounded_time():
    parts = tuple(t(Op.CONTAINS, f"part {n}", f"or {n}") for n in range(3000))
    assert judge(All((*parts, *map(Not, parts[:1]))), one).dead == ""  # too much to be said
    assert judge(All((parts[0], Not(parts[0]), *parts)), one).dead


_VALUES = st.sampled_from(["", "a", "A", "b", "ab", "Ba", "a*", "?b", "*", "1", "2", 1, 2, True])
_OPS = st.sampled_from([Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE, Op.LT, Op.GTE, Op.NULL, Op.EXISTS])


@st.composite
def _tests(draw: st.DrawFn) -> Test:
    op = draw(_OPS)
    field = draw(st.sampled_from("fg"))
    if op in (Op.NULL, Op.EXISTS):
        return Test(field, op, (draw(st.booleans()),) if op is Op.EXISTS else ())
    values = tuple(draw(st.lists(_VALUES, min_size=1, max_size=3)))
    return Test(field, op, values, draw(st.booleans()), draw(st.booleans()))


def _nodes(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several_parts = st.lists(parts, max_size=3).map(tuple)
    return several_parts.map(All) | several_parts.map(Any) | parts.map(Not)


_CONDITIONS = st.recursive(_tests(), _nodes, max_leaves=6)
_RECORDS = st.dictionaries(st.sampled_from("fg"), _VALUES | st.none())


@given(_CONDITIONS, st.lists(_RECORDS, max_size=12))
@settings(max_examples=100, deadline=None)
def test_no_record_satisfies_what_is_called_dead(condition: Node, records: list[dict[str, object]]):
    if judge(condition, one).dead:
        assert not [record for record in records if holds(condition, record, "")]


@given(_tests(), _tests(), st.lists(_RECORDS, max_size=12))
@settings(max_examples=100, deadline=None)
def test_what_is_implied_holds(first: Test, second: Test, records: list[dict[str, object]]):
    if implies(first, second):
        assert all(holds(second, record, "") for record in records if holds(first, record, ""))

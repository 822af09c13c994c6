"""What no rule can hold on is told before a record is read, and never of a record that some rule holds on.
Counterpart: vedette.detections.interest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detections.parts import batch_of, engine_of

from vedette.detections.interest import Interest
from vedette.model.events import RecordKind
from vedette.model.levels import Level
from vedette.model.rules import All, Any, LogSource, Node, Not, Op, Raw, Rule, Test

SSHD = RecordKind("linux", services=frozenset({"sshd", "auth"}))


def rule(when: Node) -> Rule:
    return Rule("r", "r", Level.LOW, when, logsource=LogSource("linux", service="sshd"))


def equals(field: str, *values: str | bool, cased: bool = False) -> Test:
    return Test(field, Op.EQUALS, values, cased=cased)


def test_a_constant_that_no_rule_asks_for_is_of_no_interest():
    interest = Interest([rule(equals("event.action", "ssh-login-failed", "ssh-login-succeeded"))])
    assert interest(SSHD, {"event.action": "ssh-login-failed"})
    assert interest(SSHD, {"event.action": "SSH-Login-Failed"})
    assert not interest(SSHD, {"event.action": "ssh-disconnected"})
    assert not interest(SSHD, {"event.action": None})
    assert interest(SSHD, {"user.name": "root"})
    assert not interest(RecordKind("linux", services=frozenset({"su"})), {"event.action": "ssh-login-failed"})


def test_what_is_not_known_may_be_anything():
    failed = equals("event.action", "ssh-login-failed")
    known = {"event.action": "ssh-disconnected"}
    assert Interest([rule(Any((failed, Raw("root"))))])(SSHD, known)
    assert not Interest([rule(All((failed, Raw("root"))))])(SSHD, known)
    assert Interest([rule(Not(All((failed, Raw("root")))))])(SSHD, known)
    assert Interest([rule(Not(failed))])(SSHD, known)
    assert not Interest([rule(Not(Not(failed)))])(SSHD, known)
    assert Interest([rule(Test("event.action", Op.LIKE, ("ssh-*",)))])(SSHD, known)
    assert not Interest([rule(Test("event.action", Op.LIKE, ("ssh-*",)))])(SSHD, {"event.action": None})
    assert Interest([rule(Test("event.action", Op.NULL, (True,)))])(SSHD, {"event.action": None})
    assert not Interest([rule(equals("vedette.ssh.preauth", True))])(SSHD, {"vedette.ssh.preauth": False})
    assert Interest([rule(equals("vedette.ssh.preauth", "TRUE"))])(SSHD, {"vedette.ssh.preauth": True})


FIELDS = ("event.action", "user.name", "host.name")
TEXTS = ("a", "A", "ab", "1", "", "ß", "SS", "\u212a", "k", "İ", "i̇")

tests = st.builds(
    Test,
    st.sampled_from(FIELDS),
    st.sampled_from([Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.LIKE, Op.EXISTS, Op.NULL]),
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3).map(tuple),
    cased=st.booleans(),
).map(lambda test: Test(test.field, test.op, (True,)) if test.op in (Op.EXISTS, Op.NULL) else test)
nodes = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda some: All(tuple(some))),
        st.lists(inner, max_size=3).map(lambda some: Any(tuple(some))),
        inner.map(Not),
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    nodes,
    st.fixed_dictionaries({}, optional={name: st.sampled_from(TEXTS) for name in FIELDS}),
    st.sets(st.sampled_from(FIELDS)),
)
def test_a_record_that_a_rule_holds_on_is_of_interest_whatever_is_known_of_it(
    when: Node, fields: dict[str, str], told: set[str]
):
    line = " ".join(["t=1", "service=sshd", *(f"{name}={value}" for name, value in fields.items())])
    engine = engine_of([rule(when)])
    holds = bool(engine.process(batch_of([line])).findings)
    interest = Interest([rule(when)])
    assert interest(SSHD, {name: fields.get(name) for name in told}) or not holds
    # With everything known only what is undecided beyond ASCII, or told by no value, is left open.
    if not interest(SSHD, {name: fields.get(name) for name in FIELDS}):
        assert not holds

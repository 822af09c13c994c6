"""Audit lines are joined by what they say, however many of them are seen at a time.
Counterpart: src/vedette/text/audit_lines.py."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.model.batch import split_lines
from vedette.text import audit_lines
from vedette.text.audit_lines import arrange

Event = tuple[int, bytes]


def line(kind: str, serial: int, node: str = "", more: str = "") -> bytes:
    return f"{node}type={kind} msg=audit(1795132800.005:{serial}): x{more}".encode()


def joined(*lines: bytes, **words: object) -> list[Event]:
    block = b"".join(each + b"\n" for each in lines)
    found = arrange(block, *split_lines(block), **words)
    spans = zip(found.firsts.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True)
    return [(first, found.block[start:end]) for first, start, end in spans]


def obvious(lines: list[bytes], held: int, reach: int) -> list[Event]:
    """What `arrange` does, one line at a time, all lines known, bounded by lines alone."""
    begin, out = 0, []
    while begin < len(lines):
        own: list[int] = []
        last: dict[bytes, int] = {}
        for at in range(begin, len(lines)):
            head, bracket, rest = lines[at].partition(b"audit(")
            name = rest.partition(b")")[0] + head.partition(b"type=")[0]
            if not bracket:
                own.append(at)
                continue
            before = last.pop(name, -1)
            own.append(own[before - begin] if before >= 0 and at - before <= reach else at)
            kind = head.partition(b"type=")[2].split(b" ")[0]
            if not (kind in (b"EOE", b"PROCTITLE") or kind.startswith((b"USER_", b"SERVICE_"))):
                last[name] = at
        stop = len(lines)
        cut = begin
        for at in range(begin + 1, len(lines) + 1):
            if not set(own[: at - begin]) & set(own[at - begin :]):
                cut = at
            if at - cut >= held and at < len(lines):
                stop = at
                break
        for first in range(begin, stop):
            its = [lines[at] for at in range(begin, stop) if own[at - begin] == first]
            its = [each for each in its if b"type=EOE " not in each]
            whose = [at for at in range(begin, stop) if own[at - begin] == first and b"type=EOE " not in lines[at]]
            if its:
                out.append((whose[0], b"\n".join(its)))
        begin = stop
    return out


records = st.builds(
    line,
    st.sampled_from(["SYSCALL", "PATH", "CWD", "PROCTITLE", "EOE", "LOGIN", "USER_CMD", "SERVICE_START"]),
    st.integers(1, 4),
    st.sampled_from(["", "", "", "node=a ", "node=b "]),
) | st.just(b"no record of audit")
several = st.lists(records, max_size=30)


@pytest.fixture
def _tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_lines, "REACH", 3)
    monkeypatch.setattr(audit_lines, "HELD", 7)


@pytest.mark.usefixtures("_tight")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=several, cuts=st.lists(st.integers(1, 8), max_size=12))
def test_events_are_those_of_the_obvious_way_and_the_same_however_lines_come(lines: list[bytes], cuts: list[int]):
    whole = joined(*lines)
    assert whole == obvious(lines, held=7, reach=3)
    found: list[Event] = []
    done = seen = 0
    for size in [*cuts, len(lines)]:
        seen = min(seen + size, len(lines))
        final = seen == len(lines)
        block = b"".join(each + b"\r\n" for each in lines[done:seen])
        events = arrange(block, *split_lines(block), final=final)
        spans = zip(events.firsts.tolist(), events.starts.tolist(), events.ends.tolist(), strict=True)
        found += [(done + first, events.block[start:end].replace(b"\r", b"")) for first, start, end in spans]
        done += events.lines
        # What waits is bounded.
        assert seen - done <= 7 + 3
        if final:
            break
    assert found == whole


def test_events_that_lie_in_one_another_come_apart():
    a, b = [line("SYSCALL", 1), line("PATH", 1), line("PROCTITLE", 1)], [line("SYSCALL", 2), line("PROCTITLE", 2)]
    mixed = [a[0], b[0], a[1], b[1], b"other", a[2]]
    assert joined(*mixed) == [(0, b"\n".join(a)), (1, b"\n".join(b)), (4, b"other")]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"type=PATH node=%s msg=audit(", id="behind the type"),
        pytest.param(b"type=PATH\tnode=%s msg=audit(", id="behind a tab"),
        pytest.param(b"type=ANOM_ABEND_AND_MORE node=%s msg=audit(", id="behind a long type"),
        pytest.param(b"node=%s msg=audit(", id="no type"),
        pytest.param(b"x=y node=%s msg=audit(", id="of the length of a head without"),
        pytest.param(b"type=node=%s x=audit(", id="within a word"),
    ],
)
def test_a_node_is_found_wherever_it_stands_before_the_time(head: bytes):
    lines = [head % node + b"1795132800.005:1): x" for node in (b"a", b"b")]
    assert len(joined(*lines)) == (1 if b"type=node" in head else 2)


def test_nodes_are_told_apart_on_every_line():
    lines = [line("PATH", 1, "node=a "), line("PATH", 1, "node=b "), line("PATH", 1, "node=b ")]
    assert joined(*lines) == [(0, lines[0]), (1, lines[1] + b"\n" + lines[2])]


def test_the_end_of_an_event_is_no_part_of_it():
    lines = [line("SYSCALL", 1), line("PROCTITLE", 1), line("EOE", 1), line("SYSCALL", 2), line("EOE", 2)]
    assert joined(*lines) == [(0, b"\n".join(lines[:2])), (3, lines[3])]
    assert joined(line("EOE", 1)) == []


def test_a_record_after_the_last_one_is_an_event_of_its_own():
    lines = [line("SYSCALL", 1), line("PROCTITLE", 1), line("PATH", 1)]
    assert joined(*lines) == [(0, b"\n".join(lines[:2])), (2, lines[2])]


def test_an_event_waits_until_it_has_ended_or_is_out_of_reach():
    lines = [line("SYSCALL", 1), line("PATH", 1)]
    behind = [line("USER_LOGIN", n) for n in range(2, 80)]
    assert joined(*lines, *behind[:10], final=False) == []
    assert len(joined(*lines, *behind[: audit_lines.REACH], final=False)) == 1 + audit_lines.REACH
    assert joined(*lines, final=False, settled=1) == []
    assert joined(*lines, behind[0], final=False, settled=2) == [(0, b"\n".join(lines)), (2, behind[0])]


def test_a_login_is_told_with_the_call_that_made_it():
    lines = [line("LOGIN", 1), line("SYSCALL", 1), line("PROCTITLE", 1)]
    assert joined(*lines) == [(0, b"\n".join(lines))]


def test_bytes_bound_what_is_joined(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_lines, "HELD_BYTES", 200)
    lines = [line("PATH", 1, more=str(n) * 50) for n in range(4)]
    block = b"".join(each + b"\n" for each in lines)
    found = arrange(block, *split_lines(block))
    assert found.firsts.tolist() == [0, 2]
    assert found.cut == 1
    monkeypatch.setattr(audit_lines, "REACH_BYTES", 100)
    far = [line("PATH", 1), b"y" * 150, line("PATH", 1)]
    assert [first for first, _ in joined(*far)] == [0, 1, 2]

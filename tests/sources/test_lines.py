"""Records depend on the bytes, not on how they arrived.
Counterpart: src/vedette/sources/lines.py and multiline.py."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.batch import RecordFormat, split_lines
from vedette.sources.lines import AUDIT_WAIT, Cut, Lines
from vedette.sources.settings import LineSettings, MultilineSettings
from vedette.text.audit_lines import arrange

SMALL = LineSettings(max_record=1024)
JOINED = LineSettings(max_record=1024, multiline=MultilineSettings(max_lines=3, max_bytes=200))
AUDIT = LineSettings(max_record=1024, format=RecordFormat.AUDIT)
STARTED = LineSettings(max_record=1024, multiline=MultilineSettings(start=r"^\d", max_lines=3, max_bytes=200))


def records(cut: Cut | None) -> list[tuple[int, bytes]]:
    if cut is None:
        return []
    return [
        (int(position), cut.block[start:end])
        for position, start, end in zip(cut.positions, cut.starts, cut.ends, strict=True)
    ]


def read(settings: LineSettings, *pieces: bytes) -> tuple[list[tuple[int, bytes]], Lines]:
    lines = Lines(settings)
    found = [record for piece in pieces for record in records(lines.feed(piece))]
    return found + records(lines.finish()), lines


line = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"\r", b" more", b"\tmore", b"1 first", b"\0" * 30]),
    st.integers(1000, 1100).map(lambda n: b"x" * n),
    st.integers(900, 1100).map(lambda n: b"\0" * n + b"after the hole"),
)
ends = st.sampled_from([b"\n", b"\r\n"])
text = st.lists(st.tuples(line, ends), max_size=12).flatmap(
    lambda lines: st.sampled_from([b"", b"half"]).map(lambda half: b"".join(a + b for a, b in lines) + half)
)


@given(text=text, cuts=st.lists(st.integers(0, 5000), max_size=8), config=st.sampled_from([SMALL, JOINED, STARTED]))
def test_the_same_records_however_the_bytes_arrive(text: bytes, cuts: list[int], config: LineSettings):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    whole, at_once = read(config, text)
    assert read(config, *pieces)[0] == whole
    assert at_once.position == len(text)
    for position, record in whole:
        assert text[position : position + len(record)] == record


@given(text=text)
def test_every_byte_is_in_a_record_or_counted(text: bytes):
    found, lines = read(SMALL, text)
    *whole, half = text.split(b"\n")
    wanted = [line.removesuffix(b"\r") for line in whole] + ([half] if half else [])
    assert [record for _, record in found] == [
        line if len(line) <= 1024 else line.lstrip(b"\0")[:1024] for line in wanted
    ]
    assert lines.too_long == sum(len(line.lstrip(b"\0")) > 1024 for line in wanted)


def test_a_half_line_waits_for_its_newline():
    lines = Lines(SMALL)
    assert records(lines.feed(b"one\ntw")) == [(0, b"one")]
    assert lines.position == 4
    assert records(lines.feed(b"o\r\n")) == [(4, b"two")]


def test_a_line_too_long_is_cut_counted_and_its_rest_passed_over():
    lines = Lines(SMALL)
    assert records(lines.feed(b"y" * 1500)) == [(0, b"y" * 1024)]
    assert lines.too_long == 1
    assert lines.skipping
    assert records(lines.feed(b"y" * 100)) == []
    assert records(lines.feed(b"y\nnext\n")) == [(1602, b"next")]


def test_a_hole_does_not_take_the_line_after_it_along():
    found, lines = read(SMALL, b"\0" * 3000, b"\0" * 3000 + b"after\n")
    assert found == [(6000, b"after")]
    assert lines.holes == 6000
    assert lines.too_long == 0


def test_a_hole_is_passed_over_to_its_end_wherever_it_is_cut():
    hole = b"\n" + b"\0" * 1027 + b"after\n"
    assert read(SMALL, hole)[0] == read(SMALL, hole[:1027], hole[1027:])[0] == [(0, b""), (1028, b"after")]


def test_nul_and_invalid_utf8_pass_through():
    assert read(SMALL, b"a\0b\xff\xfe\n\x80\n")[0] == [(0, b"a\0b\xff\xfe"), (6, b"\x80")]


def test_lines_that_go_on_are_joined_and_held_until_the_next_begins():
    lines = Lines(JOINED)
    assert records(lines.feed(b"Traceback\n  at a\n")) == []
    assert lines.holding
    assert records(lines.feed(b"\tat b\nnext\n")) == [(0, b"Traceback\n  at a\n\tat b")]
    assert records(lines.flush(1.0)) == [(23, b"next")]
    assert not lines.holding


def test_a_start_pattern_joins_what_does_not_match():
    assert read(STARTED, b"1 a\nb\n2 c\n")[0] == [(0, b"1 a\nb"), (6, b"2 c")]


def test_a_joined_record_is_closed_at_its_bounds_and_counted():
    found, lines = read(JOINED, b"a\n" + b" b\n" * 4)
    assert [record for _, record in found] == [b"a\n b\n b", b" b\n b"]
    assert lines.overflowed == 1


def audit(kind: str, serial: int) -> bytes:
    return f"type={kind} msg=audit(1795132800.005:{serial}): x\n".encode()


@settings(max_examples=60)
@given(
    lines=st.lists(
        st.builds(audit, st.sampled_from(["SYSCALL", "PATH", "PROCTITLE", "USER_CMD"]), st.integers(1, 3)), max_size=20
    ),
    cuts=st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=12),
)
def test_audit_events_are_those_of_replay_through_any_cuts_and_restarts(
    lines: list[bytes], cuts: list[tuple[int, bool]]
):
    text = b"".join(lines)
    whole = arrange(text, *split_lines(text))
    firsts = split_lines(text)[0]
    wanted = [
        (int(firsts[first]), whole.block[start:end])
        for first, start, end in zip(whole.firsts, whole.starts, whole.ends, strict=True)
    ]
    reader, found = Lines(AUDIT), []
    for size, restarts in cuts:
        found += records(reader.feed(text[reader.read_to :][:size]))
        if restarts:
            reader = Lines(AUDIT, position=reader.position, before=reader.before)
    found += records(reader.feed(text[reader.read_to :]))
    assert found + records(reader.finish()) == wanted
    assert reader.position == len(text)
    assert reader.split == 0


def test_an_audit_event_without_an_end_waits_for_a_while_and_no_longer():
    lines = Lines(AUDIT)
    first, second, other = audit("SYSCALL", 1), audit("PATH", 1), audit("USER_CMD", 2)
    assert records(lines.feed(first, 10.0)) == []
    assert records(lines.feed(second + other, 10.0 + AUDIT_WAIT / 2)) == []
    assert lines.due == 10.0 + AUDIT_WAIT
    # The event goes on in a line that has not waited long enough.
    assert records(lines.flush(10.0 + AUDIT_WAIT)) == []
    assert lines.due == 10.0 + 1.5 * AUDIT_WAIT
    wanted = (first + second).rstrip(b"\n")
    assert records(lines.flush(11.0 + AUDIT_WAIT)) == [(0, wanted), (len(first + second), other.rstrip(b"\n"))]
    assert lines.due is None
    assert records(lines.feed(audit("PROCTITLE", 1), 20.0)) == [
        (len(first + second + other), audit("PROCTITLE", 1).rstrip(b"\n"))
    ]
    assert lines.split == 1


def test_lines_of_audit_that_come_in_small_pieces_are_not_noted_one_by_one():
    lines = Lines(AUDIT)
    for at, byte in enumerate(audit("SYSCALL", 1)):
        lines.feed(bytes([byte]), at * 1e-6)
    assert lines.due == AUDIT_WAIT
    assert len(records(lines.flush(2 * AUDIT_WAIT))) == 1


def test_an_audit_event_that_is_too_long_is_cut_and_counted():
    found, lines = read(AUDIT, *[audit("PATH", 1)] * 40, audit("PROCTITLE", 1))
    assert [len(record) for _, record in found] == [1024]
    assert lines.too_long == 1

"""Security records go by their own lane, the rest by the other; order and everything else stays.
Counterpart: vedette.fleet.lanes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.fleet.lanes import Lanes, cut, facilities, select
from vedette.fleet.settings import LanesSettings
from vedette.model.batch import Batch, GivenHeader, Origin
from vedette.model.events import Column
from vedette.model.shipping import Lane


def batch(*records: bytes, source: str = "journal", programs: list[str] | None = None, dropped: int = 0) -> Batch:
    n = len(records)
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    starts = 2 + np.cumsum(lengths + 1) - lengths - 1
    header = None
    if programs is not None:
        numbers = np.arange(n, dtype=np.int64)
        header = GivenHeader(numbers, [f"h{row}" for row in range(n)], programs, numbers + 5)
    return Batch(
        Origin("host", source),
        0,
        b"??" + b"\n".join(records),
        starts,
        starts + lengths,
        np.arange(n, dtype=np.int64) * 3,
        0,
        trust=np.arange(n, dtype=np.uint8) % 3,
        header=header,
        dropped={"late": dropped} if dropped else {},
    )


def raws(one: Batch) -> list[bytes]:
    return [one.raw(row) for row in range(len(one))]


def test_records_of_named_programs_are_split_off() -> None:
    parts = Lanes(LanesSettings())(batch(b"a", b"b", b"c", programs=["sshd", "web", "sudo"], dropped=2))
    (stream, lane, security), (other, bulk, rest) = parts
    assert (stream, lane, raws(security)) == ("journal#security", Lane.SECURITY, [b"a", b"c"])
    assert (other, bulk, raws(rest)) == ("journal", Lane.BULK, [b"b"])
    assert security.header is not None
    assert (security.header.host, security.header.pid.tolist()) == (["h0", "h2"], [5, 7])
    assert (security.positions.tolist(), security.trust_of(1)) == ([0, 6], 2)
    assert (security.dropped, rest.dropped) == ({}, {"late": 2})


@pytest.mark.parametrize(("programs", "lanes"), [(["web"] * 2, [Lane.BULK]), (["su"] * 2, [Lane.SECURITY])])
def test_a_batch_of_one_kind_is_one_part(programs: list[str], lanes: list[Lane]) -> None:
    assert [lane for _, lane, _ in Lanes(LanesSettings())(batch(b"a", b"b", programs=programs))] == lanes


def test_whole_sources_go_by_name() -> None:
    lanes = Lanes(LanesSettings())
    for source, lane in (("/var/log/auth.log", Lane.SECURITY), ("findings", Lane.SECURITY), ("/x/syslog", Lane.BULK)):
        given_batch = batch(b"a", source=source)
        assert list(lanes(given_batch)) == [(source, lane, given_batch)]
    empty = batch()
    assert list(lanes(empty)) == [("journal", Lane.BULK, empty)]


def test_program_names_may_come_from_a_parser() -> None:
    def programs(given_batch: Batch) -> Column:
        return Column.from_values(["sshd", None, "web"])

    parts = Lanes(LanesSettings(), programs)(batch(b"a", b"b", b"c"))
    assert [raws(part) for _, _, part in parts] == [[b"a"], [b"b", b"c"]]


@pytest.mark.parametrize(
    ("record", "security"),
    [
        (b"<34>x", True),
        (b"<86>1 x", True),
        (b"<104>", True),
        (b"<111>a", True),
        (b"<112>a", False),
        (b"<13>a", False),
        (b"<3>4", False),
        (b"<34", False),
        (b"34>x", False),
        (b"<999>", False),
        (b"", False),
    ],
)
def test_facilities_of_security(record: bytes, security: bool) -> None:
    assert facilities(batch(b"<34>before", record, b"4>")).tolist() == [True, security, False]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=5), st.booleans()), max_size=8), st.integers(1, 9), st.integers(1, 4))
def test_selected_and_cut_records_are_the_same_records(
    rows: list[tuple[bytes, bool]], block_limit: int, rows_limit: int
) -> None:
    whole = batch(*(record for record, _ in rows))
    chosen = np.array([wanted for _, wanted in rows], dtype=np.bool_)
    some = select(whole, chosen)
    assert raws(some) == [record for record, wanted in rows if wanted]
    assert some.positions.tolist() == whole.positions[chosen].tolist()
    pieces = list(cut(whole, block_limit, rows_limit))
    assert [record for piece in pieces for record in raws(piece)] == raws(whole)
    assert all(len(piece) <= rows_limit for piece in pieces if len(whole))
    assert all(len(piece.block) <= block_limit + 1 or len(piece) == 1 for piece in pieces if len(whole))


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (batch(b"a", source="file:/var/log/auth.log"), True),
        (batch(b"a", source="file:/var/log/app.log"), False),
        (batch(b"<13>a", b"<38>b", source="syslog:udp"), True),
        (batch(b"<13>a", b"<30>b", source="syslog:udp"), False),
        (batch(b"a", b"b", programs=["web", "sshd"]), True),
        (batch(b"a", b"b", programs=["web", "app"]), False),
    ],
    ids=["whole source", "another file", "facility", "other facilities", "program", "other programs"],
)
def test_what_is_of_security_as_far_as_can_be_told_at_once_must_not_wait(one: Batch, wanted: bool) -> None:
    assert Lanes(LanesSettings()).hurries(one) is wanted

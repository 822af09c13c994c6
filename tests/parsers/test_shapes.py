"""The vectorised machine means what the plain one means, for every pattern file and whatever the messages.
Counterpart: vedette.parsers.shapes and vedette.parsers.formats."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat
from vedette.model.events import Column, Value
from vedette.parsers import PatternSet, SyslogParser
from vedette.parsers.formats import Capture, CaptureType, Literal
from vedette.parsers.registry import FlatShape
from vedette.parsers.written import read_file, read_patterns

# Shapes that no file has yet: captures joined to texts, several in a chunk, three texts, optional parts.
ODD = read_file(
    b"""
service: odd
program: [odd]
cut: 60
patterns:
  - id: odd-joined
    formats:
      - 'j {event.reason:text}:{source.port:int}'
      - 'k {event.reason:text}[{user.name:word}]:{source.ip:ip}'
      - 'l {user.name:word}:{event.reason:text}/{destination.port:int} end'
      - '{user.name:word}({:int}): {event.reason:text}'
  - id: odd-texts
    formats:
      - 'm {user.name:text} from {source.ip:ip} port {source.port:int} {event.reason:text} by {:ip}'
      - 'n {user.name:text} a {event.reason:text} b {process.command_line:text}'
      - 'm {user.name:text} from {source.address:addr}'
      - '{event.reason:text} from {source.ip:ip}'
  - id: odd-rest
    rest: true
    formats: ['m {event.reason:text}', 'x<y><z>', '{user.id:opt}']
""",
    "odd.yml",
)
ALL = PatternSet((*read_patterns().files, ODD))
PLAIN = SyslogParser(ALL, light=1_000_000)
FAST = SyslogParser(ALL, light=0)
HEAD = b"Nov 24 02:53:13 h "
PROGRAMS = sorted({file.programs[0] for file in ALL.files} | {"cron", "sshd(pam_unix)"})


def batch_of(records: list[bytes]) -> Batch:
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return Batch(
        origin=Origin("h", "file"),
        number=0,
        block=b"\n".join(records) + b"\n",
        starts=ends - lengths,
        ends=ends,
        positions=np.arange(len(records), dtype=np.int64),
        read_at=1_795_500_000_000_000,
    )


def listed(column: Column) -> list[tuple[bool, Value]]:
    values = [*column.values, None]
    return [(code >= 0, values[code]) for code in column.codes.tolist()]


def assert_same(records: list[bytes]) -> None:
    assert_same_batch(batch_of(records))


def assert_same_batch(batch: Batch) -> None:
    fast, plain = FAST.parse(batch), PLAIN.parse(batch)
    assert fast.fields() == plain.fields()
    for name in fast.fields():
        one, other = listed(fast.column(name)), listed(plain.column(name))
        if one != other:
            wrong = [(batch.raw(row), name, a, b) for row, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
            assert not wrong
    assert fast.ambiguous.tolist() == plain.ambiguous.tolist()
    assert fast.time.tolist() == plain.time.tolist()


def headed(program: str, message: bytes) -> bytes:
    return HEAD + program.encode() + b"[1]: " + message


SAMPLES = [
    headed(program, sample.message)
    for file in ALL.files
    for pattern in file.patterns
    for sample in pattern.samples
    for program in file.programs[:1]
]
FILE_OF = {file.service: file for file in ALL.files}
LITERALS = sorted({e.text for flat in ALL.shapes for e in flat.shape.elements if isinstance(e, Literal)})

_hostile = st.one_of(
    st.sampled_from(
        [b"", b" ", b"  ", b"root", b"x from 203.0.113.9 port 1 ssh2", b"203.0.113.9", b"::ffff:198.51.100.7"]
    )
    | st.sampled_from(
        [b"a:b", b"[x]", b"(", b"\0", b"\xff\xfe", b"'", b"0", b"00", b"w" * 70, b"w" * 200 + b" x", b"1" * 21]
    )
    | st.sampled_from(
        [b"198.51.100.7", b"2001:db8::1", b"fe80::1%eth0", b"01.2.3.4", b"host.example", b"port", b"[preauth]"]
    ),
    st.sampled_from(LITERALS),
    st.binary(max_size=6).map(lambda text: text.replace(b"\n", b"?")),
)
_words = {
    CaptureType.WORD: st.sampled_from([b"password", b"a", b"a:b", b"x" * 80, b"((", b"SHA256:" + b"y" * 43]) | _hostile,
    CaptureType.OPT: st.sampled_from([b"", b"a", b"x" * 65]) | _hostile,
    CaptureType.INT: st.sampled_from([b"0", b"22", b"65535", b"12345678", b"123456789", b"1" * 20, b"1" * 21, b""]),
    CaptureType.IP: st.sampled_from([b"198.51.100.7", b"2001:db8::7", b"::ffff:203.0.113.9", b"1.2.3", b"203.0.113.9"]),
    CaptureType.ADDR: st.sampled_from([b"198.51.100.7", b"host.example", b"", b"203.0.113.9"]),
    CaptureType.TEXT: st.lists(_hostile, max_size=4).map(b" ".join),
}


@st.composite
def _written(draw: st.DrawFn) -> bytes:
    """A message as some format writes it, its captures filled with good and bad values."""
    flat: FlatShape = draw(st.sampled_from(ALL.shapes))
    parts = [draw(_words[e.type]) if isinstance(e, Capture) else e.text for e in flat.shape.elements]
    program = draw(st.sampled_from([FILE_OF[flat.service].programs[0], draw(st.sampled_from(PROGRAMS))]))
    return headed(program, b"".join(parts))


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    record = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(len(HEAD), len(record)))
        record = record[:at] + draw(_hostile) + record[at + draw(st.integers(0, 4)) :]
    return record


_record = st.one_of(
    _written(),
    _mutated(),
    st.tuples(st.sampled_from(PROGRAMS), st.lists(_hostile, max_size=8)).map(lambda p: headed(p[0], b" ".join(p[1]))),
)


def test_the_samples_of_all_files():
    assert_same(SAMPLES)


def test_samples_with_one_byte_too_few_too_many_or_wrong():
    records = []
    for number, record in enumerate(SAMPLES):
        for at in range(len(HEAD) + number % 3, len(record), 3):
            kind = (at + number) % 4
            records.append(
                [
                    record[:at] + record[at + 1 :],
                    record[:at] + record[at : at + 1] + record[at:],
                    record[:at] + b"~" + record[at + 1 :],
                    record[:at] + b" " + record[at + 1 :],
                ][kind]
            )
    assert len(records) > 10_000
    assert_same(records)


def test_messages_that_lie_close_together_are_not_read_into_each_other():
    # No byte between one record and the next: what one begins the next could end.
    pieces: list[tuple[str, bytes]] = []
    for file in ALL.files:
        for sample in [sample for pattern in file.patterns for sample in pattern.samples]:
            for at in range(1 + len(pieces) % 7, len(sample.message), 7):
                pieces += [(file.programs[0], sample.message[:at]), (file.programs[0], sample.message[at:])]
    lengths = np.array([len(message) for _, message in pieces], dtype=np.int64)
    ends = np.cumsum(lengths)
    batch = Batch(
        origin=Origin("h", "journal"),
        number=0,
        block=b"".join(message for _, message in pieces),
        starts=ends - lengths,
        ends=ends,
        positions=np.arange(len(pieces), dtype=np.int64),
        read_at=0,
        format=RecordFormat.MESSAGE,
        header=GivenHeader(
            time=np.arange(len(pieces), dtype=np.int64),
            host=["h"] * len(pieces),
            program=[program for program, _ in pieces],
            pid=np.ones(len(pieces), dtype=np.int64),
        ),
    )
    assert_same_batch(batch)


@settings(max_examples=40)
@given(st.lists(_record, min_size=1, max_size=30))
@example([headed("odd", b"m x from 1.2.3.4 port 1 y by 5.6.7.8")])
def test_any_messages(records: list[bytes]):
    assert_same(records)


@given(
    st.integers(440, 560), st.lists(_hostile, min_size=1, max_size=3), st.sampled_from(["invalid user ", "user ", ""])
)
def test_messages_about_as_long_as_the_program_cuts_them(length: int, words: list[bytes], kind: str):
    message = b"Connection closed by " + kind.encode() + b" ".join(words)
    tail = b" 203.0.113.9 port 22 [preauth]"
    message = message[:length].ljust(max(length - len(tail), 0), b"x") + tail
    assert_same([headed("sshd", message), headed("sshd", b"Received disconnect from 1.2.3.4 port 1:11: " + message)])


def test_a_million_bytes_of_anything_cost_no_more_than_their_length():
    # Whoever made these cost the square of their length would not come back.
    million = 1 << 20
    texts = [
        b"a" * million,
        b" " * million,
        b"a " * (million // 2),
        b"' from 1.2.3.4 " * (million // 15),
        b"[" * million,
    ]
    records = []
    for text in texts:
        records += [
            headed("sshd", head + text) for head in (b"Failed password for ", b"Invalid user ", b"error: ", b"")
        ]
        records += [headed("odd", b"n " + text), headed("sudo", text), headed("x", b"pam_unix(" + text)]
        records.append(headed("sshd", b"Failed publickey for x from 1.2.3.4 port 1 ssh2: A B ID " + text))
    batch = batch_of(records)
    table = FAST.parse(batch)
    named = {name: table.column(name) for name in ("source.ip", "event.action", "user.name")}
    assert named["event.action"].value(0) == "ssh-message-cut"
    assert len(named["source.ip"].codes) == len(records)


def test_more_readings_than_anybody_lists_are_ambiguous():
    text = b" a ".join(b"x" for _ in range(200))
    table = FAST.parse(batch_of([headed("odd", b"n x" + text + b" b y"), headed("odd", b"n x a y b z")]))
    assert table.ambiguous.tolist() == [0]
    assert table.column("vedette.source.candidates").value(0) == ()

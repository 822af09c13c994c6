"""Linux audit: joined events under native, Sysmon and ECS names, kinds, hostile bytes.
Counterpart: src/vedette/parsers/{audit,audit_values,syscalls}.py and text/audit_lines.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.formats import audit_in
from vedette.model.batch import Batch, Origin, RecordFormat, split_lines
from vedette.model.events import Table, Value
from vedette.model.reasons import DropReason
from vedette.parsers import audit_spans
from vedette.parsers.audit import AuditParser
from vedette.parsers.audit_spans import together
from vedette.parsers.audit_values import command_line, title, untrusted
from vedette.text.audit_lines import arrange
from vedette.text.escape import decode

_CALL = (
    "type=SYSCALL msg=audit(1795132800.005:{serial}): arch=c000003e syscall={call} success={success} exit=0 "
    'a0=ffffff9c a1=7ffd a2={flags} a3=8 ppid=7 pid=9 auid=1000 uid={uid} gid=0 euid=0 tty=pts0 ses=1 comm="sh" '
    'exe="/usr/bin/dash" key="k"'
)


def call(number: int, *, serial: int = 1, success: str = "yes", flags: str = "0", uid: int = 0) -> str:
    return _CALL.format(call=number, serial=serial, success=success, flags=flags, uid=uid)


def more(kind: str, text: str, serial: int = 1) -> str:
    return f"type={kind} msg=audit(1795132800.005:{serial}): {text}"


EXECVE = [
    call(59),
    more("EXECVE", 'argc=3 a0="sh" a1="-c" a2=6964203B206964'),
    more("CWD", 'cwd="/srv"'),
    more("PATH", 'item=0 name="/usr/bin/dash" inode=1 nametype=NORMAL'),
    more("PROCTITLE", "proctitle=7368002D63"),
]
CONNECT = [call(42), more("SOCKADDR", "saddr=020001BBC6336407")]
CREATE = [
    call(257, flags="241"),
    more("CWD", 'cwd="/srv"'),
    more("PATH", 'item=0 name="/srv/" inode=1 nametype=PARENT'),
    more("PATH", 'item=1 name="out.txt" inode=2 nametype=CREATE'),
]


def table_of(*lines: str | bytes, counter: Counters | None = None) -> Table:
    block = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    events = arrange(block, *split_lines(block))
    batch = Batch(
        Origin("host", "test"), 0, events.block, events.starts, events.ends, events.firsts, 5, RecordFormat.AUDIT
    )
    return AuditParser(counter).parse(batch)


def first(table: Table, *fields: str) -> dict[str, Value]:
    return {field: table.column(field).value(0) for field in fields}


def categories(table: Table) -> list[set[str]]:
    return [set(table.kinds.kinds[code].categories) for code in table.kinds.codes]


def test_a_program_that_was_run() -> None:
    table = table_of(*EXECVE)
    assert categories(table) == [{"process_creation"}]
    wanted = {
        "type": ("SYSCALL", "EXECVE", "CWD", "PATH", "PROCTITLE"),
        "SYSCALL": "execve",
        "Image": "/usr/bin/dash",
        "CommandLine": "sh -c id ; id",
        "a0": "sh",
        "a2": "id ; id",
        "a3": None,
        "CurrentDirectory": "/srv",
        "User": "root",
        "process.pid": 9,
        "ParentProcessId": 7,
        "proctitle": "sh -c",
        "key": "k",
        "event.outcome": "success",
        "@timestamp": "2026-11-20T00:00:00.005000Z",
    }
    assert first(table, *wanted) == wanted
    assert table.kinds.kinds[0].services == {"auditd"}
    assert "id ; id" in table.strings([0])[0]


def test_split_arguments_are_put_together() -> None:
    table = table_of(call(59), more("EXECVE", 'argc=2 a0="cat" a1_len=8 a1[0]="/etc" a1[1]="/abc"'))
    assert first(table, "CommandLine", "a0", "a1") == {"CommandLine": "cat /etc/abc", "a0": "cat", "a1": "/etc/abc"}


def test_connections_and_files() -> None:
    table = table_of(*CONNECT)
    assert categories(table) == [{"network_connection"}]
    wanted = {"DestinationIp": "198.51.100.7", "DestinationPort": 443, "Initiated": "true"}
    assert first(table, *wanted) == wanted
    table = table_of(*CREATE)
    assert categories(table) == [{"file_event"}]
    assert first(table, "TargetFilename", "a0") == {"TargetFilename": "/srv/out.txt", "a0": "ffffff9c"}
    assert categories(table_of(call(59, success="no"))) == [set()]


def test_enriched_and_user_space_records() -> None:
    table = table_of(call(59, uid=1000) + '\x1dARCH=x86_64 SYSCALL=execve AUID="anna" UID="anna"')
    assert first(table, "User", "SYSCALL") == {"User": "anna", "SYSCALL": "execve"}
    told = (
        'msg=\'op=login acct="root" exe="/usr/sbin/sshd" hostname=? addr=::ffff:198.51.100.9 terminal=ssh res=failed\''
    )
    table = table_of(more("USER_LOGIN", f"pid=3 uid=0 auid=0 ses=1 {told}"))
    wanted = {"source.ip": "198.51.100.9", "user.name": "root", "op": "login", "event.outcome": "failure"}
    assert first(table, *wanted) == wanted


def test_interleaved_events_come_apart_and_others_are_counted() -> None:
    second = [call(42, serial=2), more("SOCKADDR", "saddr=020001BBC6336407", 2)]
    counters = Counters()
    mixed = [EXECVE[0], second[0], EXECVE[1], second[1], "no audit record"]
    table = table_of(*mixed, counter=counters)
    assert categories(table) == [{"process_creation"}, {"network_connection"}, set()]
    assert table.batch.positions.tolist() == [0, 1, 4]
    assert table.untimed.tolist() == [2]
    assert counters.value("records_unreadable", DropReason.HEADER_UNREADABLE) == 1


def test_the_same_events_however_the_file_is_read() -> None:
    lines = [line.replace(":1)", f":{n})") for n in range(40) for line in EXECVE]
    data = "".join(f"{line}\n" for line in lines).encode()

    def events(piece: int, size: int) -> list[tuple[bytes, int]]:
        pieces = (data[at : at + piece] for at in range(0, len(data), piece))
        blocks = audit_in(pieces, size, 1 << 20)
        return [(block[start:end], line) for block, spans, _ in blocks for start, end, line in spans.T.tolist()]

    whole = events(1 << 20, 1 << 20)
    assert [line for _, line in whole] == list(range(1, 201, 5))
    assert events(100, 5_000) == whole == events(977, 1)


_BITS = st.sampled_from(
    [*EXECVE, *CONNECT, *CREATE, "type=", "type=EXECVE msg=audit(1.2:3): a0=", "saddr=02", "\x1d", ""]
)


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=40) | _BITS.map(str.encode), max_size=6))
def test_nothing_raises(lines: list[bytes]) -> None:
    table = table_of(*lines)
    for field in (
        "type",
        "CommandLine",
        "a0",
        "a1",
        "TargetFilename",
        "DestinationIp",
        "source.ip",
        "User",
        "key",
        "x.y",
    ):
        column = table.column(field)
        assert len(column.codes) == len(table)
        assert int(column.codes.max(initial=-1)) < len(column.values)
    assert len(table.strings(range(len(table)))) == len(table) == len(table.time)


_ONE_WORD = ["proctitle=7368002D63", "a1=6964203B206964", "inode=519501", "x='a=414243'", "414243", "k=41424", "k=4142"]
_MORE_WORDS = [
    "K=414243",
    "k=61626C",
    "msg='cmd=2F62 r=1'",
    "k=414243\x1dUID=524F4F",
    "\tk=414243\tb",
    'a0="sh"',
    "é=414243",
    "nametype=CC4243",
    "hostname9=414243",
    "Hostname9=414243",
    "hostnäme=414243",
    f"{'n' * 70}=414243",
    "ab=c=414243",
    "msg='abc=414243'",
]
_WORDS = st.sampled_from([*_ONE_WORD, *_MORE_WORDS])


@settings(max_examples=60)
@given(st.lists(st.lists(_WORDS, max_size=5), min_size=1, max_size=4))
def test_texts_before_they_are_decoded_are_those_after(records: list[list[str]]) -> None:
    lines = []
    for serial, words in enumerate(records):
        lines += [call(59, serial=serial), more("EXECVE", " ".join(words), serial), "414243=414243 k=414243"]
    table = table_of(*lines)
    told: list[set[str]] = [set() for _ in range(len(table))]
    for texts in table.written() or ():
        for begin, end, row in zip(texts.starts.tolist(), texts.ends.tolist(), texts.rows.tolist(), strict=True):
            told[row].add(decode(texts.block[begin:end]))
    assert told == [set(texts) - {""} for texts in table.strings(range(len(table)))]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6))
def test_what_comes_several_times_in_a_row_is_told_once(runs: list[list[int]]) -> None:
    rows = np.repeat(np.arange(len(runs)) * 2, [len(run) for run in runs])
    codes = np.array([code for run in runs for code in run], dtype=np.int32)
    once, found, shapes = together(rows, codes)
    assert once.tolist() == [2 * at for at in range(len(runs))]
    assert [shapes[code] for code in found.tolist()] == [tuple(run) for run in runs]


def test_words_of_many_beginnings_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = first(table_of(*EXECVE), "type", "CommandLine", "success", "nametype", "exe", "none")
    monkeypatch.setattr(audit_spans, "_BEGINNINGS", 1)
    assert first(table_of(*EXECVE), "type", "CommandLine", "success", "nametype", "exe", "none") == expected


_TITLES = ["6C73", "6C7300", "6C73002D6C", "6C730A2D", "00", "6c73", "C3BC", "FF"]
_TITLES += ['"ls"', '"x', "", "6C7", "6C7G", "ls"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(_TITLES), min_size=1, max_size=30), st.booleans())
def test_titles_and_quoted_words_of_many_events_are_those_of_each(titles: list[str], twice: bool) -> None:
    quoted = [title for title in titles if title.startswith('"')]
    lines = [more("PROCTITLE", f"proctitle={title}", serial) for serial, title in enumerate(titles)]
    lines += [more("PATH", f"name={title}", len(titles) + serial) for serial, title in enumerate(quoted)]
    if twice:
        lines.append(more("PROCTITLE", "proctitle=6C73 proctitle=6170", 10**6))
    table = table_of(*lines)
    lines_of, names = table.column("CommandLine"), table.column("name")
    for row, told in enumerate(titles):
        assert lines_of.value(row) == title(told.encode())
    for row, told in enumerate(quoted):
        assert names.value(len(titles) + row) == untrusted(told.encode())
    if twice:
        assert lines_of.value(len(table) - 1) == ("ls", "ap")


_WRITTEN = ['a0="ls"', 'a1="-l"', 'a2=""', "a3=666F6F", 'a4="x"y', 'a5="a"b"c"', "a6=bare", 'a7_len=4 a7[0]="ab"']
_WRITTEN += ['a1234567="q"', 'msg=\'a8="in"', 'a9="unend', 'ab="x"', "a10=", 'a11="\udcff"', 'a12="ü"']
_PLAIN = st.lists(st.sampled_from(_WRITTEN[:3]), max_size=5)
_BEGINNINGS = ("type=EXECVE", "node=n type=EXECVE", "type=SYSCALL", "foo=type=EXECVE", "type=EXECVEX", "")
_ARGUMENTS = st.tuples(
    st.sampled_from(("type=EXECVE",) * 9 + _BEGINNINGS),
    st.one_of(_PLAIN, _PLAIN, st.lists(st.sampled_from(_WRITTEN), max_size=5)),
    st.sampled_from((" ",) * 9 + ("  ", "\x1d", "\r")),
)


@settings(max_examples=60)
@given(st.lists(st.lists(_ARGUMENTS, min_size=1, max_size=3), min_size=1, max_size=12))
def test_command_lines_of_many_events_are_those_of_each(records: list[list[tuple[str, list[str], str]]]) -> None:
    lines = [
        "\n".join(
            f"{head} msg=audit(1795132800.005:1):{between}{between.join(words)}" for head, words, between in record
        )
        for record in records
    ]
    raws = [line.encode(errors="surrogateescape") for line in lines]
    ends = np.cumsum([len(raw) + 1 for raw in raws]) - 1
    starts = ends - [len(raw) for raw in raws]
    batch = Batch(Origin("host", "test"), 0, b"\n".join(raws), starts, ends, starts, 5, RecordFormat.AUDIT)
    table = AuditParser().parse(batch)
    told, kinds = table.column("CommandLine"), table.column("type")
    for row, raw in enumerate(raws):
        kind = kinds.value(row)
        if "EXECVE" in (kind if isinstance(kind, tuple) else (kind,)):
            assert told.value(row) == command_line(raw, 0, len(raw))

"""From records to events: services, columns, derived fields, ambiguity, bare messages, explain; and real logs.
Counterpart: vedette.parsers.parser."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat, Trust, split_lines
from vedette.model.events import RecordKind, Table, Value
from vedette.model.fields import FIELDS
from vedette.model.reasons import BlameReason
from vedette.parsers import SyslogParser
from vedette.parsers.written import read_patterns
from vedette.text.times import parse_rfc3339

ALL = read_patterns()
READ_AT = parse_rfc3339("2026-11-24T12:00:00Z")
BOTH = pytest.mark.parametrize("light", [0, 1000], ids=["batch", "light"])


class Counted:
    """A counter that remembers."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def add(self, name: str, reason: Enum | str = "", n: int = 1) -> None:
        key = (name, str(reason))
        self.counts[key] = self.counts.get(key, 0) + n


def batch_of(text: bytes, **given: object) -> Batch:
    starts, ends = split_lines(text)
    options: dict = {"origin": Origin("h1", "file"), "number": 0, "read_at": READ_AT, "positions": starts, **given}
    return Batch(block=text, starts=starts, ends=ends, **options)


def parse(text: bytes, light: int = 0, wanted: frozenset[str] | None = None, **given: object) -> Table:
    return SyslogParser(ALL, wanted, light=light).parse(batch_of(text, **given))


def values(table: Table, field: str) -> list[object]:
    column = table.column(field)
    return [column.value(row) for row in range(len(table))]


LINES = b"""\
Nov 24 02:53:13 web1 sshd[6400]: Failed password for root from 198.51.100.7 port 4242 ssh2
Nov 24 02:53:14 web1 sshd[6400]: message repeated 2 times: [ Failed password for root from 198.51.100.7 port 4242 ssh2]
<86>Nov 24 02:53:15 sshd-session[6401]: Invalid user bob from 2001:db8:1:2ff::7 port 4243
Nov 24 02:53:16 web1 CRON[77]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)
Nov 24 02:53:17 web1 sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id
what is this
Nov 24 02:53:18 web2 sshd[6402]: pam_unix(sshd:session): session closed for user alice
Nov 24 02:53:19 web2 sshd[6403]: nobody ever wrote such a line
Nov 24 02:53:20 web2 some-daemon[1]: hello
2026-11-24T02:53:21.500000+00:00 web2 /usr/sbin/sshd[6404]: Accepted password for alice from 198.51.100.8 port 1 ssh2
"""


@BOTH
def test_the_columns_of_some_lines(light: int):
    table = parse(LINES, light)
    assert len(table) == 10
    assert table.unreadable == 1
    assert values(table, "vedette.service") == [
        *["sshd"] * 3,
        "pam",
        "sudo",
        None,
        "sshd",
        "sshd",
        None,
        "sshd",
    ]
    assert values(table, "vedette.service") == [table.column("vedette.service").value(row) for row in range(10)]
    assert values(table, "event.action") == [
        "ssh-login-failed",
        "ssh-login-failed",
        "ssh-user-unknown",
        "pam-session-opened",
        "sudo-command-run",
        None,
        "pam-session-closed",
        None,
        None,
        "ssh-login-succeeded",
    ]
    assert values(table, "vedette.pattern")[:5] == values(table, "event.action")[:5]
    assert values(table, "source.ip") == ["198.51.100.7"] * 2 + ["2001:db8:1:2ff::7", *[None] * 6, "198.51.100.8"]
    assert values(table, "source.port") == [4242, 4242, 4243, *[None] * 6, 1]
    assert values(table, "user.name") == ["root", "root", "bob", "root", "alice", None, "alice", None, None, "alice"]
    assert values(table, "vedette.source.prefix") == [
        *["198.51.100.0/24"] * 2,
        "2001:db8:1:2ff::/64",
        *[None] * 6,
        "198.51.100.0/24",
    ]
    assert values(table, "vedette.source.prefix_56") == [None, None, "2001:db8:1:200::/56", *[None] * 7]
    assert values(table, "vedette.ssh.connection") == [
        *["web1[6400]:4242"] * 2,
        "[6401]:4243",
        *[None] * 6,
        "web2[6404]:1",
    ]
    assert values(table, "vedette.repeat") == [1, 2, *[1] * 8]
    assert table.repeat is not None
    assert table.repeat.tolist() == [1, 2, *[1] * 8]
    assert values(table, "host.name") == ["web1", "web1", None, "web1", "web1", None, *["web2"] * 4]
    assert values(table, "process.name") == [
        *["sshd"] * 2,
        "sshd-session",
        "CRON",
        "sudo",
        None,
        "sshd",
        "sshd",
        "some-daemon",
        "/usr/sbin/sshd",
    ]
    assert values(table, "process.pid") == [6400, 6400, 6401, 77, None, None, 6402, 6403, 1, 6404]
    assert values(table, "log.syslog.facility.code") == [None, None, 10, *[None] * 7]
    assert values(table, "log.syslog.severity.code") == [None, None, 6, *[None] * 7]
    assert values(table, "host.id") == ["h1"] * 10
    assert values(table, "vedette.trust") == ["forgeable"] * 10
    assert values(table, "@timestamp")[9] == "2026-11-24T02:53:21.500000Z"
    assert values(table, "@timestamp")[5] == values(table, "event.created")[5] == "2026-11-24T12:00:00.000000Z"
    assert values(table, "message")[1] == "Failed password for root from 198.51.100.7 port 4242 ssh2"
    assert values(table, "message")[5] == values(table, "event.original")[5] == "what is this"
    assert str(values(table, "event.original")[4]).startswith("Nov 24 02:53:17 web1 sudo:    alice")
    assert values(table, "no.such.field") == [None] * 10
    starts, ends = table.message
    assert table.batch.block[starts[8] : ends[8]] == b"hello"


def test_every_field_a_table_gives_is_declared():
    assert set(parse(LINES).fields()) <= FIELDS.keys()


@BOTH
def test_an_empty_batch_is_an_empty_table(light: int):
    table = parse(b"", light)
    assert len(table) == 0
    assert [len(table.column(field).codes) for field in table.fields()] == [0] * len(table.fields())


@BOTH
def test_records_of_services_nobody_wants_keep_their_header_only(light: int):
    everything, some = parse(LINES, light), parse(LINES, light, frozenset({"sudo"}))
    assert values(some, "event.action") == [*[None] * 4, "sudo-command-run", *[None] * 5]
    for field in ("host.name", "vedette.service", "process.pid", "message"):
        assert values(some, field) == values(everything, field)
    # What a module says in the name of another program belongs to that program.
    assert values(parse(LINES, light, frozenset({"sshd"})), "event.action")[6] == "pam-session-closed"
    assert values(parse(LINES, light, frozenset({"sshd"})), "event.action")[3] is None


class Only:
    """Somebody looks at these actions of sshd, and at nothing else; None: at what has none."""

    fields = frozenset({"event.action"})

    def __init__(self, *actions: str | None) -> None:
        self.actions = actions

    def __call__(self, kind: RecordKind, known: Mapping[str, Value], /) -> bool:
        return "sshd" in kind.services and ("event.action" not in known or known["event.action"] in self.actions)


@pytest.mark.parametrize("times", [1, 30], ids=["light", "batch"])
def test_messages_nobody_looks_at_are_left_unmatched_and_all_others_are_read_as_ever(times: int):
    lines = (
        LINES
        + b"Nov 24 02:53:22 h sshd[1]: Received disconnect from 198.51.100.7 port 22:11: bye [preauth]\n"
        + b"Nov 24 02:53:22 h sshd[1]: Failed password for "
        + b"x" * 90
        + b" from 198.51.100.7 port 22 ssh2\n"
        + b"Nov 24 02:53:22 h sshd[1]: Failed none for root from 198.51.100.7 port 22 ssh2 and more\n"
    )
    wanted = ("ssh-login-failed", "pam-session-closed")
    everything = parse(lines * times)
    some = SyslogParser(ALL, interest=Only(*wanted)).parse(batch_of(lines * times))
    actions = values(everything, "event.action")
    assert values(some, "event.action") == [action if action in wanted else None for action in actions]
    for field in ("source.ip", "user.name", "source.port", "vedette.ssh.connection"):
        expected = zip(actions, values(everything, field), strict=True)
        assert values(some, field) == [value if action in wanted else None for action, value in expected]
    for field in ("host.name", "process.name", "vedette.service"):
        assert values(some, field) == values(everything, field)


@BOTH
def test_whoever_looks_at_what_matches_nothing_gets_everything(light: int):
    parser = SyslogParser(ALL, frozenset({"sshd"}), interest=Only(None), light=light)
    everything = parse(LINES, light, frozenset({"sshd"}))
    assert values(parser.parse(batch_of(LINES)), "event.action") == values(everything, "event.action")


@BOTH
def test_a_message_with_two_readings_names_no_source(light: int):
    message = b"Connection from user a 203.0.113.9 port 1: b 198.51.100.7 port 22: c"
    line = b"Nov 24 02:53:13 h sshd[1]: mm_answer: " + message + b"\n"
    counter = Counted()
    table = SyslogParser(ALL, None, counter, light=light).parse(batch_of(LINES + line * 2))
    assert table.ambiguous.tolist() == [10, 11]
    assert values(table, "source.ip")[10:] == [None, None]
    assert "203.0.113.9" not in table.column("source.ip").values
    assert values(table, "vedette.source.candidates") == [*[None] * 10, *[("198.51.100.7", "203.0.113.9")] * 2]
    assert counter.counts == {
        ("records_unreadable", "header-unreadable"): 1,
        ("records_not_blamed", "ambiguous"): 2,
    }


@BOTH
def test_a_message_that_may_have_lost_its_tail_names_no_source(light: int):
    head, tail = b"Connection closed by invalid user ", b" 203.0.113.9 port 22 [preauth]"
    for length, source in ((499, "203.0.113.9"), (500, None), (501, None)):
        message = head + b"x" * (length - len(head) - len(tail)) + tail
        table = parse(b"Nov 24 02:53:13 h sshd[1]: " + message + b"\n", light)
        assert values(table, "source.ip") == [source]
        assert values(table, "vedette.source.candidates") == [None if source else ("203.0.113.9",)]
        assert values(table, "event.action") == ["ssh-connection-closed"]


@BOTH
def test_text_that_is_no_utf8_survives(light: int):
    table = parse(b"Nov 24 02:53:13 h sshd[1]: Invalid user a\xff\0 from 198.51.100.7 port 1\n", light)
    (name,) = values(table, "user.name")
    assert isinstance(name, str)
    assert name.startswith("a")
    assert name.endswith("\0")
    assert values(table, "source.ip") == ["198.51.100.7"]


@BOTH
def test_bare_messages_come_with_their_header(light: int):
    messages = [b"Failed password for root from 198.51.100.7 port 4242 ssh2", b"x", b"message repeated 3 times: [ y]"]
    batch = batch_of(
        b"\n".join(messages),
        format=RecordFormat.MESSAGE,
        trust=np.array([2, 1, 0], dtype=np.uint8),
        header=GivenHeader(
            time=np.array([5, 6, 7], dtype=np.int64),
            host=["web1", "", "web1"],
            program=["sshd", "", "su"],
            pid=np.array([9, -1, 4], dtype=np.int64),
        ),
    )
    table = SyslogParser(ALL, light=light).parse(batch)
    assert table.time.tolist() == [5, 6, 7]
    assert table.unreadable == 0
    assert values(table, "event.action") == ["ssh-login-failed", None, "su-noted"]
    assert values(table, "vedette.service") == ["sshd", None, "su"]
    assert values(table, "host.name") == ["web1", None, "web1"]
    assert values(table, "process.name") == ["sshd", None, "su"]
    assert values(table, "process.pid") == [9, None, 4]
    assert values(table, "vedette.ssh.connection") == ["web1[9]:4242", None, None]
    assert values(table, "message")[2] == "y"
    assert values(table, "vedette.repeat") == [1, 1, 3]
    assert values(table, "vedette.trust") == [
        level.name.lower() for level in (Trust.ATTESTED, Trust.FORGEABLE, Trust(0))
    ]


def test_bare_messages_without_any_header_are_nobodys():
    table = parse(b"Failed password for root from 198.51.100.7 port 4242 ssh2", format=RecordFormat.MESSAGE)
    assert values(table, "event.action") == values(table, "process.name") == values(table, "host.name") == [None]
    assert table.time.tolist() == [READ_AT]


_bits = st.sampled_from(
    [
        *[
            b"Nov 24 02:53:13 ",
            b"h ",
            b"sshd[1]: ",
            b"sudo: ",
            b"0001-01-01T00:00:00+23:59 ",
            b"9999-12-31T23:59:60-23:59 ",
        ],
        *[
            b"<1>",
            b"1 ",
            b"- ",
            b"Failed password for ",
            b" from ",
            b"1.2.3.4",
            b" port 1 ssh2",
            b"pam_unix(",
            b"\n",
            b"\r\n",
            b"\0",
        ],
    ]
)


@given(st.lists(_bits | st.binary(max_size=9), max_size=30).map(b"".join), st.sampled_from([0, 1, 2024, 9999, 99999]))
@example(b"0002-01-01T00:00:00+23:59 h a: b\n9997-12-31T23:59:60-23:59 h a: b", 0)
def test_nothing_raises(text: bytes, year: int):
    for light in (0, 1000):
        for read_at in (0, READ_AT):
            table = parse(text, light, year=year, read_at=read_at)
            assert {len(table.column(field).codes) for field in table.fields()} == {len(table)}
    SyslogParser(ALL).describe(text, read_at=READ_AT, year=year)


def test_connections_of_large_numbers_are_told_apart():
    lines = [
        b"Nov 24 02:53:13 h sshd[%d]: Invalid user a from 198.51.100.7 port 1" % pid for pid in (1, 99999999999, 1)
    ]
    table = parse(b"\n".join(lines))
    assert values(table, "vedette.ssh.connection") == ["h[1]:1", "h[99999999999]:1", "h[1]:1"]


def test_many_distinct_programs_and_hosts_are_no_trouble():
    lines = b"".join(b"Nov 24 02:53:13 host%d prog%d[1]: x\n" % (n, n) for n in range(20_000))
    table = parse(lines)
    assert values(table, "host.name")[::5000] == [f"host{n}" for n in range(0, 20_000, 5000)]
    assert values(table, "process.name")[19_999] == "prog19999"


# ---------------------------------------------------------------------------------------------------- explain


def test_explain_shows_how_a_line_was_read():
    line = b"Nov 24 02:53:13 web1 sshd[6400]: Failed password for invalid user bob from 198.51.100.7 port 4242 ssh2"
    found = SyslogParser(ALL).describe(line, read_at=READ_AT)
    assert (found.ok, found.service, found.pattern, found.repeat) == (True, "sshd", "ssh-login-failed", 1)
    assert found.message.startswith("Failed password")
    assert found.format.startswith("Failed {vedette.ssh.method:word} for invalid user")
    assert "sshd.yml:" in found.origin
    fields = {seen.name: (seen.value, seen.attacker_text) for seen in found.fields}
    assert fields["source.ip"] == ("198.51.100.7", False)
    assert fields["user.name"] == ("bob", True)
    assert fields["host.name"] == ("web1", False)
    assert fields["vedette.source.prefix"] == ("198.51.100.0/24", False)
    assert found.blame is BlameReason.ALLOWED
    assert {reading.fields.get("source.ip") for reading in found.readings} == {"198.51.100.7"}
    assert found.candidates == ()
    assert not found.cut


def test_explain_shows_why_nobody_is_blamed():
    parser = SyslogParser(ALL)
    message = b"mm_answer: Connection from user a 203.0.113.9 port 1: b 198.51.100.7 port 22: c"
    found = parser.describe(message, read_at=READ_AT, program="sshd")
    assert found.blame is BlameReason.AMBIGUOUS
    assert found.candidates == ("198.51.100.7", "203.0.113.9")
    assert {reading.fields.get("source.ip") for reading in found.readings} >= {"198.51.100.7", "203.0.113.9"}
    assert parser.describe(b"nothing", read_at=READ_AT).blame is BlameReason.NO_ADDRESS
    assert not parser.describe(b"nothing", read_at=READ_AT).ok
    assert parser.describe(b"", read_at=READ_AT).message == ""


# ---------------------------------------------------------------------------------------------------- real logs


@pytest.mark.corpus
@BOTH
def test_the_injection_lines_blame_only_who_wrote_them(corpus: Path, light: int):
    table = parse((corpus / "logs" / "injection-lines.log").read_bytes(), light)
    assert len(table) == 13
    assert set(values(table, "source.ip")) <= {"198.51.100.7", None}
    assert values(table, "source.ip").count("198.51.100.7") >= 11


@pytest.mark.corpus
def test_failed_logins_of_a_real_log_are_all_found(corpus: Path):
    raw = (corpus / "logs" / "loghub" / "OpenSSH" / "OpenSSH_2k.log").read_bytes()
    table = parse(raw)
    failed = table.column("event.action").codes == table.column("event.action").values.index("ssh-login-failed")
    lines = raw.splitlines()
    assert [n for n in range(2000) if failed[n]] == [n for n in range(2000) if b" Failed " in lines[n]]
    source = table.column("source.ip")
    named = {source.value(n) for n in np.flatnonzero(failed)}
    assert named == {lines[n].split(b" from ")[1].split()[0].decode() for n in range(2000) if failed[n]}
    assert table.ambiguous.tolist() == []

"""Web server logs: parts under W3C and ECS names, times with zone, escapes, hostile bytes.
Counterpart: src/vedette/parsers/access.py; loghub's Apache log is read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.batch import Batch, Origin, RecordFormat, split_lines
from vedette.model.events import Table, Value
from vedette.parsers.access import AccessParser
from vedette.parsers.parser import SyslogParser
from vedette.parsers.written import read_patterns

COMBINED = b'198.51.100.7 - bob [02/Jan/2026:03:04:05 +0200] "GET /a/b.php?x=\\x22 HTTP/1.1" 404 12 "-" "curl \\"8\\""'


def table_of(block: bytes) -> Table:
    starts, ends = split_lines(block)
    return AccessParser().parse(Batch(Origin("host", "test"), 0, block, starts, ends, starts, 5, RecordFormat.ACCESS))


def values(table: Table, field: str) -> list[Value]:
    column = table.column(field)
    return [column.value(row) for row in range(len(table))]


def test_combined_with_host_and_common() -> None:
    table = table_of(COMBINED + b'\nweb ::1 - - [02/Jan/2026:03:04:05 +0000] "POST / HTTP/1.0" 200 -\nno log line')
    assert values(table, "@timestamp")[:2] == ["2026-01-02T01:04:05.000000Z", "2026-01-02T03:04:05.000000Z"]
    wanted = {
        "cs-method": ["GET", "POST", None],
        "cs-uri": ['/a/b.php?x="', "/", None],
        "cs-uri-stem": ["/a/b.php", "/", None],
        "cs-uri-query": ['x="', None, None],
        "c-uri-extension": ["php", None, None],
        "cs-user-agent": ['curl "8"', None, None],
        "cs-host": [None, "web", None],
        "sc-status": [404, 200, None],
        "source.ip": ["198.51.100.7", "::1", None],
        "user.name": ["bob", None, None],
        "message": ['GET /a/b.php?x=" HTTP/1.1', "POST / HTTP/1.0", "no log line"],
    }
    assert {field: values(table, field) for field in wanted} == wanted
    assert table.unreadable == 1
    kinds = [table.kinds.kinds[code] for code in table.kinds.codes]
    assert kinds[0].categories == {"webserver", "proxy"}
    assert not kinds[2].categories


def test_a_quote_that_was_sent_does_not_end_its_part() -> None:
    told = b'1.2.3.4 - - [02/Jan/2026:03:04:05 +0000] "GET /\\" 200 1 \\"-\\" \\"x HTTP/1.1" 500 7 "-" "a"'
    table = table_of(told)
    assert values(table, "sc-status") == [500]
    assert values(table, "cs-uri") == ['/" 200 1 "-" "x']


def test_error_logs() -> None:
    table = table_of(
        b"[Sun Dec 04 04:47:44 2005] [error] [client 198.51.100.7] no such file\n"
        b"[Sun Dec 04 04:47:44.5 2005] [core:error] [pid 7:tid 9] [client 198.51.100.7:4711] AH1: x\n"
        b"2026/01/02 03:04:05 [error] 7#7: *1 open() failed"
    )
    assert values(table, "source.ip") == ["198.51.100.7", "198.51.100.7", None]
    assert values(table, "message") == ["no such file", "AH1: x", "open() failed"]
    assert values(table, "process.pid") == [None, 7, 7]
    assert [set(table.kinds.kinds[code].services) for code in table.kinds.codes] == [{"apache"}, {"apache"}, {"nginx"}]


def test_the_messages_of_error_logs_are_read_by_patterns() -> None:
    block = (
        b"[Sun Mar 01 10:00:00 2026] [auth_basic:error] [client [2001:db8::7]:40112] AH01618: user x not found: /\n"
        + COMBINED
        + b'\n2026/03/01 10:00:00 [error] 7#7: *1 user "bob": password mismatch, client: 198.51.100.8, server: www\n'
        b'2026/03/01 10:00:01 [error] 7#7: *1 user "x": password mismatch, client: 203.0.113.9, server: y": '
        b"password mismatch, client: 198.51.100.8, server: www\n"
        b"[Sun Mar 01 10:00:00 2026] [core:error] [client 198.51.100.9] nothing known\n"
    )
    starts, ends = split_lines(block)
    batch = Batch(Origin("host", "test"), 0, block, starts, ends, starts, 5, RecordFormat.ACCESS)
    table = AccessParser(None, SyslogParser(read_patterns())).parse(batch)
    assert values(table, "event.action") == [
        "apache-login-failed",
        None,
        "nginx-login-failed",
        "nginx-login-failed",
        None,
    ]
    assert values(table, "source.ip") == ["2001:db8::7", "198.51.100.7", "198.51.100.8", None, "198.51.100.9"]
    assert values(table, "user.name") == ["x", "bob", "bob", "x", None]
    assert str(values(table, "message")[2]).startswith('user "bob": password')
    assert values(table, "vedette.service") == ["apache", "webserver", "nginx", "nginx", "apache"]
    assert table.ambiguous.tolist() == [3]
    assert values(table, "vedette.source.prefix")[:3] == ["2001:db8::/64", None, "198.51.100.0/24"]
    assert values(table, "vedette.source.prefix_56")[:3] == ["2001:db8::/56", None, None]


@settings(max_examples=40)
@given(st.binary(max_size=60), st.integers(0, len(COMBINED)))
def test_nothing_raises(noise: bytes, at: int) -> None:
    table = table_of(noise + b"\n" + COMBINED[:at] + noise + COMBINED[at:])
    for field in table.fields():
        assert len(table.column(field).codes) == len(table)


@pytest.mark.corpus
def test_no_line_of_a_real_apache_log_without_header(corpus: Path) -> None:
    files = sorted((corpus / "logs/loghub/Apache").glob("*.log"))
    assert files
    for path in files:
        assert table_of(path.read_bytes()).unreadable == 0

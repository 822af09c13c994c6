"""Log files that daemons write themselves: whose a line is, when it was written, and what reads on behind the time.
Counterpart: vedette.parsers.natives."""

from __future__ import annotations

import pytest

from vedette.app.detection import batch_of_lines
from vedette.model.clock import DAY
from vedette.parsers.natives import read_native
from vedette.parsers.parser import SyslogParser
from vedette.parsers.syslog import read_header
from vedette.parsers.written import read_patterns
from vedette.parsers.years import Calendar
from vedette.text.times import rfc3339

NOW = 20_600 * DAY  # 27 May 2026
NOON = "2026-03-01T10:00:00.000000Z"
PEER = "198.51.100.7"
LINES = [
    pytest.param(
        b"[Sun Mar 01 10:00:00.123456 2026] [auth_basic:error] [pid 711:tid 12] [client 198.51.100.7:40112] AH01618: "
        b"user alice not found: /staff/",
        ("apache2", "2026-03-01T10:00:00.123456Z", -1, "apache-login-failed", PEER),
        id="apache",
    ),
    pytest.param(
        b"2026/03/01 10:00:00 [error] 711#711: *42 access forbidden by rule, client: 198.51.100.7, server: www",
        ("nginx", NOON, -1, "nginx-access-refused", PEER),
        id="nginx",
    ),
    pytest.param(
        b"1772359200.123    924 198.51.100.7 TCP_DENIED/403 3914 GET http://www.example.org/ - HIER_NONE/- text/html",
        ("squid", "2026-03-01T10:00:00.123000Z", -1, "squid-request-refused", PEER),
        id="squid",
    ),
    pytest.param(
        b'Sun Mar  1 10:00:00 2026 [pid 12] [alice] FAIL LOGIN: Client "198.51.100.7"',
        ("vsftpd", NOON, -1, "vsftpd-login-failed", PEER),
        id="vsftpd",
    ),
    pytest.param(
        b"Sun Mar  1 10:00:00 2026 us=123 198.51.100.7:40112 VERIFY ERROR: depth=0, error=x: CN=alice",
        ("openvpn", NOON, -1, "openvpn-login-failed", PEER),
        id="openvpn-2.4",
    ),
    pytest.param(
        b"2026-03-01 10:00:00 198.51.100.7:40112 TLS Error: TLS handshake failed",
        ("openvpn", NOON, -1, "openvpn-handshake-failed", PEER),
        id="openvpn-2.5",
    ),
    pytest.param(
        b'2001:db8::7:40112 [01/Mar/2026:10:00:00.608] main main/<NOSRV> -1/-1/-1/-1/0 401 248 - - "GET /"',
        ("haproxy", "2026-03-01T10:00:00.608000Z", -1, "haproxy-login-failed", "2001:db8::7"),
        id="haproxy-ipv6",
    ),
    pytest.param(
        b"01-Mar-2026 10:00:00.123 security: info: client @0x7f 198.51.100.7#4242 (x): query (cache) 'x/A/IN' denied",
        ("named", "2026-03-01T10:00:00.123000Z", -1, "named-query-refused", PEER),
        id="named",
    ),
    pytest.param(
        b"[1772359200] unbound[711:0] debug: refused query from ip4 198.51.100.7 port 40112 (len 16)",
        ("unbound", NOON, 711, "unbound-query-refused", PEER),
        id="unbound",
    ),
    pytest.param(
        b"2026-03-01T11:00:00.123+01:00 unbound[711:0] info: service stopped",
        ("unbound", "2026-03-01T10:00:00.123000Z", 711, "unbound-noted", None),
        id="unbound-iso",
    ),
    pytest.param(
        b"2026-03-01T10:00:00.123456Z 12 [Note] Access denied for user 'root'@'198.51.100.7' (using password: YES)",
        ("mysqld", "2026-03-01T10:00:00.123456Z", -1, "mysqld-login-failed", PEER),
        id="mysql-5.7",
    ),
    pytest.param(
        b"2026-03-01  9:00:00 12 [Warning] Access denied for user 'root'@'198.51.100.7' (using password: YES)",
        ("mysqld", "2026-03-01T09:00:00.000000Z", -1, "mysqld-login-failed", PEER),
        id="mariadb",
    ),
    pytest.param(
        b"260301 10:00:00 [Warning] Access denied for user 'root'@'198.51.100.7' (using password: YES)",
        ("mysqld", NOON, -1, "mysqld-login-failed", PEER),
        id="mysql-5.1",
    ),
    pytest.param(
        b'2026-03-01 10:00:00.123 UTC [711] alice@shop FATAL:  no pg_hba.conf entry for host "198.51.100.7", '
        b'user "alice", database "shop", no encryption',
        ("postgres", "2026-03-01T10:00:00.123000Z", -1, "postgresql-login-failed", PEER),
        id="postgresql",
    ),
    pytest.param(
        b"2026-03-01 10:00:00 UTC:198.51.100.7(4242):alice@shop:[711]:FATAL:  "
        b'password authentication failed for user "alice"',
        ("postgres", NOON, -1, "postgresql-login-failed", PEER),
        id="postgresql-address-first",
    ),
    pytest.param(
        b"[2026/03/01 10:00:00.123456,  2] ../../source3/auth/auth.c:329(auth_check_ntlm_password)\n  "
        b"check_ntlm_password:  Authentication for user [alice] -> [alice] FAILED with error NT_STATUS_NO_SUCH_USER",
        ("smbd", "2026-03-01T10:00:00.123456Z", -1, "samba-login-failed", None),
        id="samba",
    ),
    pytest.param(
        b"69a40e60.0a1b2c3d 0x7f00 conn=1042 fd=12 ACCEPT from IP=198.51.100.7:40112 (IP=0.0.0.0:389)",
        ("slapd", "2026-03-01T10:01:04.000000Z", -1, "slapd-connected", PEER),
        id="slapd",
    ),
    pytest.param(
        b'time="2026-03-01T11:00:00.123456789+01:00" level=error msg="Handler for POST /x returned error: y"',
        ("dockerd", "2026-03-01T10:00:00.123456Z", -1, "docker-request-failed", None),
        id="docker",
    ),
    pytest.param(
        b"2026-03-01 10:00:00 [711] plain_login authenticator failed for (x) [198.51.100.7]: 535 Incorrect "
        b"authentication data",
        ("exim", NOON, 711, "exim-login-failed", PEER),
        id="exim",
    ),
    pytest.param(
        b"2026-03-01 10:00:00 pop3-login: Info: Aborted login (auth failed, 1 attempts): user=<x>, rip=198.51.100.7, "
        b"lip=::1",
        ("dovecot", NOON, -1, "dovecot-login-failed", PEER),
        id="dovecot",
    ),
    pytest.param(
        b"@4000000069a40e6a077a9e94 auth: Info: sql(alice,198.51.100.7): Password mismatch",
        ("dovecot", "2026-03-01T10:01:04.000000Z", -1, "dovecot-login-failed", PEER),
        id="dovecot-tai64n",
    ),
    pytest.param(
        b"2026-03-01 10:00:00,121 ftp1 proftpd[711] ftp1 (x[198.51.100.7]): USER alice (Login failed): Password.",
        ("proftpd", "2026-03-01T10:00:00.121000Z", -1, "proftpd-login-failed", PEER),
        id="proftpd",
    ),
]
PARSER = SyslogParser(read_patterns())


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_a_line_says_whose_it_is_and_its_message_is_read(line: bytes, wanted: tuple[str, str, int, str, str | None]):
    program, time, pid, action, address = wanted
    described = PARSER.describe(line, read_at=NOW)
    fields = {seen.name: seen.value for seen in described.fields}
    assert described.ok
    assert fields["process.name"] == program
    assert rfc3339(described.time) == time
    assert fields.get("process.pid", -1) == pid
    assert fields["event.action"] == action
    assert fields.get("source.ip") == address


@pytest.mark.parametrize(
    ("line", "zone", "wanted"),
    [
        (b"2026-03-01 10:00:00 12 [Warning] x", "Europe/Berlin", "2026-03-01T09:00:00.000000Z"),
        (b"2026-03-01 10:00:00.5 CET [12] LOG:  x", "Europe/Berlin", "2026-03-01T09:00:00.500000Z"),
        (b"2026-03-01 10:00:00 -05 [12] LOG:  x", "Europe/Berlin", "2026-03-01T15:00:00.000000Z"),
        (b"2026-03-01 10:00:00 GMT [12] LOG:  x", "Europe/Berlin", NOON),
        (b"2026-03-01 10:00:00.5 +0545 [12] LOG:  x", "Europe/Berlin", "2026-03-01T04:15:00.500000Z"),
        (b"2026-03-01 10:00:00 -0930:64:ff9b::7(1):x@y:[12]:LOG:  x", "UTC", "2026-03-01T19:30:00.000000Z"),
        (b"2026-03-01 10:00:00 -03:64:ff9b::7(1):x@y:[12]:LOG:  x", "UTC", "2026-03-01T13:00:00.000000Z"),
    ],
    ids=["none", "letters", "hours", "gmt", "hours-minutes", "hours-minutes-colon", "hours-colon"],
)
def test_a_time_without_a_zone_is_in_that_of_the_source(line: bytes, zone: str, wanted: str):
    found = read_native(line, 0, Calendar(0, NOW, zone))
    assert found is not None
    assert rfc3339(found.time) == wanted


@pytest.mark.parametrize(
    "line",
    [
        b"2026-02-30 10:00:00 12 [Warning] no such day",
        b"2026-03-01 25:00:00 12 [Warning] no such hour",
        b"[Sun Foo 01 10:00:00 2026] [error] no such month",
        b"2026-03-01 10:00:00 +99:00 H=x",
        b"2026-03-01 10:00:00 alice did something",
        b"Sun Mar  1 10:00:00 2026 anything else",
        b"[1772359200] doord[711:0] info: x",
    ],
    ids=["day", "hour", "month", "offset", "nobody", "nobody-ctime", "stranger"],
)
def test_what_is_nobodys_is_left_alone(line: bytes):
    assert read_native(line, 0, Calendar(0, NOW, "UTC")) is None


def test_a_syslog_line_is_never_taken_for_another_programs_own():
    """A line that rsyslog wrote begins like one of MySQL's; its host and tag say that it is none."""
    line = b"2026-03-01T10:00:00.123456Z web1 sshd[711]: 12 [Note] Access denied for user 'x'@'203.0.113.9'"
    header = read_header(line, Calendar(0, NOW, "UTC"), NOW)
    assert header.native == ""
    assert line[slice(*header.program)] == b"sshd"


@pytest.mark.parametrize("light", [0, 1_000_000], ids=["many", "one"])
def test_own_files_among_syslog_are_told_apart_by_line(light: int):
    lines = [
        b"Mar  1 10:00:00 web1 doord[7]: opened",
        b"2026/03/01 10:00:00 [error] 711#711: *42 access forbidden by rule, client: 198.51.100.7, server: www",
        b"Mar  1 10:00:00 web1 nginx: 2026/03/01 10:00:00 [error] 7#7: *1 access forbidden by rule, client: ::1, "
        b"server: www",
        b"2026-03-01 10:00:00 12 [Warning] Access denied for user 'x'@'198.51.100.9' (using password: YES)",
        b"2026/03/01 10:00:01 [error] 711#711: *43 access forbidden by rule, client: 198.51.100.7, server: www",
        b"no header at all",
    ]
    table = SyslogParser(read_patterns(), light=light).parse(batch_of_lines(lines, year=2026))
    names, services = table.column("process.name"), table.column("vedette.service")
    assert [names.value(row) for row in range(6)] == ["doord", "nginx", "nginx", "mysqld", "nginx", None]
    assert [services.value(row) for row in range(6)] == [None, "nginx", "nginx", "mysqld", "nginx", None]

"""What is fuzzed: one function for each reader, which raises where the reader does what it must not; and seeds.
Counterpart: `fuzz.__main__` feeds them; what a reader may do is in its docstring."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from fuzz import listeners
from vedette.app.counters import Counters
from vedette.app.detection import matcher_of
from vedette.app.formats import audit_in, format_of, objects_in
from vedette.config.load import load_settings
from vedette.inventory.yaml import parse_policy_file, policy_lines
from vedette.model.batch import Batch, Origin, RecordFormat, split_lines
from vedette.model.errors import ConfigError
from vedette.model.events import Table, Value
from vedette.model.fields import FIELDS
from vedette.model.protocols import Parser
from vedette.parsers.access import AccessParser
from vedette.parsers.addresses import NONE, AddressTable
from vedette.parsers.audit import AuditParser
from vedette.parsers.columns import Block
from vedette.parsers.json import JsonParser
from vedette.parsers.parser import SyslogParser
from vedette.parsers.written import read_patterns
from vedette.rules.files import PACKS
from vedette.rules.loading import load
from vedette.sources.attacks.feature import read_feature
from vedette.sources.attacks.steps import notes, recognise
from vedette.sources.lines import Cut, Lines
from vedette.sources.settings import LineSettings, MultilineSettings
from vedette.text.addresses import canonical, contains, parse, parse_network
from vedette.text.times import duration_text, parse_duration, parse_rfc3339, rfc3339

DOCS = Path(__file__).parent.parent / "docs"
READ_AT = 1_795_132_800_000_000
LIMIT = 1 << 14
_NATIVE = ("Image", "CommandLine", "TargetFilename", "DestinationIp", "SYSCALL", "a0", "key", "EventID", "c-uri", "x.y")
_NAMES = sorted({*FIELDS, *_NATIVE})
_FENCED = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """judge: raises nothing, whatever the bytes. seeds: what a well-meant input looks like. longest: bytes tried."""

    judge: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    longest: int = 4096


# ------------------------------------------------------------------------------------------------ records


def _batch(block: bytes, starts: np.ndarray, ends: np.ndarray, form: RecordFormat) -> Batch:
    return Batch(Origin("host", "fuzz"), 0, block, starts, ends, starts, READ_AT, form)


def _contents(table: Table) -> dict[str, list[Value]]:
    """Every field of every record, looked at."""
    found: dict[str, list[Value]] = {}
    for name in _NAMES:
        column = table.column(name)
        assert len(column.codes) == len(table), name
        assert int(column.codes.max(initial=-1)) < len(column.values), name
        if int(column.codes.max(initial=-1)) >= 0:
            found[name] = [column.value(row) for row in range(len(table))]
    assert len(table.strings(range(len(table)))) == len(table.time) == len(table)
    assert len(table.kinds.codes) == len(table)
    return found


def _differ(one: dict[str, list[Value]], other: dict[str, list[Value]]) -> str:
    """The first field that is not the same."""
    names = [name for name in _NAMES if repr(one.get(name)) != repr(other.get(name))]
    return f"{names[0]}: {one.get(names[0])!r} is not {other.get(names[0])!r}" if names else ""


def _alone(parser: Parser, batch: Batch) -> None:
    """A record means the same alone as among others."""
    together = _contents(parser.parse(batch))
    for row in range(min(len(batch), 4)):
        own = slice(row, row + 1)
        one = _contents(parser.parse(_batch(batch.block, batch.starts[own], batch.ends[own], batch.format)))
        its = {name: values[own] for name, values in together.items() if values[row] is not None}
        differ = _differ({name: values for name, values in one.items() if values[0] is not None}, its)
        assert not differ, f"record {row}, {differ}"


@cache
def _syslog_parsers() -> tuple[SyslogParser, SyslogParser]:
    patterns = read_patterns()
    return SyslogParser(patterns, light=0), SyslogParser(patterns, light=1 << 20)


def syslog(data: bytes) -> None:
    """Headers and messages: batches and single records give the same; a reading can be explained."""
    starts, ends = split_lines(data[:LIMIT])
    heavy, light = _syslog_parsers()
    batch = _batch(data[:LIMIT], starts, ends, RecordFormat.SYSLOG)
    differ = _differ(_contents(heavy.parse(batch)), _contents(light.parse(batch)))
    assert not differ, differ
    if len(batch):
        heavy.describe(batch.raw(0), read_at=READ_AT)
        heavy.describe(batch.raw(0), read_at=READ_AT, program="sshd")


def json(data: bytes) -> None:
    """Objects are found the same however the stream is cut, and read without fault."""
    format_of(data)

    def blocks(size: int) -> list[tuple[bytes, int]]:
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        found = objects_in(pieces, 1 << 20, LIMIT)
        return [(block[start:end], line) for block, spans, _ in found for start, end, line in spans.T.tolist()]

    assert blocks(7) == blocks(1 << 20)
    for block, spans, _ in objects_in([data], 1 << 20, LIMIT):
        _alone(JsonParser(), _batch(block, spans[0], spans[1], RecordFormat.JSON))


def audit(data: bytes) -> None:
    """Events are the same however their lines come, and read without fault."""

    def blocks(size: int) -> list[tuple[bytes, int]]:
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        found = audit_in(pieces, 1, LIMIT)
        return [(block[start:end], line) for block, spans, _ in found for start, end, line in spans.T.tolist()]

    assert blocks(50) == blocks(1 << 20)
    for block, spans, _ in audit_in([data], 1 << 20, LIMIT):
        _alone(AuditParser(), _batch(block, spans[0], spans[1], RecordFormat.AUDIT))


def access(data: bytes) -> None:
    """Access and error logs of web servers."""
    starts, ends = split_lines(data)
    _alone(AccessParser(), _batch(data, starts, ends, RecordFormat.ACCESS))


_MULTILINE = (
    LineSettings(max_record=1024),
    LineSettings(max_record=1024, multiline=MultilineSettings(max_lines=3, max_bytes=200)),
    LineSettings(max_record=1024, multiline=MultilineSettings(start=r"^\d", max_lines=3, max_bytes=200)),
    LineSettings(max_record=1024, format=RecordFormat.AUDIT),
)


def multiline(data: bytes) -> None:
    """The first bytes say how the rest is cut: records do not depend on it."""
    if len(data) < 9:
        return
    settings, text = _MULTILINE[data[0] % len(_MULTILINE)], data[9:]

    def records(cut: Cut | None) -> list[tuple[int, bytes]]:
        spans = [] if cut is None else zip(cut.positions, cut.starts, cut.ends, strict=True)
        return [(int(at), cut.block[start:end]) for at, start, end in spans] if cut is not None else []

    def read(*pieces: bytes) -> list[tuple[int, bytes]]:
        lines = Lines(settings)
        found = [record for piece in pieces for record in records(lines.feed(piece))]
        found += records(lines.finish())
        assert lines.position == len(text)
        return found

    places = sorted({0, len(text), *(sum(data[1:end]) % (len(text) + 1) for end in range(2, 9))})
    assert read(*(text[a:b] for a, b in pairwise(places))) == read(text)


# ------------------------------------------------------------------------------------------------ words


def addresses(data: bytes) -> None:
    """Addresses, networks and times: what is read is written, and read again as the same."""
    words = data.split(b"\n")
    text = data.decode("utf-8", "replace")
    for word in text.split("\n"):
        name = canonical(word)
        assert name == (None if parse(word) is None else str(parse(word)))
        assert name is None or canonical(name) == name
        for read, write in ((parse_network, str), (parse_rfc3339, rfc3339)):
            try:
                value = read(word)
            except ValueError:
                continue
            assert read(write(value)) == value, word
            if read is parse_network and name is not None:
                assert contains([value], word)
        try:
            duration = parse_duration(word)
        except ValueError:
            continue
        assert 0 <= duration - parse_duration(duration_text(duration)) <= duration, word
    starts, ends = split_lines(data)
    table, block = AddressTable(), Block(data)
    for _ in range(2):
        numbers = table.numbers(block, starts, ends)
        got = [None if number == NONE else table.names[number] for number in numbers.tolist()]
        assert got == [canonical(data[a:b].decode("utf-8", "replace")) for a, b in zip(starts, ends, strict=True)], (
            words
        )


# ------------------------------------------------------------------------------------------------ files people write


@cache
def _folder() -> Path:
    made = tempfile.mkdtemp(prefix="vedette-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def sigma(data: bytes) -> None:
    """Rule files: refused with a place, or loaded and run."""
    path = _folder() / "rules.yml"
    path.write_bytes(data)
    found = load([path], keep_going=True)
    for problem in found.errors:
        assert str(problem.as_error()).startswith(str(path)), problem
    if found.rules and len(found.rules) < 20:
        event = b'{"Image": "/usr/bin/id", "EventID": 1, "CommandLine": "id -u", "x": [1, null, {"y": "z"}]}\n'
        matcher_of(found.rules, counter=Counters()).match(_batch(event, *split_lines(event), RecordFormat.JSON))


def _placed(error: ConfigError) -> None:
    assert error.location is not None
    assert str(error).startswith(error.location.file)


def policy(data: bytes) -> None:
    """Port policies: refused with a place, or whole and printable."""
    try:
        read = parse_policy_file(data, "ports.yml")
    except ConfigError as error:
        _placed(error)
        return
    list(policy_lines(read.policy))


def attacks(data: bytes) -> None:
    """Attack files: every scenario understood, or a place for what is wrong."""
    scenarios, problems = read_feature(data, "shop.attack")
    for one in scenarios:
        steps, wrong = recognise(one)
        notes(steps)
        problems += wrong
    assert scenarios or problems
    for problem in problems:
        assert str(problem).startswith("shop.attack:")


def config(data: bytes) -> None:
    """The configuration: refused with a place, or settings."""
    path = _folder() / "vedette.yml"
    path.write_bytes(data)
    try:
        load_settings(path)
    except ConfigError as error:
        _placed(error)


# ------------------------------------------------------------------------------------------------ seeds


def _fenced(*names: str) -> Iterator[bytes]:
    """The YAML in pages of docs/."""
    for name in names:
        for found in _FENCED.finditer((DOCS / name).read_text()):
            yield found[1].encode()


def _syslog_seeds() -> Iterator[bytes]:
    for file in read_patterns().files:
        program = (file.programs or ("sshd",))[0].encode()
        for pattern in file.patterns:
            messages = [sample.message for sample in pattern.samples] + [message for message, _ in pattern.not_samples]
            yield b"\n".join(b"Nov 24 02:53:13 web1 %s[6400]: %s" % (program, message) for message in messages)
    yield b"<86>1 2026-11-24T02:53:15.123456Z web1 sshd 6401 - - Invalid user bob from 2001:db8::7 port 4243"
    yield b"2026-11-24T02:53:15.123456+01:00 web1 sshd[1]: message repeated 2 times: [ Failed password for a from b ]"


def _json_seeds() -> Iterator[bytes]:
    yield b'{"EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Image": "C:\\\\a.exe"}'
    yield b'{"Event": {"System": {"EventID": {"#text": 4625}}, "EventData": {"IpAddress": "::ffff:198.51.100.7"}}}'
    yield b'{"winlog": {"event_data": {"TargetUserName": "bob"}}, "@timestamp": "2026-11-24T02:53:15Z"}'
    yield b'{"Records": [{"eventSource": "s3.amazonaws.com", "sourceIPAddress": "198.51.100.7"}]}'
    yield b'{"kind": "Event", "apiVersion": "audit.k8s.io/v1", "verb": "create", "objectRef": {"resource": "pods"}}'
    yield b'[{"a": 1, "a": 2}, {"b": [null, true, 1e3, "\\ud83d\\ude00"]}]\n{"c": {}} text {'


def _audit_seeds() -> Iterator[bytes]:
    head = b"msg=audit(1795132800.005:%d):"
    call = b'type=SYSCALL %s arch=c000003e syscall=59 success=yes a0=1 ppid=7 pid=9 uid=0 comm="sh" exe="/bin/dash"'
    first, second = head % 1, head % 2
    execve = [
        call % first,
        b'type=EXECVE %s argc=3 a0="sh" a1="-c" a2=6964203B206964' % first,
        b'type=CWD %s cwd="/srv"' % first,
        b'type=PATH %s item=0 name="/bin/dash" inode=1 nametype=NORMAL' % first,
        b"type=PROCTITLE %s proctitle=7368002D63" % first,
    ]
    connect = [call.replace(b"=59", b"=42") % second, b"type=SOCKADDR %s saddr=020001BBC6336407" % second]
    yield b"\n".join(execve) + b"\n"
    yield b"\n".join([execve[0], connect[0], *execve[1:], connect[1], b"type=EOE " + second])
    yield (
        b"node=a type=USER_LOGIN %s pid=3 uid=0 msg='op=login acct=\"root\" addr=::ffff:198.51.100.9 res=failed'"
        % first
    )
    yield call % first + b'\x1dARCH=x86_64 SYSCALL=execve UID="root"\n'
    yield b'type=EXECVE %s argc=2 a0="cat" a1_len=8 a1[0]="/etc" a1[1]="/abc"' % first


def _access_seeds() -> Iterator[bytes]:
    yield b'198.51.100.7 - bob [24/Nov/2026:02:53:15 +0100] "GET /a?b=c HTTP/1.1" 200 12 "http://a/" "curl/8"'
    yield b'www:443 2001:db8::7 - - [24/Nov/2026:02:53:15 +0000] "\\x16\\x03" 400 -'
    yield b"[Tue Nov 24 02:53:15.123456 2026] [authz_core:error] [pid 1:tid 2] [client 198.51.100.7:1] AH01630: denied"
    yield b'2026/11/24 02:53:15 [error] 1#2: *3 open() failed, client: 198.51.100.7, server: a, request: "GET /"'


def _multiline_seeds() -> Iterator[bytes]:
    texts = [b"Traceback\n  at a\n\tat b\nnext\r\n1 a\nb\n", b"\0" * 1100 + b"after\n", *_audit_seeds()]
    for kind in range(len(_MULTILINE)):
        for text in texts:
            yield bytes([kind, 5, 30, 70, 11, 200, 3, 99, 8]) + text


def _address_seeds() -> Iterator[bytes]:
    yield b"198.51.100.7\n::ffff:198.51.100.7\nfe80::1%eth0\n2001:db8::/32\n010.1.1.1\n10.0.0.0/8\n::ffff:10.0.0.0/104"
    yield b"2026-11-24T02:53:15.123456Z\n2026-11-24T02:53:15+01:00\n5m\n1h30m\n90s\n2d"


def _attack_seeds() -> Iterator[bytes]:
    yield (
        b'@slow\nFeature: shop\n  Background:\n    Given "nmap" is installed\n    And the following profile:\n'
        b'      | name | value |\n      | host | h |\n  Scenario: one\n    When I launch an "nmap-fast" attack\n'
        b"    Then the output should not match /443.tcp\\s+(?!closed)/\n"
    )
    yield (
        b'Feature: f\n  Scenario Outline: two\n    When I launch a "curl" attack with:\n      """\n'
        b'      curl "<verb>" -w \'x\'\n      """\n'
        b'    Then the file "f" should contain XML:\n      | css |\n      | a[b="c"] > d |\n  Examples:\n'
        b"    | verb |\n    | get |\n"
    )


def _sigma_seeds() -> Iterator[bytes]:
    for file in sorted(PACKS.glob("*.yml")):
        yield from re.split(rb"^---\n", file.read_bytes(), flags=re.MULTILINE)
    yield from _fenced("rules.md", "correlations.md")
    yield (
        b"title: t\nid: 5a0a7a4e-7a0b-4c62-9f5c-0c1f5b0e0001\nlogsource: {category: process_creation}\ndetection:\n"
        b"  a: {Image|endswith|cased: /id, CommandLine|re|i: 'i[dx]+$', EventID|gte: 1, x|fieldref: y}\n"
        b"  b: [one, 't*o\\*']\n  c: {CommandLine|windash|contains|all: [' -u', a], Ip|cidr: 10.0.0.0/8}\n"
        b"  condition: (1 of a* or all of them) and not b | c\nlevel: high\n"
    )


TARGETS: dict[str, Target] = {
    "syslog": Target(syslog, _syslog_seeds, 1024),
    "json": Target(json, _json_seeds, 1024),
    "audit": Target(audit, _audit_seeds, 2048),
    "access": Target(access, _access_seeds, 1024),
    "multiline": Target(multiline, _multiline_seeds, 3072),
    "addresses": Target(addresses, _address_seeds, 256),
    "sigma": Target(sigma, _sigma_seeds),
    "policy": Target(policy, lambda: _fenced("ports.md")),
    "attacks": Target(attacks, _attack_seeds),
    "config": Target(
        config, lambda: _fenced("configuration.md", "alerts.md", "blocking.md", "paging.md", "sources.md")
    ),
    "frames": Target(listeners.frames, listeners.frame_seeds, 1024),
    "relp": Target(listeners.relp, listeners.relp_seeds, 1024),
    "http": Target(listeners.http, listeners.http_seeds, 2048),
    "bodies": Target(listeners.bodies, listeners.body_seeds, 2048),
    "otlp": Target(listeners.otlp, listeners.otlp_seeds, 2048),
    "message": Target(listeners.message, listeners.message_seeds, 2048),
    "orders": Target(listeners.orders, listeners.order_seeds, 2048),
    "enrolment": Target(listeners.enrolment, listeners.enrolment_seeds, 2048),
}

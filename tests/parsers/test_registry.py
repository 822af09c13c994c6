"""Pattern files: mistakes have a place; samples give exactly their fields, no format is idle, no two overlap.
Counterpart: vedette.parsers.registry, and the files it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.detection import batch_of_lines
from vedette.model.errors import RuleError
from vedette.model.events import Value
from vedette.parsers import PATTERNS, SyslogParser
from vedette.parsers.readings import readings
from vedette.parsers.registry import Pattern, PatternFile, Sample
from vedette.parsers.written import read_file, read_patterns

ALL = read_patterns()
PARSER = SyslogParser(ALL)
SAMPLES = [(file, pattern, sample) for file in ALL.files for pattern in file.patterns for sample in pattern.samples]
HEADER_FIELDS = {
    "@timestamp",
    "event.created",
    "event.original",
    "host.id",
    "message",
    "process.name",
    "vedette.pattern",
    "vedette.repeat",
    "vedette.service",
    "vedette.source.prefix",
    "vedette.source.prefix_56",
    "vedette.ssh.connection",
    "vedette.trust",
}


def identify(value: object) -> str:
    return value.id if isinstance(value, Pattern) else ""


def fields_of(program: str, message: bytes) -> tuple[str, dict[str, Value]]:
    found = PARSER.describe(message, read_at=0, program=program)
    return found.pattern, {seen.name: seen.value for seen in found.fields if seen.name not in HEADER_FIELDS}


def test_every_file_in_the_folder_is_loaded():
    assert {Path(file.location.file) for file in ALL.files} == set(PATTERNS.iterdir())
    assert {file.service for file in ALL.files} >= {"sshd", "pam", "sudo", "su", "shadow"}


@pytest.mark.parametrize(("file", "pattern", "sample"), SAMPLES, ids=identify)
def test_a_sample_gives_exactly_its_fields(file: PatternFile, pattern: Pattern, sample: Sample):
    matched, fields = fields_of(file.programs[0], sample.message)
    assert matched == pattern.id, str(sample.location)
    number = next(
        number
        for number in sorted(ALL.shapes_of[file.service], key=lambda number: ALL.shapes[number].pattern.rest)
        if readings(ALL.shapes[number].shape, file.message_of(sample.message))[0]
    )
    assert fields == ALL.shapes[number].constants | sample.fields, str(sample.location)


def test_no_sample_fits_two_patterns():
    wrong = []
    for file, pattern, sample in SAMPLES:
        for number in ALL.shapes_of[file.service]:
            flat = ALL.shapes[number]
            # A catch-all may fit what other patterns mean: it loses.
            if flat.pattern is pattern or (flat.pattern.rest and not pattern.rest):
                continue
            if readings(flat.shape, file.message_of(sample.message))[0]:
                wrong.append(f"{sample.location}: {pattern.id}, but also {flat.pattern.id} ({flat.format.location})")
    assert not wrong


def test_every_format_gives_the_fields_of_some_sample():
    used: set[int] = set()
    for file, _, sample in SAMPLES:
        numbers = sorted(ALL.shapes_of[file.service], key=lambda number: ALL.shapes[number].pattern.rest)
        first = next(
            number for number in numbers if readings(ALL.shapes[number].shape, file.message_of(sample.message))[0]
        )
        used.add(id(ALL.shapes[first].format))
    idle = {f"{flat.format.location}: {flat.format.text}" for flat in ALL.shapes if id(flat.format) not in used}
    assert not idle


def test_no_pattern_fits_what_it_says_it_does_not():
    wrong = [
        str(location)
        for file in ALL.files
        for pattern in file.patterns
        for message, location in pattern.not_samples
        if any(readings(shape, file.message_of(message))[0] for written in pattern.formats for shape in written.shapes)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("program", "service"),
    [
        ("postfix-in/smtpd", "postfix"),
        ("postfix/2525/smtpd", "postfix"),
        ("postfix/qmgr", None),
        ("httpd/shop", "apache"),
        ("/usr/sbin/sshd", "sshd"),
        ("auth-worker(812)", "dovecot"),
        ("auth-worker(x)", None),
        ("ovpn-server2", "openvpn"),
        ("42", None),
        ("doord(1)", None),
    ],
)
def test_instances_of_a_program_are_the_program(program: str, service: str | None):
    found = ALL.file_of(program)
    assert (found.service if found else None) == service


@pytest.mark.parametrize("light", [0, 1_000_000], ids=["many", "one"])
def test_an_address_of_either_version_may_stand_before_a_port(light: int):
    lines = [
        b"Mar  1 10:00:00 box dropbear[1]: Bad password attempt for 'x' from %b:40112" % address
        for address in (
            b"198.51.100.7",
            b"2001:db8::7",
            b"::ffff:198.51.100.7",
            b"::1",
            b"2001:db8::7:",
            b"2001",
            b"x:y",
        )
    ]
    table = SyslogParser(ALL, light=light).parse(batch_of_lines(lines, year=2026))
    column = table.column("source.ip")
    found = [column.value(row) for row in range(len(lines))]
    assert found == ["198.51.100.7", "2001:db8::7", "198.51.100.7", "::1", None, None, None]


# ---------------------------------------------------------------------------------------------------- mistakes

GOOD = """
service: door
program: [doord]
patterns:
  - id: door-opened
    set: {event.action: door-opened, event.outcome: success}
    formats:
      - format: 'opened by {user.name:word}'
        set: {vedette.ssh.user_known: true}
      - 'opened'
    samples:
      - message: 'opened by alice'
        fields: {user.name: alice}
"""


def test_a_good_file():
    file = read_file(GOOD.encode(), "door.yml")
    assert (file.service, file.programs, file.any_program, file.cut) == ("door", ("doord",), False, 0)
    (pattern,) = file.patterns
    assert [written.text for written in pattern.formats] == ["opened by {user.name:word}", "opened"]
    assert pattern.formats[0].constants == {
        "event.action": "door-opened",
        "event.outcome": "success",
        "vedette.ssh.user_known": True,
    }
    assert pattern.samples[0].fields == {"user.name": "alice"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("service: door", "servce: door", "door.yml:2:1: unknown key 'servce'"),
        ("service: door\n", "", "door.yml:2:1: 'service' is missing"),
        ("program: [doord]", "program: {a: b}", "door.yml:3:10: a list is wanted here"),
        ("program: [doord]", "program: [doord", "door.yml:4:9: did not find expected ',' or ']'"),
        ("    set: {event.a", "    sett: {event.a", "door.yml:6:5: unknown key 'sett'"),
        ("event.outcome: success", "event.action: x", "door.yml:6:38: 'event.action' stands here twice"),
        ("event.outcome: success", "event.outcom: x", "door.yml:6:52: unknown field 'event.outcom'"),
        ("user_known: true", "user_known: 1", "door.yml:9:39: vedette.ssh.user_known is a boolean, '1' is none"),
        ("{user.name:word}", "{user.nam:word}", "door.yml:8:17: unknown field 'user.nam'"),
        ("{user.name:word}", "{user.name:wrd}", "door.yml:8:17: unknown type 'wrd'"),
        ("{user.name:word}", "{user.name:ip}", "door.yml:8:17: user.name is a keyword and cannot be captured as ip"),
        ("{user.name:word}", "{source.port:word}", "source.port is a long and cannot be captured as word"),
        ("{user.name:word}", "{user.name}", "door.yml:8:17: stray '{'"),
        ("{user.name:word}", "{user.name:word}{:word}", "two captures touch"),
        ("{user.name:word}", "{user.name:word} {user.name:word}", "a field is captured twice"),
        ("{user.name:word}", "<{user.name:word}", "'<' without '>'"),
        ("{user.name:word}", "{user.name:word}>", "'>' without '<'"),
        ("{user.name:word}", "<a<b>>", "optional part inside an optional part"),
        ("{user.name:word}", "<a> <b> <c> <d>", "4 optional parts"),
        ("{user.name:word}", "{user.name:addr}", "type addr gives source.address, not user.name"),
        ("'opened by {user.name:word}'", "''", "empty format"),
        ("{user.name:word}", "{event.action:word}", "event.action is both captured and set"),
        ("- 'opened'", "- [opened]", "door.yml:10:9: a mapping is wanted here"),
        ("    samples:", "    rest: maybe\n    samples:", "door.yml:11:11: 'maybe' is neither true nor false"),
        ("patterns:", "cut: x\npatterns:", "door.yml:4:6: 'x' is no number"),
        ("patterns:", "head: '('\npatterns:", "door.yml:4:7: no regular expression: missing )"),
    ],
)
def test_a_mistake_is_told_with_its_place(old: str, new: str, said: str):
    assert GOOD.count(old) == 1
    with pytest.raises(RuleError) as caught:
        read_file(GOOD.replace(old, new).encode(), "door.yml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("door.yml:")


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"\xff\xfe\xfd", b"a: \x00"])
def test_what_is_no_pattern_file_is_refused(text: bytes):
    with pytest.raises(RuleError, match=r"door\.yml"):
        read_file(text, "door.yml")


def test_a_catch_all_gives_no_source():
    text = GOOD.replace("    formats:", "    rest: true\n    formats:").replace("{user.name:word}", "{source.ip:ip}")
    with pytest.raises(RuleError, match="no source"):
        read_file(text.encode(), "door.yml")


def test_ids_services_and_programs_are_unique(tmp_path: Path):
    (tmp_path / "a.yml").write_text(GOOD)
    for change, said in (
        (("x", "x"), "service 'door' has two files"),
        (("service: door", "service: gate"), "program 'doord' is also in"),
        (("service: door\nprogram: [doord]", "service: gate\nprogram: [gated]"), "pattern id 'door-opened' is also at"),
    ):
        (tmp_path / "b.yml").write_text(GOOD.replace(*change))
        with pytest.raises(RuleError, match=said) as caught:
            read_patterns(tmp_path)
        assert caught.value.location is not None
        assert caught.value.location.file.endswith("b.yml")

"""What is asked of samples, what is never asked, and how it is written.
Counterpart: vedette.rules.scaffold."""

from __future__ import annotations

import pytest
import yaml
from sigma.types import SigmaString

from vedette.model.events import RecordKind, Value
from vedette.model.rules import LogSource, Op
from vedette.rules.scaffold import Asked, Draft, Sample, ScaffoldError, _written, document, draft, writable

SSHD = RecordKind("linux", services=frozenset({"sshd", "auth"}))
WINDOWS = RecordKind("windows", frozenset({"process_creation"}), frozenset({"sysmon"}))


def ssh(action: str, message: str = "a message", **more: Value) -> Sample:
    fields: dict[str, Value] = {"event.action": action, "vedette.service": "sshd", "message": message, "host.name": "h"}
    fields |= {name.replace("_", "."): value for name, value in more.items()}
    return Sample(message.encode(), fields, SSHD, action)


def process(**fields: Value) -> Sample:
    return Sample(repr(fields).encode(), {"EventID": 1, "host.name": "pc", **fields}, WINDOWS)


def asked(made: Draft) -> list[tuple[str, str, tuple[object, ...]]]:
    return [(test.field, test.op.value, test.values) for test in made.asked]


def test_what_happened_is_asked_first_and_alone_where_that_is_enough():
    made = draft([ssh("login", user_name="root")], [ssh("logout", user_name="root")])
    assert asked(made) == [("event.action", "equals", ("login",))]
    assert made.logsource == LogSource("linux", "", "sshd")
    assert (made.id, made.title, made.key) == ("my-login", "Login", ("host.name",))


def test_what_tells_apart_is_added_and_text_of_an_attacker_last():
    wanted = [ssh("login", user_name="root", vedette_ssh_method="password")]
    both = [ssh("login", user_name="bob", vedette_ssh_method="publickey")]
    assert asked(draft(wanted, both))[1:] == [("vedette.ssh.method", "equals", ("password",))]
    only_user = [ssh("login", user_name="bob", vedette_ssh_method="password")]
    assert asked(draft(wanted, only_user))[1:] == [("user.name", "equals", ("root",))]


def test_keys_are_never_text_an_attacker_chooses():
    assert draft([ssh("login", source_ip="203.0.113.1", user_name="root")], []).key == ("source.ip",)
    nameless = Sample(b"x", {"event.action": "a", "user.name": "root"}, SSHD)
    assert draft([nameless], []).key == ()


def test_several_values_prefixes_and_what_to_leave_out():
    wanted = [ssh(f"a{number % 2}", vedette_ssh_request=f"scp /srv/{number}") for number in range(8)]
    made = draft(wanted, [ssh("a1", vedette_ssh_request="ls")])
    assert asked(made) == [
        ("event.action", "equals", ("a0", "a1")),
        ("vedette.ssh.request", "startswith", ("scp /srv/",)),
    ]
    left_out = draft([ssh("a"), ssh("a", user_name="x")], [ssh("a", process_tty_name="cron")])
    assert [(test.field, test.values) for test in left_out.excluded] == [("process.tty.name", ("cron",))]


def test_paths_are_asked_by_their_ends_and_ids_never():
    wanted = [
        process(Image=f"C:\\Users\\{name}\\evil.exe", ProcessGuid="{1}", ProcessId=number, Hashes="MD5=1", User="x")
        for number, name in enumerate("ab")
    ]
    made = draft(wanted, [process(Image="C:\\Windows\\good.exe", User="x")])
    assert made.logsource == LogSource("windows", "process_creation")
    assert asked(made) == [("Image", "endswith", ("\\evil.exe",))]
    assert not any(name in str(asked(made)) for name in ("Guid", "ProcessId", "Hashes"))


def test_messages_without_fields_are_told_by_their_words():
    plain = RecordKind("linux", services=frozenset({"foo"}))
    wanted = [Sample(b"x", {"message": f"disk failure on sda{n}", "vedette.service": "foo"}, plain) for n in (1, 2)]
    made = draft(wanted, [Sample(b"y", {"message": "disk fine on sda1"}, plain)])
    assert asked(made) == [("", "contains", ("failure", "disk"))]


def test_what_cannot_be_told_apart_is_said_with_both_places():
    with pytest.raises(ScaffoldError, match="nothing tells login from login"):
        draft([ssh("login")], [ssh("login")])
    with pytest.raises(ScaffoldError, match="no record"):
        draft([], [])
    with pytest.raises(ScaffoldError, match="no log source can be named"):
        draft([Sample(b"x", {"a": 1}, RecordKind())], [])
    with pytest.raises(ScaffoldError, match="share nothing"):
        draft([Sample(b"1", {}, SSHD), Sample(b"2", {}, SSHD)], [])
    with pytest.raises(ScaffoldError, match="text"):
        draft([Sample(b"\xff", {"event.action": "a"}, SSHD)], [])


@pytest.mark.parametrize("raw", [b"\xff", b"a\nb", b"a\x1b[2J", "a\u202eb".encode()])
def test_what_no_file_should_hold(raw: bytes):
    assert not writable(raw)


@pytest.mark.parametrize(
    "value", ["plain", "a*b?", "C:\\x", "\\\\server\\share", "back\\*", "end\\", "a\\\\*", "\\?\\C:", "?", "\\\\?\\"]
)
def test_sigma_reads_a_written_value_back(value: str):
    read = SigmaString(_written(value))
    assert not read.contains_special()
    assert str(read.s[0] if len(read.s) == 1 else "".join(map(str, read.s))) == value


def test_the_document_is_what_was_drafted():
    made = Draft(
        "my-rule",
        "A rule: 'quoted'",
        draft([ssh("a")], []).level,
        LogSource("linux", "", "sshd"),
        [Asked("event.action", Op.EQUALS, ("a", "b*")), Asked("", Op.CONTAINS, ("word",))],
        [Asked("user.name", Op.EQUALS, ("no",))],
        ("source.ip",),
        [ssh("a", "a line: {with} 'all' \"of\" # it")],
        [b"- quiet"],
        2,
    )
    tree = yaml.safe_load(document(made, [{"source.ip": "203.0.113.1"}]))
    assert tree["detection"] == {
        "selection": {"event.action": ["a", "b\\*"]},
        "keywords": {"|all": ["word"]},
        "filter": {"user.name": "no"},
        "condition": "selection and keywords and not filter",
    }
    assert tree["logsource"] == {"product": "linux", "service": "sshd"}
    assert tree["title"] == "A rule: 'quoted'"
    firing, quiet = tree["vedette"]["cases"]
    assert firing["lines"] == ["a line: {with} 'all' \"of\" # it"]
    assert firing["expect"] == [{"source.ip": "203.0.113.1"}]
    assert (quiet["lines"], quiet["expect"]) == (["- quiet"], [])
    assert tree["vedette"]["notify"] == "store"

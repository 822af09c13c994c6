"""Every field of a few records by the names rules use, whatever the format.
Counterpart: vedette.app.records."""

from __future__ import annotations

import json

import pytest

from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.app.records import NAMES_LIMIT, Records
from vedette.app.routed import routed_parser
from vedette.model.levels import Level
from vedette.model.rules import Rule


@pytest.fixture(scope="module")
def parser():
    return routed_parser([Rule("all", "All", Level.LOW)], Counters())


def records(parser, *lines: object) -> Records:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return Records(parser, batch_of_lines(raw, year=2026))


def test_a_syslog_line_has_the_fields_of_the_registry(parser):
    found = records(parser, b"Mar  1 10:00:00 web1 sshd[1]: Failed password for root from 203.0.113.7 port 5 ssh2")
    assert found.fields(0)["source.ip"] == "203.0.113.7"
    assert found.fields(0)["event.action"] == "ssh-login-failed"
    assert "sshd" in found.kind(0).services


@pytest.mark.parametrize("shape", ["evtx", "winlogbeat", "flat"])
def test_windows_events_have_the_names_of_rules_in_every_shape(parser, shape: str):
    data = {"Image": "C:\\x.exe", "CommandLine": "x"}
    system = {"EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Computer": "pc"}
    event: dict[str, object] = {
        "evtx": {"Event": {"System": system, "EventData": data}},
        "winlogbeat": {
            "winlog": {"event_id": 1, "channel": system["Channel"], "computer_name": "pc", "event_data": data}
        },
        "flat": {**system, **data},
    }[shape]
    found = records(parser, event)
    fields = found.fields(0)
    assert {name: fields.get(name) for name in ("Image", "CommandLine", "Channel", "Computer")} == {
        **data,
        "Channel": system["Channel"],
        "Computer": "pc",
    }
    assert str(fields["EventID"]) == "1"
    assert found.kind(0).categories == {"process_creation"}
    assert not [name for name in fields if name.startswith(("Event.", "winlog.event_data"))]


def test_objects_in_arrays_flatten_and_each_record_has_its_own(parser):
    first = {"eventVersion": "1", "eventSource": "s3", "eventName": "Get", "resources": [{"ARN": "a"}, {"ARN": "b"}]}
    second = {"eventVersion": "1", "eventSource": "s3", "eventName": "Put", "nothing": None}
    found = records(parser, first, second)
    assert found.fields(0)["resources.ARN"] == ("a", "b")
    assert "resources.ARN" not in found.fields(1)
    assert found.fields(1)["nothing"] is None
    assert [found.fields(row)["eventName"] for row in range(len(found))] == ["Get", "Put"]


def test_an_audit_event_has_its_own_names_and_those_of_sysmon(parser):
    event = (
        b'type=SYSCALL msg=audit(1600000000.123:45): arch=c000003e syscall=59 success=yes exe="/bin/ls" key="x"\n'
        b'type=EXECVE msg=audit(1600000000.123:45): argc=2 a0="ls" a1="-l"'
    )
    fields = records(parser, event).fields(0)
    wanted = {"a0": "ls", "a1": "-l", "exe": "/bin/ls", "Image": "/bin/ls", "CommandLine": "ls -l"}
    assert {name: fields.get(name) for name in wanted} == wanted


def test_what_is_broken_deep_or_wide_has_an_end(parser):
    deep: object = "x"
    for _ in range(40):
        deep = {"a": deep}
    found = records(parser, {"ok": 1}, b'{"broken": ', deep, {f"n{number}": 1 for number in range(NAMES_LIMIT * 2)})
    assert found.fields(0)["ok"] == 1
    assert len(found.names) <= NAMES_LIMIT + 100

"""JSON records: fields under every name, kinds, times, and bytes that are no proper JSON.
Counterpart: src/vedette/parsers/{json,lenses,frames,objects,windows,recognise,kinds}.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.model.batch import Batch, Origin, RecordFormat, Trust, split_lines
from vedette.model.events import RecordKind, Table, Value
from vedette.model.reasons import DropReason
from vedette.parsers.families import FAMILIES, SAME, family_of
from vedette.parsers.frames import MISSING, look_up, settled
from vedette.parsers.json import JsonParser

READ_AT = 1_790_000_000_000_000


def batch_of(records: Sequence[bytes], timezone: str = "UTC") -> Batch:
    block = b"".join(record + b"\n" for record in records)
    ends = np.cumsum([len(record) + 1 for record in records], dtype=np.int64) - 1
    starts = ends - np.array([len(record) for record in records], dtype=np.int64)
    return Batch(
        Origin("host", "test"),
        0,
        block,
        starts,
        ends,
        starts,
        READ_AT,
        RecordFormat.JSON,
        Trust.FORGEABLE,
        timezone=timezone,
    )


def table_of(*records: Any, counter: Counters | None = None, timezone: str = "UTC") -> Table:
    texts = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    return JsonParser(counter).parse(batch_of(texts, timezone))


def values(table: Table, field: str) -> list[Value]:
    """The field of each record; "absent" where it has none."""
    column = table.column(field)
    return ["absent" if code < 0 else column.values[code] for code in column.codes]


def kinds(table: Table) -> list[RecordKind]:
    return [table.kinds.kinds[code] for code in table.kinds.codes]


def windows(*categories: str, service: str = "sysmon") -> RecordKind:
    return RecordKind("windows", frozenset(categories), frozenset({service}))


SYSMON = "Microsoft-Windows-Sysmon/Operational"
DATA = {
    "Image": "C:\\Windows\\cmd.exe",
    "CommandLine": "cmd /c dir",
    "User": "CORP\\anna",
    "Hashes": "MD5=AA,IMPHASH=BB",
}
FLAT = {"EventID": 1, "Channel": SYSMON, "Computer": "ws1", "UtcTime": "2026-03-01 10:20:30.456", **DATA}
WINLOGBEAT = {
    "@timestamp": "2026-03-01T10:20:30.456Z",
    "host": {"name": "ws1"},
    "winlog": {"channel": SYSMON, "event_id": "1", "computer_name": "ws1", "event_data": DATA},
}
NESTED = {
    "Event": {
        "System": {
            "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}},
            "EventID": 1,
            "TimeCreated": {"#attributes": {"SystemTime": "2026-03-01T10:20:30.456000Z"}},
            "Channel": SYSMON,
            "Computer": "ws1",
        },
        "EventData": DATA,
    }
}
LISTED = {
    "Event": {
        "System": {
            "Provider": {"@Name": "Microsoft-Windows-Sysmon"},
            "EventID": {"#text": "1", "@Qualifiers": "0"},
            "TimeCreated": {"@SystemTime": "2026-03-01T10:20:30.456Z"},
            "Channel": SYSMON,
            "Computer": "ws1",
        },
        "EventData": {"Data": [{"@Name": name, "#text": value} for name, value in DATA.items()]},
    }
}
SHAPES = {"flat": FLAT, "winlogbeat": WINLOGBEAT, "nested": NESTED, "listed": LISTED}


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_fields_in_every_shape(shape: str) -> None:
    table = table_of(SHAPES[shape])
    assert kinds(table) == [windows("process_creation")]
    wanted = {
        "Image": "C:\\Windows\\cmd.exe",
        "process.executable": "C:\\Windows\\cmd.exe",
        "process.name": "cmd.exe",
        "CommandLine": "cmd /c dir",
        "process.command_line": "cmd /c dir",
        "User": "CORP\\anna",
        "user.name": "anna",
        "user.domain": "CORP",
        "Imphash": "BB",
        "md5": "AA",
        "Channel": SYSMON,
        "winlog.channel": SYSMON,
        "Computer": "ws1",
        "host.name": "ws1",
        "@timestamp": "2026-03-01T10:20:30.456000Z",
        "vedette.service": "sysmon",
        "ParentImage": "absent",
        "source.ip": "absent",
    }
    assert {field: values(table, field)[0] for field in wanted} == wanted
    assert str(values(table, "EventID")[0]) == "1"
    assert str(values(table, "event.code")[0]) == "1"


def test_names_as_written_in_nested_shapes() -> None:
    table = table_of(WINLOGBEAT, NESTED)
    assert values(table, "winlog.event_data.Image") == ["C:\\Windows\\cmd.exe", "absent"]
    assert values(table, "Event.EventData.Image") == ["absent", "C:\\Windows\\cmd.exe"]
    assert values(table, "Event.System.TimeCreated.#attributes.SystemTime")[1] == "2026-03-01T10:20:30.456000Z"
    assert values(table, "Event.System.Channel") == ["absent", SYSMON]
    whole = values(table, "winlog.event_data")[0]
    assert isinstance(whole, str)
    assert json.loads(whole) == DATA


def test_security_4688_is_a_process_creation_under_the_names_rules_use() -> None:
    data = {
        "NewProcessName": "C:\\x.exe",
        "ParentProcessName": "C:\\p.exe",
        "CommandLine": "x",
        "SubjectUserName": "bob",
        "SubjectDomainName": "CORP",
        "MandatoryLabel": "S-1-16-12288",
    }
    table = table_of({"EventID": 4688, "Channel": "Security", **data})
    assert kinds(table) == [windows("process_creation", service="security")]
    wanted = {"Image": "C:\\x.exe", "ParentImage": "C:\\p.exe", "User": "CORP\\bob", "IntegrityLevel": "High"}
    assert {field: values(table, field)[0] for field in wanted} == wanted


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"EventID": 12, "Channel": SYSMON, "EventType": "CreateKey"}, windows("registry_event", "registry_add")),
        ({"EventID": 12, "Channel": SYSMON, "EventType": "DeleteValue"}, windows("registry_event", "registry_delete")),
        ({"EventID": "13", "Channel": SYSMON}, windows("registry_event", "registry_set")),
        ({"EventID": 1, "UtcTime": "-", "Image": "x"}, windows("process_creation")),
        ({"EventID": 4104, "ScriptBlockText": "x"}, windows("ps_script", service="powershell")),
        ({"EventID": 4625}, windows(service="security")),
        ({"EventID": 7045, "Provider_Name": "Service Control Manager"}, windows(service="system")),
        ({"EventID": 9, "Channel": "Unheard of"}, RecordKind("windows")),
        ({"EventID": 3, "Channel": "RPCFW"}, RecordKind("rpc_firewall", frozenset({"application"}))),
        (
            {"EventID": 1, "Channel": "Linux-Sysmon/Operational", "Provider_Name": "Linux-Sysmon"},
            RecordKind("linux", frozenset({"process_creation"}), frozenset({"sysmon"})),
        ),
        ({"Image": "C:\\a.exe", "CommandLine": "a"}, RecordKind("windows", frozenset({"process_creation"}))),
        ({"Image": "/bin/a", "CommandLine": "a"}, RecordKind("linux", frozenset({"process_creation"}))),
        (
            {"eventVersion": "1", "eventSource": "s", "eventName": "n"},
            RecordKind("aws", frozenset(), frozenset({"cloudtrail"})),
        ),
        (
            {"auditID": "1", "verb": "get", "requestURI": "/"},
            RecordKind("kubernetes", frozenset({"application"}), frozenset({"audit"})),
        ),
        (
            {"category": "SignInLogs", "operationName": "x", "resourceId": "y"},
            RecordKind("azure", services=frozenset({"signinlogs"})),
        ),
        (
            {"Operation": "x", "Workload": "Exchange", "RecordType": 1},
            RecordKind("m365", services=frozenset({"audit"})),
        ),
        ({"_path": "dns", "query": "x"}, RecordKind("zeek", services=frozenset({"dns"}))),
        (
            {"event": {"category": ["process"], "type": ["start"]}, "host": {"os": {"type": "macos"}}},
            RecordKind("macos", frozenset({"process_creation"})),
        ),
        ({"level": "info", "msg": "x"}, RecordKind()),
    ],
)  # fmt: skip
def test_kinds(event: dict[str, Any], kind: RecordKind) -> None:
    assert kinds(table_of(event)) == [kind]


def test_values_keep_what_they_are() -> None:
    table = table_of(
        b'{"a":1,"n":null,"e":[],"l":[1,"1",1.0,true],"o":{"x":[{"y":1},{"y":[2,3]}]},"big":123456789012345678901}'
    )
    assert [(type(value), value) for value in values(table, "a")] == [(int, 1)]
    assert values(table, "n") == [None]
    assert values(table, "e") == [()]
    several = values(table, "l")[0]
    assert isinstance(several, tuple)
    assert [(type(one), one) for one in several] == [
        (int, 1),
        (str, "1"),
        (float, 1.0),
        (bool, True),
    ]
    assert values(table, "o.x.y") == [(1, 2, 3)]
    assert values(table, "o") == ['{"x":[{"y":1},{"y":[2,3]}]}']
    assert values(table, "big") == ["123456789012345678901"]
    assert values(table, "nowhere") == ["absent"]


def test_equal_texts_of_other_types_stay_apart() -> None:
    table = table_of({"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": 1}, {"b": 1}, {"a": None})
    assert [repr(value) for value in values(table, "a")] == ["1", "True", "1.0", "'1'", "1", "'absent'", "None"]


def test_duplicate_names_are_counted_and_the_last_holds() -> None:
    counters = Counters()
    table = table_of(
        b'{"a":1,"a":2}', b'{"a":"x\\":","b":1}', b'{"a\\\\":1}', b'{"o":{"a":1,"a":2},"b":1}', b'{"o":{"a":1}}',
        counter=counters,
    )  # fmt: skip
    assert values(table, "a")[0] == 2
    assert values(table, "o.a") == ["absent", "absent", "absent", 2, 1]
    assert counters.value("records_doubtful", DropReason.JSON_DUPLICATE_KEY) == 2


def test_what_is_no_json_is_counted_and_still_an_event() -> None:
    counters = Counters()
    table = table_of({"a": "b"}, b"no {json", b"[1]", b'{"a":' * 3000, b"", counter=counters)
    assert table.unreadable == 4
    assert counters.value("records_unreadable", DropReason.JSON_UNREADABLE) == 4
    assert values(table, "message")[:3] == ["absent", "no {json", "[1]"]
    assert values(table, "event.original")[:2] == ['{"a": "b"}', "no {json"]
    assert table.strings([0, 1]) == [("b",), ("no {json",)]
    assert table.untimed.tolist() == [0, 1, 2, 3, 4]
    assert set(table.time.tolist()) == {READ_AT}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'{"a":"\xff"}', "\U0010ffff"),
        (b'{"a":"\\ud800"}', "\U0010ffed\U0010ffa0\U0010ff80"),
        (b'{"a":"\\udbff\\udfff"}', "\U0010fff4\U0010ff8f\U0010ffbf\U0010ffbf"),
        (b'{"a":"\\\\udbff"}', "\\udbff"),
        (b'{"a":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"a":NaN}', "NaN"),
        (b'\xef\xbb\xbf{"a":"x"}', "x"),
    ],
)
def test_text_without_loss(written: bytes, read: str) -> None:
    assert values(table_of(written), "a") == [read]
    assert read.encode()


def test_an_event_s_own_name_comes_before_another_one_s_that_says_the_same() -> None:
    defender = {
        "System": {"Provider": {"#attributes": {"Name": "Defender"}}, "EventID": 1119},
        "EventData": {"Source Name": "Real-Time Protection", "Threat Name": "Tool", "Process Name": "x.exe"},
    }
    bare = {"System": {"Provider": {"#attributes": {"Name": "Kernel"}}, "EventID": 1}, "EventData": {}}
    table = table_of({"Event": defender}, defender, {"Event": bare})
    assert values(table, "SourceName") == ["Real-Time Protection", "Real-Time Protection", "Kernel"]
    assert values(table, "ThreatName") == values(table, "Threat Name") == ["Tool", "Tool", "absent"]
    assert values(table, "ProcessName") == ["x.exe", "x.exe", "absent"]
    assert values(table, "Provider_Name") == ["Defender", "Defender", "Kernel"]


def test_keywords_see_every_string_value_and_no_name() -> None:
    table = table_of({"name": ["x", {"b": "y", "c": 5}], "d": {"e": "z", "f": "x"}})
    assert table.strings([0]) == [("x", "y", "z")]


def test_source_address_is_canonical_or_absent() -> None:
    table = table_of(
        {"EventID": 4625, "Channel": "Security", "IpAddress": "::ffff:198.51.100.7"},
        {"EventID": 4625, "Channel": "Security", "IpAddress": "-"},
        {"eventVersion": "1", "eventSource": "s", "eventName": "n", "sourceIPAddress": "198.51.100.8"},
    )
    assert values(table, "source.ip") == ["198.51.100.7", "absent", "198.51.100.8"]


def test_times_without_zone_are_local_only_where_no_maker_says_otherwise() -> None:
    table = table_of({"time": "2026-07-01 12:00:00"}, FLAT, {"ts": 1_780_000_000.5}, timezone="Europe/Berlin")
    assert values(table, "@timestamp") == [
        "2026-07-01T10:00:00.000000Z", "2026-03-01T10:20:30.456000Z", "2026-05-28T20:26:40.500000Z",
    ]  # fmt: skip


def test_every_family_has_a_sample_of_its_own_members() -> None:
    for family in FAMILIES:
        for members in family.members:
            assert family_of(members) is family, (family.name, members)
    assert all(len(set(names)) == len(names) for names in SAME)


_KEYS = st.sampled_from(
    ["a", "b", "a.b", "Image", "EventID", "Event", "EventData", "System", "winlog", "Data", "Channel"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@example([{"a": [], "EventData": None, "System": {"a": None}}, {"a": None, "winlog": [{"a": None}]}])
@given(st.lists(st.dictionaries(_KEYS, _JSON, max_size=4), min_size=1, max_size=6))
def test_columns_say_what_looking_into_each_record_says(records: list[dict[str, Any]]) -> None:
    texts = [json.dumps(record).encode() for record in records]
    table = JsonParser().parse(batch_of(texts))
    for name in ("a", "a.b", "b.a", "a.b.Image"):
        found = values(table, name)
        for record, value in zip(records, found, strict=True):
            family = family_of(frozenset(record))
            inner = [look_up(record, place.path) if place.path else record for place in family.places]
            # A place that is no object holds nothing.
            seen = (look_up(one, name) for one in inner if isinstance(one, dict))
            wanted = next((one for one in seen if one is not MISSING), MISSING)
            if wanted is MISSING:
                if family.name in ("plain", "ecs"):
                    assert value == "absent"
            elif isinstance(wanted, (str, bool, list)) and wanted == wanted:
                assert (
                    str(value) == str(settled(wanted))
                    or any(0xD800 <= ord(char) < 0xE000 for char in str(wanted))
                    or ("nan" in str(settled(wanted)) or "inf" in str(settled(wanted)) or len(str(wanted)) > 18)
                )


@given(st.lists(st.binary(max_size=80) | _JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_nothing_raises(records: list[bytes]) -> None:
    table = JsonParser(Counters()).parse(batch_of(records))
    for field in ("Image", "EventID", "a.b", "@timestamp", "message", "source.ip", "User", "md5", "event.original"):
        assert len(table.column(field).codes) == len(records)
        assert int(table.column(field).codes.max(initial=-1)) < len(table.column(field).values)
    assert len(table.strings(range(len(records)))) == len(records)
    assert len(table.kinds.codes) == len(records) == len(table.time)


def test_a_line_of_a_mebibyte() -> None:
    record = json.dumps({"a": "x" * (1 << 20), "list": list(range(50_000))}).encode()
    table = JsonParser().parse(batch_of([record]))
    assert len(str(values(table, "a")[0])) == 1 << 20
    several = values(table, "list")[0]
    assert isinstance(several, tuple)
    assert len(several) == 4096
    assert split_lines(record)[0].tolist() == [0]

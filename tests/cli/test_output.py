"""What reaches a terminal or a program: nothing that acts, nothing lost.
Counterpart: vedette.cli.output."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.parts import HARMFUL, HOSTILE

from vedette.cli.output import json_line, say, table
from vedette.text.escape import decode, terminal


def test_json_escapes_what_a_terminal_would_obey_and_keeps_letters():
    line = json_line({"user.name": HOSTILE, "beyond": "\x7f\U000e0041", "name": "José 日本 🐎"}).decode()
    assert line.count("\n") == 1
    assert not [one for one in (*HARMFUL, "\x7f", "\U000e0041") if one in line]
    assert "José 日本 🐎" in line
    assert json.loads(line)["beyond"] == "\x7f\U000e0041"


@given(st.text())
def test_json_means_the_same_whatever_is_in_it(text: str):
    text = decode(text.encode("utf-8", "replace"))
    line = json_line({"message": text, "nested": {"message": text}, "list": [text]})
    record = json.loads(line)
    shown = terminal(line.decode().rstrip("\n"))
    assert shown == line.decode().rstrip("\n")
    if "message_b64" not in record:
        assert record["message"] == record["nested"]["message"] == record["list"][0] == text


def test_bytes_that_are_no_utf_8_stand_beside():
    record = json.loads(json_line({"user.name": decode(b"b\xffb")}))
    assert record["user.name"] == "b\ufffdb"
    assert base64.b64decode(record["user.name_b64"]) == b"b\xffb"


def test_a_table_has_one_line_a_row_and_nothing_acts(capsys: pytest.CaptureFixture[str]):
    table(("NAME", "COUNT"), [(HOSTILE, 1), ("bob", 22)])
    say(HOSTILE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].endswith("22")
    assert lines[2].index("22") == lines[1].rindex("1") == lines[0].index("COUNT")
    assert not [one for one in HARMFUL if any(one in line for line in lines)]


def test_an_empty_table_is_its_heading(capsys: pytest.CaptureFixture[str]):
    table(("NAME", "COUNT"), [])
    assert capsys.readouterr().out == "NAME  COUNT\n"

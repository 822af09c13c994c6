from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.audit import Action, Audit, arguments, record
from vedette.app.host import AUDIT_FILE
from vedette.model.errors import StateError

HOSTILE = 'eve\x1b[2J\r\n{"x":1}\u202e\udcff'


def test_lines_are_appended_and_nothing_before_them_changes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number in range(3):
        with Audit(folder) as audit:
            audit.write(Action("command-run", "alice", f"number {number}", about={"code": number}), number)
    lines = (folder / AUDIT_FILE).read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["number 0", "number 1", "number 2"]
    assert (folder / AUDIT_FILE).stat().st_mode & 0o777 == 0o600


@settings(max_examples=30)
@given(st.text(max_size=50), st.text(max_size=400))
def test_whatever_it_says_it_is_one_line_without_controls(who: str, words: str) -> None:
    about = {"reason": words, "arguments": arguments({"note": words, "names": (who, words)})}
    made = record(Action("command-run", who + HOSTILE, words + HOSTILE, success=False, about=about), 0)
    line = json.dumps(made, ensure_ascii=False)
    assert not any(ord(one) < 32 or one in "\x1b\u202e\u2028" for one in line)
    assert len(line) < 4_000


def test_secrets_are_masked_by_name_and_by_look() -> None:
    given = {
        "token": "abc",
        "passphrase": "abc",
        "new_password": "abc",
        "passphrase_file": "/etc/x",
        "note": "use vdt_AbC-_9 for it",
        "ids": ("a", "b"),
        "yes": True,
        "no": False,
        "config": None,
        "empty": "",
    }
    assert arguments(given) == [
        "token=***",
        "passphrase=***",
        "new_password=***",
        "passphrase_file=/etc/x",
        "note=use *** for it",
        "ids=a,b",
        "yes=True",
    ]


def test_an_audit_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / AUDIT_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(StateError, match="cannot be written"):
        Audit(folder)
    assert (tmp_path / "precious").read_text() == "x"


def test_half_a_line_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with Audit(tmp_path / "data") as audit:
        monkeypatch.setattr("vedette.app.audit.os.write", lambda file, line: real(file, line[:10]))
        with pytest.raises(OSError, match="no space"):
            audit.write(Action("command-run", "alice", "x"), 0)
        monkeypatch.undo()
        audit.write(Action("command-run", "alice", "whole"), 0)
    torn, whole = (tmp_path / "data" / AUDIT_FILE).read_text().splitlines()
    assert len(torn) == 10
    assert json.loads(whole)["message"] == "whole"

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.detection import load_rules
from vedette.model.errors import RuleError
from vedette.rules import loading

RULE = """\
title: A
id: own-a
status: test
level: low
logsource: {product: linux, service: sshd}
detection: {x: {event.action: ssh-login-failed}, condition: x}
"""


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_has_not_changed_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yml"
    file.write_text(RULE)
    first = load_rules([file])
    with monkeypatch.context() as context:
        context.setattr(loading, "_load_file", lambda *_: pytest.fail("compiled again"))
        assert load_rules([file]) == first
    file.write_text(RULE.replace("low", "high"))
    changed = load_rules([file])
    assert [rule.level.label for rule in changed if rule.id == "own-a"] == ["high"]


def test_what_is_broken_is_told_each_time(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(RULE.replace("detection", "detecton"))
    for _ in range(2):
        with pytest.raises(RuleError, match=r"a\.yml:6"):
            load_rules([file])
    said: list[str] = []
    for _ in range(2):
        assert load_rules([file], packs=False, keep_going=True, say=said.append) == []
    assert len(said) == 2
    with pytest.raises(RuleError, match="no such file"):
        load_rules([tmp_path / "none.yml"])

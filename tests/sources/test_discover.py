"""What is found on hosts of different make.
Counterpart: src/vedette/sources/discover.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.model.batch import RecordFormat
from vedette.sources import discover as module
from vedette.sources.discover import Discovery, Lack, discover


def lacks(found: Discovery) -> list[Lack]:
    assert all(lacking.hint for lacking in found.lacking)
    return [lacking.lack for lacking in found.lacking]


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_the_journal_is_enough(tmp_path: Path):
    put(tmp_path, "var/log/journal/c0ffee/system.journal", "var/log/auth.log")
    found = discover(tmp_path)
    assert found.journal is not None
    assert found.journal.folder == str(tmp_path / "var/log/journal")
    assert found.journal.reader == "auto"
    assert found.file is None
    assert lacks(found) == []


def test_a_journal_in_memory_only_counts(tmp_path: Path):
    put(tmp_path, "run/log/journal/c0ffee/system.journal")
    found = discover(tmp_path)
    assert found.journal is not None
    assert found.journal.folder == str(tmp_path / "run/log/journal")


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        (["auth.log", "syslog"], ["auth.log", "syslog"]),
        (["secure", "messages"], ["secure", "messages"]),
    ],
)
def test_without_a_journal_the_classic_files_are_read(tmp_path: Path, files: list[str], paths: list[str]):
    put(tmp_path, *(f"var/log/{name}" for name in files))
    found = discover(tmp_path)
    assert found.journal is None
    assert found.file is not None
    assert found.file.paths == tuple(str(tmp_path / "var/log" / name) for name in paths)
    assert not found.file.accept_forgeable
    assert lacks(found) == [Lack.JOURNAL_ABSENT, Lack.FORGEABLE_ONLY]


def test_a_host_without_an_auth_log_is_told_so(tmp_path: Path):
    put(tmp_path, "var/log/messages")
    assert lacks(discover(tmp_path)) == [Lack.JOURNAL_ABSENT, Lack.AUTH_LOG_ABSENT, Lack.FORGEABLE_ONLY]


def test_a_bare_host_waits_for_what_may_come(tmp_path: Path):
    found = discover(tmp_path)
    assert found.file is not None
    assert found.file.paths == (str(tmp_path / "var/log/auth.log"), str(tmp_path / "var/log/secure"))
    assert lacks(found) == [Lack.JOURNAL_ABSENT, Lack.AUTH_LOG_ABSENT, Lack.NOTHING_TO_READ]


def test_an_unreadable_journal_is_named_and_the_file_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, "var/log/journal/c0ffee/system.journal", "var/log/auth.log")
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not str(path).startswith(str(tmp_path)))
    found = discover(tmp_path)
    assert found.journal is None
    assert found.file is not None
    assert lacks(found) == [Lack.JOURNAL_UNREADABLE, Lack.FILE_UNREADABLE, Lack.FORGEABLE_ONLY]


def test_the_log_of_auditd_is_read_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, "var/log/journal/c0ffee/system.journal", "var/log/audit/audit.log")
    found = discover(tmp_path)
    assert found.journal is not None
    assert found.file is None
    assert [(each.paths, each.format) for each in found.files] == [
        ((str(tmp_path / "var/log/audit/audit.log"),), RecordFormat.AUDIT)
    ]
    (tmp_path / "var/log/auth.log").touch()
    (tmp_path / "var/log/journal/c0ffee/system.journal").unlink()
    assert [each.format for each in discover(tmp_path).files] == [RecordFormat.SYSLOG, RecordFormat.AUDIT]
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not str(path).endswith("audit.log"))
    found = discover(tmp_path)
    assert [lacking.path for lacking in found.lacking if lacking.lack is Lack.FILE_UNREADABLE] == [
        str(tmp_path / "var/log/audit/audit.log")
    ]


def test_without_the_library_the_program_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, "var/log/journal/c0ffee/system.journal")
    monkeypatch.setattr(module, "library", lambda: None)
    monkeypatch.setattr(os, "access", lambda path, mode, **_: True)
    found = discover(tmp_path)
    assert found.journal is not None
    assert found.journal.reader == "journalctl"
    assert lacks(found) == [Lack.JOURNAL_LIBRARY_MISSING]
    monkeypatch.setattr(os, "access", lambda path, mode, **_: str(path).startswith(str(tmp_path)))
    assert Lack.JOURNAL_NO_READER in lacks(discover(tmp_path))

"""Files that only spare work: kept for their owner alone, made anew where nothing can be kept.
Counterpart: vedette.system.kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.system import kept


def test_what_was_kept_is_read_again_from_a_folder_of_ones_own_only(tmp_path: Path):
    where = tmp_path / "cache" / "vedette"
    assert kept.read("a.bin", where) is None
    kept.write("a.bin", b"made", where, most=2)
    assert kept.read("a.bin", where) == b"made"
    where.chmod(0o750)
    assert kept.read("a.bin", where) is None


def test_the_newest_of_a_kind_stay(tmp_path: Path):
    where = tmp_path / "vedette"
    kept.write("other.txt", b"", where, most=1)
    for number in range(4):
        kept.write(f"{number}.bin", b"", where, most=2)
        os.utime(where / f"{number}.bin", (number, number))
    kept.write("4.bin", b"", where, most=2)
    assert sorted(one.name for one in where.iterdir()) == ["3.bin", "4.bin", "other.txt"]


def test_a_user_without_a_home_keeps_nothing_and_is_no_error(monkeypatch: pytest.MonkeyPatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert kept.read("a.bin", kept.folder()) is None


def test_a_key_changes_with_name_content_and_whatever_else_is_said(tmp_path: Path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"12")
    second.write_bytes(b"3")
    keys = {kept.key_of([first, second]), kept.key_of([second, first]), kept.key_of([first, second], 1)}
    first.write_bytes(b"1")
    second.write_bytes(b"23")
    assert len(keys | {kept.key_of([first, second])}) == 4
    with pytest.raises(OSError, match="none"):
        kept.key_of([tmp_path / "none"])

"""A list of kernel modules is what depmod makes, or is not vouched for.
Counterpart: vedette.sources.integrity.vouch_modules, with a depmod that is ours and the machine's where it has one."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict
from vedette.sources.integrity import vouch_modules
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_modules import ModulesVoucher


def asked(root: Path, name: str, *, mode: int = 0o644) -> Verdict | None:
    path = root / "lib/modules/6.1" / name
    digest = hashlib.sha256(path.read_bytes()).digest()
    now = Entry(os.fsencode(path), FileType.FILE, mode, 0, 0, 0, 0, 0, 0, 0, 1, b"", digest)
    (answer,) = ModulesVoucher(DpkgDatabase(root)).vouch([Change(ChangeKind.CHANGED, now.path, after=now)])
    return answer.verdict if answer is not None else None


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "lib/modules/6.1"
    (here / "kernel").mkdir(parents=True)
    (here / "kernel/a.ko").write_text("a")
    (here / "modules.order").touch()

    def depmod(argv: list[str], *, timeout: float) -> subprocess.CompletedProcess[bytes]:
        assert argv[:2] == ["depmod", "-b"]
        made = Path(argv[2]) / "lib/modules" / argv[3]
        (made / "modules.dep").write_text("".join(f"{one.name}:\n" for one in sorted((made / "kernel").iterdir())))
        return subprocess.CompletedProcess(argv, 0, b"", b"")

    monkeypatch.setattr(vouch_modules.programs, "run", depmod)
    (here / "modules.dep").write_text("a.ko:\n")
    return tmp_path


def test_a_list_as_it_is_made_is_vouched_for(root: Path) -> None:
    assert asked(root, "modules.dep") is Verdict.VOUCHED
    assert (root / "lib/modules/6.1/modules.dep").read_text() == "a.ko:\n"
    assert asked(root, "modules.dep", mode=0o666) is Verdict.HINT


def test_a_list_that_is_not_made_so_is_not(root: Path) -> None:
    (root / "lib/modules/6.1/modules.dep").write_text("a.ko: ../../../tmp/evil.ko\n")
    assert asked(root, "modules.dep") is Verdict.HINT


def test_what_depmod_reads_is_none_of_its(root: Path) -> None:
    assert asked(root, "modules.order") is None
    assert asked(root, "kernel/a.ko") is None


def test_where_there_is_no_depmod_nothing_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(argv: list[str], *, timeout: float) -> subprocess.CompletedProcess[bytes]:
        raise FileNotFoundError(argv[0])

    monkeypatch.setattr(vouch_modules.programs, "run", none)
    assert asked(root, "modules.dep") is None

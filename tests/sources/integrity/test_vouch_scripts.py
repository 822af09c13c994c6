"""What a signed script asks for is vouched for, and what only looks like it is not.
Counterpart: vedette.sources.integrity.vouch_scripts, over a small tree with dpkg's log."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_scripts import ScriptVoucher

SCRIPT = b"""#!/bin/sh
if deb-systemd-helper --quiet was-enabled 'tool.service'; then
    deb-systemd-helper enable 'tool.service' >/dev/null || true
fi
update-rc.d tool defaults
adduser --quiet --system --group \\
    --home /nonexistent toold
"""
UNIT, INIT = b"/lib/systemd/system/tool.service", b"/etc/init.d/tool"
FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "shadow": "root:*:1::::::\n",
    "group": "root:x:0:\nsudo:x:27:\n",
    "gshadow": "root:*::\nsudo:*::\n",
}


class Packages:
    """Says that files of `tool` are as shipped. signed: whether its script is."""

    def __init__(self, *, signed: bool = True) -> None:
        self.signed = signed

    def scripts(self, packages: Collection[str]) -> Mapping[str, bytes]:
        return {"tool 1.0": SCRIPT} if self.signed and "tool" in packages else {}

    def standing(self, paths: Sequence[bytes]) -> Mapping[bytes, Vouching | None]:
        said = Vouching("package", Verdict.VOUCHED, package="tool", version="1.0")
        return {path: said for path in paths if path in (UNIT, INIT, UNIT.replace(b"tool", b"other"))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    (tmp_path / "etc").mkdir()
    for name, text in FILES.items():
        (tmp_path / "etc" / name).write_text(text)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    (tmp_path / "dpkg.log").write_text(f"{now} install tool:all <none> 1.0\n")
    return tmp_path


def voucher(root: Path, *, signed: bool = True) -> ScriptVoucher:
    return ScriptVoucher(DpkgDatabase(root, root / "dpkg.log"), Packages(signed=signed))


def entry(path: Path, **more: int) -> Entry:
    status = os.lstat(path)
    target = os.fsencode(os.readlink(path)) if path.is_symlink() else b""
    return Entry(
        os.fsencode(path), FileType.SYMLINK if target else FileType.FILE, more.get("mode", 0o644), 0, 0, status.st_size,
        0, 0, 0, 0, 1, target, b"" if target else hashlib.sha256(path.read_bytes()).digest(),
    )  # fmt: skip


def linked(root: Path, path: str, target: str, *, signed: bool = True) -> bool:
    link = root / path.lstrip("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    now = entry(link)
    (answer,) = voucher(root, signed=signed).vouch([Change(ChangeKind.ADDED, now.path, after=now)])
    return answer is not None and answer.lowers


@pytest.mark.parametrize(
    ("path", "target", "vouched"),
    [
        ("/etc/systemd/system/multi-user.target.wants/tool.service", "/lib/systemd/system/tool.service", True),
        ("/etc/systemd/system/multi-user.target.wants/other.service", "/lib/systemd/system/other.service", False),
        ("/etc/systemd/system/multi-user.target.wants/other.service", "/lib/systemd/system/tool.service", False),
        ("/etc/systemd/system/multi-user.target.wants/tool.service", "/tmp/tool.service", False),
        ("/etc/systemd/system/multi-user.target.wants/tool.service", "/lib/systemd/system/../../x.service", False),
        ("/etc/rc2.d/S01tool", "../init.d/tool", True),
        ("/etc/rc2.d/S01tool", "../init.d/other", False),
        ("/etc/rc2.d/S01other", "../init.d/tool", False),
        ("/etc/cron.d/tool", "../init.d/tool", False),
    ],
)
def test_links_that_enable(root: Path, path: str, target: str, vouched: bool) -> None:
    assert linked(root, path, target) is vouched


def test_without_a_signed_script_no_link_is_vouched_for(root: Path) -> None:
    wants = "/etc/systemd/system/multi-user.target.wants/tool.service"
    assert not linked(root, wants, UNIT.decode(), signed=False)


def changed(root: Path, name: str, text: str, *, signed: bool = True, mode: int = 0o644, at: int | None = None) -> bool:
    path = root / "etc" / name
    asked, before = voucher(root, signed=signed), entry(path)
    path.write_text(text)
    now = entry(path, mode=mode)
    when = time.time_ns() // 1000 if at is None else at
    (answer,) = asked.vouch([Change(ChangeKind.CHANGED, now.path, (), before, now, at=when)])
    return answer is not None and answer.lowers


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("passwd", "toold:x:105:109::/nonexistent:/usr/sbin/nologin\n"),
        ("shadow", "toold:!:1::::::\n"),
        ("group", "toold:x:109:\n"),
        ("gshadow", "toold:!::\n"),
    ],
)
def test_a_system_account_of_the_script(root: Path, name: str, added: str) -> None:
    assert changed(root, name, FILES[name] + added)


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("passwd", "toold:x:0:0::/root:/usr/sbin/nologin\n"),
        ("passwd", "toold:x:105:0::/nonexistent:/usr/sbin/nologin\n"),
        ("passwd", "toold:x:105:109::/nonexistent:/bin/sh\n"),
        ("passwd", "toold::105:109::/nonexistent:/usr/sbin/nologin\n"),
        ("passwd", "toold:x:1005:109::/nonexistent:/usr/sbin/nologin\n"),
        ("passwd", "evil:x:105:109::/nonexistent:/usr/sbin/nologin\n"),
        ("passwd", "tool:x:105:109::/nonexistent:/usr/sbin/nologin\n"),
        ("passwd", "toold:x:105:109::/nonexistent:/usr/sbin/nologin\nevil:x:0:0::/root:/bin/sh\n"),
        ("shadow", "toold:$6$x$y:1::::::\n"),
        ("shadow", "toold::1::::::\n"),
        ("group", "toold:x:0:\n"),
        ("group", "toold:x:109:alice\n"),
        ("gshadow", "toold:::alice\n"),
        ("gshadow", "toold:!::alice\n"),
    ],
)
def test_what_lets_somebody_in_is_not_vouched_for(root: Path, name: str, added: str) -> None:
    assert not changed(root, name, FILES[name] + added)


def test_a_line_that_changed_an_unsigned_script_other_rights_and_an_old_installation(root: Path) -> None:
    added = "toold:x:109:\n"
    assert not changed(root, "group", FILES["group"].replace("27:", "27:alice") + added)
    (root / "etc/group").write_text(FILES["group"])
    assert not changed(root, "group", FILES["group"] + added, signed=False)
    (root / "etc/group").write_text(FILES["group"])
    assert not changed(root, "group", FILES["group"] + added, mode=0o666)
    (root / "etc/group").write_text(FILES["group"])
    assert not changed(root, "group", FILES["group"] + added, at=time.time_ns() // 1000 + 2 * 3_600_000_000)

"""A real rpm, built, signed and installed by rpm's own tools: its header vouches, and what forges it does not.
Counterpart: sources/integrity/vouch_rpm.py, system/rpm_header.py; test_vouch_rpm.py needs no rpm."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_rpm import RpmLack, RpmVoucher
from vedette.system.rpm_header import DIGESTS, as_signed, read_header

pytestmark = [pytest.mark.root, pytest.mark.slow]

SPEC = """
Name: tool
Version: {version}
Release: 1
Summary: a test
License: none
BuildArch: noarch
%description
a test
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc
printf 'tool {version}\\n' > %{{buildroot}}/usr/bin/tool
ln -s tool %{{buildroot}}/usr/bin/t
printf 'colour = red\\n' > %{{buildroot}}/etc/tool.conf
%files
%attr(0755, root, root) /usr/bin/tool
/usr/bin/t
%config(noreplace) %attr(0644, root, root) /etc/tool.conf
"""
DATABASE = "usr/lib/sysimage/rpm"


class Rpm:
    """Everything lies under `folder`: `root` is where rpm installs."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.root = folder, folder / "root"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        self.key = folder / "RPM-GPG-KEY-example"
        (folder / "gnupg").mkdir(mode=0o700)
        self._env = {
            "PATH": "/usr/sbin:/usr/bin",
            "LC_ALL": "C.UTF-8",
            "GNUPGHOME": str(folder / "gnupg"),
            "HOME": str(folder),
        }
        self.run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Example Packages", kind, "sign", "never")
        self.key.write_bytes(self.run("gpg", "--batch", "--armor", "--export"))

    def run(self, *argv: str | Path) -> bytes:
        ended = subprocess.run([str(one) for one in argv], env=self._env, capture_output=True)
        assert ended.returncode == 0, (argv, ended.stderr.decode())
        return ended.stdout

    def install(self, version: str, *, signed: bool = True) -> None:
        """Build it, sign it, put it there or in the place of the one that is."""
        spec = self.folder / "tool.spec"
        spec.write_text(SPEC.format(version=version))
        top = self.folder / f"built-{version}"
        self.run("rpmbuild", "-bb", "--define", f"_topdir {top}", "--define", "_build_id_links none", spec)
        (package,) = top.glob("RPMS/noarch/*.rpm")
        if signed:
            by = ("--define", "_gpg_name Example Packages", "--define", "__gpg /usr/bin/gpg")
            self.run("rpmsign", *by, "--addsign", package)
        self.run(
            "rpm", "--root", self.root, "--define", f"_dbpath /{DATABASE}", "--define", "_db_backend sqlite",
            "--nosignature", "--nodeps", "--noscripts", "-U", package,
        )  # fmt: skip

    def close(self) -> None:
        self.run("gpgconf", "--kill", "all")

    def asked(self, *keys: Path) -> RpmVoucher:
        return RpmVoucher(self.root, keys or (self.key,), patience=0)


@pytest.fixture(params=["rsa3072", "ed25519"])
def rpm(scratch: Path, request: pytest.FixtureRequest) -> Iterator[Rpm]:
    made = Rpm(scratch, request.param)
    yield made
    made.close()


def said(asked: RpmVoucher, path: Path, *attributes: Attribute) -> Vouching | None:
    status = os.lstat(path)
    link = stat.S_ISLNK(status.st_mode)
    entry = Entry(
        os.fsencode(path), FileType.SYMLINK if link else FileType.FILE, stat.S_IMODE(status.st_mode), status.st_uid,
        status.st_gid, status.st_size, 0, 0, 0, 0, 1, os.fsencode(os.readlink(path)) if link else b"",
        b"" if link else hashlib.sha256(path.read_bytes()).digest(),
    )  # fmt: skip
    (answer,) = asked.vouch([Change(ChangeKind.CHANGED, entry.path, attributes or (Attribute.CONTENT,), entry, entry)])
    return answer


def test_what_a_signed_header_says(rpm: Rpm) -> None:
    rpm.install("1.0")
    asked = rpm.asked()
    tool = rpm.root / "usr/bin/tool"
    rpm.install("1.1")
    for path in (tool, rpm.root / "usr/bin/t", rpm.root / "etc/tool.conf"):
        one = said(asked, path)
        assert one is not None
        assert (one.verdict, one.package, one.version) == (Verdict.VOUCHED, "tool", "1.1-1"), path
        assert "Example Packages" in one.detail
    tool.chmod(0o4755)
    one = said(asked, tool, Attribute.MODE)
    assert one is not None
    assert one.verdict is Verdict.CONTRADICTED
    tool.chmod(0o775)
    assert said(asked, tool, Attribute.MODE) is None
    tool.chmod(0o755)
    assert said(asked, tool, Attribute.XATTR) is None
    tool.write_bytes(b"tool 1.I\n")
    one = said(asked, tool)
    assert one is not None
    assert (one.verdict, one.expected_sha256) == (Verdict.CONTRADICTED, hashlib.sha256(b"tool 1.1\n").digest())
    (rpm.root / "etc/tool.conf").write_bytes(b"colour = blue\n")
    assert said(asked, rpm.root / "etc/tool.conf") is None
    assert asked.lacks == {}


def forge(rpm: Rpm, old: bytes, new: bytes) -> None:
    """Write another text of the same length into the header, as root may."""
    with closing(sqlite3.connect(rpm.root / DATABASE / "rpmdb.sqlite")) as connection, connection:
        ((number, blob),) = connection.execute("SELECT hnum, blob FROM Packages").fetchall()
        assert blob.count(old) == 1
        connection.execute("UPDATE Packages SET blob = ? WHERE hnum = ?", (blob.replace(old, new), number))


def test_a_forged_header_is_a_hint_at_most(rpm: Rpm) -> None:
    rpm.install("1.0")
    tool, evil = rpm.root / "usr/bin/tool", b"tool 1.O\n"
    tool.write_bytes(evil)
    forge(rpm, hashlib.sha256(b"tool 1.0\n").hexdigest().encode(), hashlib.sha256(evil).hexdigest().encode())
    asked = rpm.asked()
    one = said(asked, tool)
    assert one is not None
    assert one.verdict is Verdict.HINT
    assert asked.lacks == {RpmLack.BAD_SIGNATURE: 1}


def test_no_key_another_key_and_no_signature_vouch_for_nothing(rpm: Rpm, tmp_path: Path) -> None:
    rpm.install("1.0")
    tool = rpm.root / "usr/bin/tool"
    other = Rpm(tmp_path, "ed25519")
    other.close()
    for keys, lack in (((tmp_path / "none",), RpmLack.NO_KEY), ((other.key,), RpmLack.BAD_SIGNATURE)):
        asked = rpm.asked(*keys)
        one = said(asked, tool)
        assert one is not None
        assert (one.verdict, asked.lacks) == (Verdict.HINT, {lack: 1})
    rpm.install("1.1", signed=False)
    asked = rpm.asked()
    one = said(asked, tool)
    assert one is not None
    assert (one.verdict, asked.lacks) == (Verdict.HINT, {RpmLack.NOT_SIGNED: 1})


def test_a_key_that_came_later_counts_after_a_restart(rpm: Rpm, tmp_path: Path) -> None:
    rpm.install("1.0")
    other = Rpm(tmp_path, "ed25519")
    other.close()
    mine = rpm.key.read_bytes()
    rpm.key.write_bytes(other.key.read_bytes())
    asked = rpm.asked()
    rpm.key.write_bytes(mine)
    one = said(asked, rpm.root / "usr/bin/tool")
    assert one is not None
    assert (one.verdict, set(asked.lacks)) == (Verdict.HINT, {RpmLack.KEY_CHANGED, RpmLack.BAD_SIGNATURE})
    one = said(rpm.asked(), rpm.root / "usr/bin/tool")
    assert one is not None
    assert one.verdict is Verdict.VOUCHED


def test_what_is_added_behind_the_signed_part_is_not_read(rpm: Rpm) -> None:
    """rpm appends its own tags: whoever appends a second table of digests there is not heard."""
    rpm.install("1.0")
    tool, evil = rpm.root / "usr/bin/tool", b"tool 1.O\n"
    tool.write_bytes(evil)
    with closing(sqlite3.connect(rpm.root / DATABASE / "rpmdb.sqlite")) as connection, connection:
        ((number, blob),) = connection.execute("SELECT hnum, blob FROM Packages").fetchall()
        digests = [bytes(one) for one in read_header(blob, {DIGESTS})[DIGESTS] if isinstance(one, bytes)]
        mine = [hashlib.sha256(evil).hexdigest().encode() if one == sha256(b"tool 1.0\n") else one for one in digests]
        assert mine != digests
        forged = appended(blob, DIGESTS, b"".join(one + b"\0" for one in mine), len(mine))
        # What is read without a look at the part that was signed:
        assert read_header(forged, {DIGESTS})[DIGESTS] == mine
        connection.execute("UPDATE Packages SET blob = ? WHERE hnum = ?", (forged, number))
    one = said(rpm.asked(), tool)
    assert one is not None
    assert (one.verdict, one.expected_sha256.hex().encode()) == (Verdict.CONTRADICTED, sha256(b"tool 1.0\n"))


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def appended(blob: bytes, tag: int, data: bytes, count: int) -> bytes:
    """The header with an array of strings more, behind all that it has."""
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    index = blob[8:start] + struct.pack(">IIII", tag, 8, size, count)
    return struct.pack(">II", entries + 1, size + len(data)) + index + blob[start : start + size] + data


def test_a_header_that_is_cut_has_no_signed_part(rpm: Rpm) -> None:
    rpm.install("1.0")
    with closing(sqlite3.connect(rpm.root / DATABASE / "rpmdb.sqlite")) as connection:
        ((blob,),) = connection.execute("SELECT blob FROM Packages").fetchall()
    part, message, signatures = as_signed(blob)
    assert signatures
    assert len(part) < len(blob)
    assert message.endswith(part)
    for cut in (0, 7, 23, len(blob) // 2, len(blob) - 1):
        assert as_signed(blob[:cut]) == (b"", b"", ())

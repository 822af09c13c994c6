"""What vouches for a change, with a real dpkg, real packages and a really signed archive.
Counterpart: sources/integrity/vouch_*.py; tests/sources/integrity has what needs none of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.parts.debian import Debian

from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType, Verdict, Vouching, Who
from vedette.sources.integrity.vouch_archive import ArchiveLack, SignedArchive
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_package import PackageVoucher

pytestmark = pytest.mark.root

OLD = {"usr/bin/tool": b"tool 1.0\n", "usr/lib/libtool.so.1": b"library 1\n", "etc/tool.conf": b"colour = red\n"}
NEW = {"usr/bin/tool": b"tool 1.1\n", "usr/lib/libtool.so.2": b"library 2\n", "etc/tool.conf": b"colour = blue\n"}
CONF = ("/etc/tool.conf",)


@pytest.fixture
def debian(scratch: Path) -> Iterator[Debian]:
    made = Debian(scratch / "debian")
    yield made
    made.close()


def entry(path: bytes) -> Entry:
    status = os.lstat(path)
    types = ((stat.S_ISREG, FileType.FILE), (stat.S_ISLNK, FileType.SYMLINK), (stat.S_ISDIR, FileType.DIRECTORY))
    kind = next(kind for test, kind in types if test(status.st_mode))
    digest = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest() if kind is FileType.FILE else b""
    return Entry(
        path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns,
        status.st_ctime_ns, status.st_ino, status.st_dev, status.st_nlink,
        os.readlink(path) if kind is FileType.SYMLINK else b"", digest,
    )  # fmt: skip


def tree(root: Path) -> dict[bytes, Entry]:
    """Everything but dpkg's own state."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        folders[:] = [one for one in folders if one != b"var"]
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[path] = entry(path)
    return found


def changes(before: dict[bytes, Entry], after: dict[bytes, Entry]) -> list[Change]:
    who = Who(4711, "/usr/bin/dpkg", ("dpkg", "-i"), 0, "root")
    out = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None:
            out.append(Change(ChangeKind.ADDED, path, (), None, new, who=who))
        elif new is None:
            out.append(Change(ChangeKind.REMOVED, path, (), old, None, who=who))
        elif (old.sha256, old.mode, old.uid) != (new.sha256, new.mode, new.uid):
            content = (Attribute.CONTENT,) if old.sha256 != new.sha256 else ()
            mode = (Attribute.MODE,) if old.mode != new.mode else ()
            out.append(Change(ChangeKind.CHANGED, path, (*content, *mode), old, new, who=who))
    return out


def voucher(debian: Debian, *, patience: float = 0.0) -> PackageVoucher:
    database = DpkgDatabase(debian.root, debian.log)
    return PackageVoucher(
        database,
        SignedArchive(debian.lists, (debian.keyring,)),
        (debian.pool,),
        patience=patience,
        sleep=lambda _: None,
    )


def judged(debian: Debian, asked: PackageVoucher, found: list[Change]) -> dict[str, Vouching | None]:
    names = [os.fsdecode(one.path).removeprefix(f"{debian.root}/") for one in found]
    return dict(zip(names, asked.vouch(found), strict=True))


@pytest.mark.parametrize("packing", ["xz", "gzip", "zstd", "none"])
def test_a_real_upgrade_is_vouched_for_whole(debian: Debian, packing: str) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF, packing=packing))
    asked, before = voucher(debian), tree(debian.root)
    debian.install(debian.build("tool", "1.1", NEW, conffiles=CONF, packing=packing))
    found = judged(debian, asked, changes(before, tree(debian.root)))
    assert {"usr/bin/tool", "usr/lib/libtool.so.1", "usr/lib/libtool.so.2", "etc/tool.conf"} <= found.keys()
    assert {name: one and one.verdict for name, one in found.items()} == dict.fromkeys(found, Verdict.VOUCHED)
    tool = found["usr/bin/tool"]
    assert tool is not None
    assert (tool.package, tool.version, tool.expected_sha256) == ("tool", "1.1", hashlib.sha256(b"tool 1.1\n").digest())
    assert "Example stable" in tool.detail


def test_the_same_upgrade_with_one_binary_replaced_is_one_contradiction(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF))
    asked, before = voucher(debian), tree(debian.root)
    debian.install(debian.build("tool", "1.1", NEW, conffiles=CONF))
    (debian.root / "usr/bin/tool").write_bytes(b"tool 1.I\n")  # of the same length
    all_changes = changes(before, tree(debian.root))
    found = judged(debian, asked, all_changes)
    loud = {name: one for name, one in found.items() if one is None or not one.lowers}
    assert list(loud) == ["usr/bin/tool"]
    one = loud["usr/bin/tool"]
    assert one is not None
    assert one.verdict is Verdict.CONTRADICTED
    assert (one.package, one.version, one.expected_sha256) == ("tool", "1.1", hashlib.sha256(b"tool 1.1\n").digest())
    change = next(one for one in all_changes if one.path.endswith(b"usr/bin/tool"))
    assert change.who is not None
    assert change.who.executable == "/usr/bin/dpkg"


def test_edited_md5sums_do_not_help(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD))
    before = tree(debian.root)
    evil = b"tool 1.o\n"
    (debian.root / "usr/bin/tool").write_bytes(evil)
    sums = debian.root / "var/lib/dpkg/info/tool.md5sums"
    sums.write_text(
        sums.read_text().replace(hashlib.md5(OLD["usr/bin/tool"]).hexdigest(), hashlib.md5(evil).hexdigest())
    )
    found = changes(before, tree(debian.root))
    signed = judged(debian, voucher(debian), found)["usr/bin/tool"]
    assert signed is not None
    assert signed.verdict is Verdict.CONTRADICTED
    # Without the .deb the list on the host is all there is: it speaks for the file, and lowers nothing.
    (debian.pool / "tool_1.0_all.deb").unlink()
    hint = judged(debian, voucher(debian), found)["usr/bin/tool"]
    assert hint is not None
    assert hint.verdict is Verdict.HINT
    assert not hint.lowers


def test_without_the_deb_a_wrong_md5_is_loud_and_a_right_one_a_hint(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF, listed=False))
    before = tree(debian.root)
    (debian.root / "usr/bin/tool").write_bytes(b"tool 1.x\n")
    (debian.root / "usr/lib/libtool.so.1").chmod(0o600)
    (debian.root / "etc/tool.conf").write_bytes(b"colour = green\n")
    found = judged(debian, voucher(debian), changes(before, tree(debian.root)))
    assert {name: one and one.verdict for name, one in found.items()} == {
        "usr/bin/tool": Verdict.CONTRADICTED,
        "usr/lib/libtool.so.1": Verdict.HINT,
        "etc/tool.conf": None,
    }


def test_a_deb_that_no_signed_archive_knows_vouches_for_nothing(debian: Debian) -> None:
    debian.build("other", "1", {"usr/bin/other": b"other\n"})
    asked, before = voucher(debian), tree(debian.root)
    debian.install(debian.build("tool", "1.0", OLD, listed=False))
    found = judged(debian, asked, changes(before, tree(debian.root)))
    assert not [name for name, one in found.items() if one is not None and one.lowers]


def test_a_list_that_was_changed_after_signing_counts_for_nothing(debian: Debian) -> None:
    debian.build("tool", "1.0", OLD)
    (packages,) = debian.lists.glob("*_Packages")
    packages.write_bytes(packages.read_bytes() + b"\n")
    archive = SignedArchive(debian.lists, (debian.keyring,))
    digest = hashlib.sha256((debian.pool / "tool_1.0_all.deb").read_bytes()).digest()
    assert archive.find([digest]) == {}
    assert archive.lacks == {ArchiveLack.LIST_DIFFERS: 1}
    (release,) = debian.lists.glob("*_InRelease")
    release.write_bytes(release.read_bytes().replace(b"Origin: Example", b"Origin: Exempla"))
    again = SignedArchive(debian.lists, (debian.keyring,))
    assert again.find([digest]) == {}
    assert again.lacks == {ArchiveLack.BAD_SIGNATURE: 1}


def test_an_archive_of_another_key_counts_for_nothing_and_armour_is_read(debian: Debian, scratch: Path) -> None:
    deb = debian.build("tool", "1.0", OLD)
    digest = hashlib.sha256(deb.read_bytes()).digest()
    other = Debian(scratch / "other")
    other.close()
    assert SignedArchive(debian.lists, (other.keyring,)).find([digest]) == {}
    armoured = scratch / "archive.asc"
    armoured.write_bytes(debian._gpg("--armor", "--export"))
    found = SignedArchive(debian.lists, (other.keyring, armoured)).find([digest])
    assert (found[digest].package, found[digest].version, found[digest].origin) == ("tool", "1.0", "Example stable")
    without = SignedArchive(debian.lists, (scratch / "none.gpg",))
    assert without.find([digest]) == {}
    assert without.lacks == {ArchiveLack.NO_KEYRING: 1}


def test_a_key_that_root_put_into_the_keyring_counts_for_nothing(debian: Debian, scratch: Path) -> None:
    deb = debian.build("tool", "1.0", OLD)
    archive = SignedArchive(debian.lists, (debian.keyring,))
    other = Debian(scratch / "other")
    forged = other.build("tool", "1.0", NEW)
    other.close()
    good, bad = (hashlib.sha256(one.read_bytes()).digest() for one in (deb, forged))
    debian.keyring.write_bytes(other.keyring.read_bytes())
    for one in other.lists.iterdir():
        (debian.lists / f"forged_{one.name}").write_bytes(one.read_bytes())
    assert set(archive.find([good, bad])) == {good}
    assert archive.lacks[ArchiveLack.KEYRING_CHANGED]
    # What it would have come to.
    assert set(SignedArchive(debian.lists, (debian.keyring,)).find([good, bad])) == {bad}


def test_set_uid_that_the_package_does_not_ship_is_loud(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD))
    before = tree(debian.root)
    (debian.root / "usr/bin/tool").chmod(0o4755)
    one = judged(debian, voucher(debian), changes(before, tree(debian.root)))["usr/bin/tool"]
    assert one is not None
    assert one.verdict is Verdict.CONTRADICTED
    (debian.root / "var/lib/dpkg/statoverride").write_text("root root 4755 /usr/bin/tool\n")
    one = judged(debian, voucher(debian), changes(before, tree(debian.root)))["usr/bin/tool"]
    assert one is not None
    assert one.verdict is Verdict.VOUCHED


def test_rights_that_the_signed_package_s_own_script_gives_are_vouched_for(debian: Debian) -> None:
    script = (
        "#!/bin/sh\nset -e\nchgrp 42 $R/usr/bin/tool || chgrp 42 /usr/bin/tool\nchmod 2755 /usr/bin/tool\n"
        "chmod 6755 /usr/bin/other\necho /usr/bin/tool\n"
    )
    # dpkg runs it outside of the small root, where the path is another one: it is only read here.
    debian.build("tool", "1.0", OLD, scripts={"postinst": script})
    debian.install(debian.build("tool", "1.0", OLD, listed=False, folder="without"))
    tool, before = debian.root / "usr/bin/tool", tree(debian.root)
    os.chown(tool, 0, 42)
    tool.chmod(0o2755)
    one = judged(debian, voucher(debian), changes(before, tree(debian.root)))["usr/bin/tool"]
    assert one is not None
    assert one.verdict is Verdict.VOUCHED
    tool.chmod(0o6755)
    other = judged(debian, voucher(debian), changes(before, tree(debian.root)))["usr/bin/tool"]
    assert other is not None
    assert other.verdict is Verdict.CONTRADICTED


def test_while_dpkg_is_half_way_what_it_is_putting_in_is_known_and_nothing_else(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD))
    asked, before = voucher(debian), tree(debian.root)
    debian.build("tool", "1.1", NEW)
    # The files of 1.1 stand there and the database still says 1.0, as between the two steps of dpkg.
    (debian.root / "usr/bin/tool").write_bytes(NEW["usr/bin/tool"])
    with debian.log.open("a") as log:
        log.write("2026-11-24 10:00:00 upgrade tool:all 1.0 1.1\n")
    with (debian.root / "var/lib/dpkg/lock").open("w") as lock, _LockedElsewhere(lock.name):
        assert asked._database.busy()
        during = judged(debian, asked, changes(before, tree(debian.root)))["usr/bin/tool"]
        (debian.root / "usr/bin/tool").write_bytes(b"neither\n")
        evil = judged(debian, asked, changes(before, tree(debian.root)))["usr/bin/tool"]
    assert not asked._database.busy()
    (debian.root / "usr/bin/tool").write_bytes(NEW["usr/bin/tool"])
    alone = judged(debian, asked, changes(before, tree(debian.root)))["usr/bin/tool"]
    assert during is not None
    assert evil is not None
    assert alone is not None
    # Once nothing runs, the log of this host says nothing any more: the database is what counts.
    assert (during.verdict, evil.verdict, alone.verdict) == (
        Verdict.VOUCHED,
        Verdict.CONTRADICTED,
        Verdict.CONTRADICTED,
    )


class _LockedElsewhere:
    """dpkg's lock, held by another process: one's own locks do not stand in one's way."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        ready, held = os.pipe()
        self._child = os.fork()
        if self._child == 0:  # pragma: no cover
            descriptor = os.open(self._path, os.O_RDWR)
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            os.write(held, b"1")
            signal.pause()
        os.read(ready, 1)
        os.close(ready)
        os.close(held)

    def __exit__(self, *_: object) -> None:
        os.kill(self._child, 9)
        os.waitpid(self._child, 0)


def test_a_package_that_is_taken_away_takes_its_files_with_it(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF))
    asked, before = voucher(debian), tree(debian.root)
    (debian.root / "usr/lib/libtool.so.1").unlink()
    gone = judged(debian, asked, changes(before, tree(debian.root)))
    assert {name: one and one.verdict for name, one in gone.items()} == {"usr/lib/libtool.so.1": Verdict.CONTRADICTED}
    debian.remove("tool")
    found = judged(debian, asked, changes(before, tree(debian.root)))
    assert {"usr/bin/tool", "usr/lib/libtool.so.1", "etc/tool.conf"} <= found.keys()
    assert {one.verdict for one in found.values() if one is not None} == {Verdict.VOUCHED}


def test_a_configuration_file_is_vouched_for_as_shipped_alone(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF))
    before = tree(debian.root)
    conf = debian.root / "etc/tool.conf"
    conf.write_bytes(b"colour = green\n")
    edited = tree(debian.root)
    assert judged(debian, voucher(debian), changes(before, edited)) == {"etc/tool.conf": None}
    conf.write_bytes(OLD["etc/tool.conf"])
    one = judged(debian, voucher(debian), changes(edited, tree(debian.root)))["etc/tool.conf"]
    assert one is not None
    assert one.verdict is Verdict.VOUCHED


@pytest.mark.parametrize("suffix", [".dpkg-new", ".dpkg-tmp"])
def test_what_dpkg_puts_aside_is_nothing_once_it_is_gone(debian: Debian, suffix: str) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF))
    before = tree(debian.root)
    aside = [debian.root / f"{name}{suffix}" for name in ("usr/bin/tool", "etc/tool.conf", "usr/bin/nobodys")]
    for path, content in zip(aside, (OLD["usr/bin/tool"], OLD["etc/tool.conf"], b"mine\n"), strict=True):
        path.write_bytes(content)
    during = tree(debian.root)
    debian.install(debian.build("tool", "1.1", NEW, conffiles=CONF))
    for path in aside:
        path.unlink(missing_ok=True)
    # Looked at while it was there, judged when it is gone and the database speaks of 1.1 alone.
    for found in (changes(before, during), changes(during, before)):
        verdicts = {name: one and one.verdict for name, one in judged(debian, voucher(debian), found).items()}
        assert verdicts == {
            f"usr/bin/tool{suffix}": Verdict.VOUCHED,
            f"etc/tool.conf{suffix}": Verdict.VOUCHED,
            f"usr/bin/nobodys{suffix}": None,
        }


def test_what_is_left_beside_a_package_s_file_is_judged_by_what_is_in_it(debian: Debian) -> None:
    debian.install(debian.build("tool", "1.0", OLD, conffiles=CONF))
    before = tree(debian.root)
    (debian.root / "usr/bin/tool.dpkg-tmp").write_bytes(b"neither\n")
    left = judged(debian, voucher(debian), changes(before, tree(debian.root)))["usr/bin/tool.dpkg-tmp"]
    assert left is not None
    assert left.verdict is Verdict.CONTRADICTED

"""Images that are made here, packed in each way: what runs in them is of packages, or is named.
Counterpart: vouch_initramfs.py."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_initramfs import InitramfsVoucher

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
ORDER = b'/scripts/init-top/all "$@"\n[ -e /conf/param.conf ] && . /conf/param.conf\n'
FILES = {
    "init": b"#!/bin/sh\n",
    "bin/busybox": b"busybox",
    "usr/lib/libc.so.6": b"libc",
    "usr/lib/modules/6.1/ext4.ko": b"ext4",
    "scripts/init-top/ORDER": ORDER,
    "conf/arch.conf": b"DPKG_ARCH=amd64\n",
    "conf/initramfs.conf": b"MODULES=most\n",
    "etc/fstab": b"made here\n",
}
LINKS: dict[str, int] = {}
MODES = {"init": 0o755, "bin/busybox": 0o755}


def cpio(files: dict[str, bytes]) -> bytes:
    out = b""
    for name, content in [*files.items(), ("TRAILER!!!", b"")]:
        mode = 0o100000 ^ MODES.get(name, 0o644) if name != "TRAILER!!!" else 0
        numbers = [0, mode, 0, 0, LINKS.get(name, 1), 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return out + bytes(-len(out) % 512)


class Host:
    """A file tree that an image is made from, whose package `base` lists `owned`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path, content in {
            "usr/share/initramfs-tools/init": FILES["init"],
            "usr/lib/initramfs-tools/bin/busybox": FILES["bin/busybox"],
            "usr/lib/libc.so.6": FILES["usr/lib/libc.so.6"],
            "usr/lib/modules/6.1/ext4.ko": FILES["usr/lib/modules/6.1/ext4.ko"],
            "etc/initramfs-tools/initramfs.conf": FILES["conf/initramfs.conf"],
            "var/lib/dpkg/status": b"Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
            "var/lib/dpkg/info/base.list": b"/usr/share/initramfs-tools/init\n/usr/lib/initramfs-tools/bin/busybox\n"
            b"/usr/lib/libc.so.6\n/usr/lib/modules/6.1/ext4.ko\n",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        (root / "boot").mkdir()

    def said(self, image: bytes, name: str = "boot/initrd.img-6.1") -> Vouching | None:
        path = self.root / name
        path.write_bytes(image)
        digest = hashlib.sha256(image).digest()
        entry = Entry(os.fsencode(path), FileType.FILE, 0o644, 0, 0, len(image), 0, 0, 0, 0, 1, b"", digest)
        (answer,) = InitramfsVoucher(DpkgDatabase(self.root)).vouch(
            [Change(ChangeKind.CHANGED, entry.path, after=entry)]
        )
        return answer


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("packing", PACKED)
def test_an_image_of_files_of_packages_is_vouched_for(host: Host, packing: str) -> None:
    microcode = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"microcode"})
    said = host.said(microcode + PACKED[packing](cpio(FILES)))
    assert said is not None
    assert said.verdict is Verdict.VOUCHED, said.detail
    assert "5 files" in said.detail


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("bin/busybox", b"another", 0o755),
        ("scripts/init-top/evil", b"#!/bin/sh\n", 0o644),
        ("scripts/init-top/ORDER", ORDER + b"/tmp/evil\n", 0o644),
        ("conf/arch.conf", b"DPKG_ARCH=amd64; evil\n", 0o644),
        ("conf/param.conf", b"evil\n", 0o644),
        ("etc/ld.so.preload", b"/lib/evil.so\n", 0o644),
        ("usr/lib/libevil.so.1", b"evil", 0o644),
        ("usr/lib/modules/6.1/evil.ko", b"evil", 0o644),
        ("opt/evil", b"evil", 0o755),
    ],
)
def test_what_runs_and_is_of_no_package_is_named(
    host: Host, name: str, content: bytes, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODES, name, mode)
    said = host.said(gzip.compress(cpio({**FILES, name: content})))
    assert said is not None
    assert said.verdict is Verdict.HINT
    assert name in said.detail


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("behind", [*PACKED, "inside"])
def test_what_is_put_behind_an_image_is_looked_into_too(host: Host, packing: str, behind: str) -> None:
    # The kernel unpacks it over what was there.
    evil = cpio({"init": b"#!/bin/sh\nevil\n"})
    if behind == "inside":
        image = PACKED[packing](cpio(FILES) + evil)
    else:
        image = PACKED[packing](cpio(FILES)) + bytes(8) + PACKED[behind](evil)
    answer = host.said(image)
    assert answer is not None
    assert answer.verdict is Verdict.HINT


@pytest.mark.parametrize(
    ("evil", "links"),
    [
        ({"etc/data": b"evil", "conf/conf.d/x": b"../../etc/data"}, 1),
        ({"etc/d/x": b"evil", "conf/conf.d": b"../etc/d"}, 1),
        ({"a": b"conf/conf.d", "a/x": b"evil"}, 1),
        ({"etc/data": b"evil", "conf/param.conf": b""}, 2),
        ({"etc/../conf/conf.d/x": b"evil"}, 1),
    ],
)
def test_what_is_reached_by_another_name_is_looked_at(
    host: Host, evil: dict[str, bytes], links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in evil:
        if links == 1 and name in ("conf/conf.d/x", "conf/conf.d", "a") and b"/" in evil[name]:
            monkeypatch.setitem(MODES, name, 0o120777 ^ 0o100000)
    monkeypatch.setitem(LINKS, "etc/data", links)
    monkeypatch.setitem(LINKS, "conf/param.conf", links)
    answer = host.said(cpio({**FILES, **evil}))
    assert answer is not None
    assert answer.verdict is Verdict.HINT


def test_links_of_merged_folders_are_as_usual(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODES, "lib", 0o120777 ^ 0o100000)
    answer = host.said(cpio({**FILES, "lib": b"usr/lib", "usr/lib/modules/6.1/modules.dep": b"made here"}))
    assert answer is not None
    assert answer.verdict is Verdict.VOUCHED


def test_a_file_that_no_package_lists_vouches_for_nothing(host: Host) -> None:
    (host.root / "var/lib/dpkg/info/base.list").write_text("/usr/share/initramfs-tools/init\n")
    said = host.said(cpio(FILES))
    assert said is not None
    assert said.verdict is Verdict.HINT


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02\x21\x4c\x18lz4", id="lz4"),
        pytest.param(b"nothing", id="text"),
        pytest.param(cpio(FILES)[:400], id="cut-cpio"),
        # Named, and with a fixed time: a name made of the bytes differs from one test process to the next.
        pytest.param(gzip.compress(cpio(FILES), mtime=0)[:60], id="cut-gzip"),
    ],
)
def test_what_cannot_be_looked_into_is_as_loud_as_before(host: Host, image: bytes) -> None:
    said = host.said(image)
    assert said is not None
    assert said.verdict is Verdict.HINT


def test_other_files_are_nobodys(host: Host) -> None:
    assert host.said(cpio(FILES), "boot/vmlinuz-6.1") is None

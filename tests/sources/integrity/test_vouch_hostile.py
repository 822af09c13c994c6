"""Whatever stands in a file that somebody else wrote: it is refused in our own words, or says nothing.
Counterpart: vouch_deb.py, vouch_initramfs.py, vouch_generated.py, vouch_rpm.py, vouch_reports.py; rootkit's readers."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.integrity import FileType
from vedette.sources.integrity.vouch_deb import NotADebError, read_deb
from vedette.sources.integrity.vouch_generated import _cached
from vedette.sources.integrity.vouch_initramfs import read_image
from vedette.sources.integrity.vouch_reports import read_report
from vedette.sources.rootkit.files import keys_in
from vedette.sources.rootkit.rootcheck import read_signatures
from vedette.system.rpm_header import BASE_NAMES, NAME, read_header


def tarred(files: dict[str, bytes], packed: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{packed}") as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def ar(members: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


CONTROL = b"Package: tool\nVersion: 1.0\nArchitecture: all\n"
GOOD = ar(
    {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarred({"./control": CONTROL, "./conffiles": b"/etc/tool.conf\n"}, "gz"),
        "data.tar.xz": tarred({"./usr/bin/tool": b"tool", "./etc/tool.conf": b"conf"}, "xz"),
    }
)


def test_a_package_is_read() -> None:
    manifest = read_deb(io.BytesIO(GOOD))
    assert (manifest.package, manifest.version, manifest.architecture) == ("tool", "1.0", "all")
    assert set(manifest.files) == {b"/usr/bin/tool", b"/etc/tool.conf"}
    assert manifest.files[b"/usr/bin/tool"].type is FileType.FILE
    assert manifest.conffiles == {b"/etc/tool.conf"}


def test_a_hard_link_has_the_content_of_what_it_leads_to() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        first = tarfile.TarInfo("./usr/bin/a")
        first.size = 1
        tar.addfile(first, io.BytesIO(b"a"))
        link = tarfile.TarInfo("./usr/bin/b")
        link.type, link.linkname = tarfile.LNKTYPE, "./usr/bin/a"
        tar.addfile(link)
    deb = ar({"debian-binary": b"2.0\n", "control.tar": tarred({"./control": CONTROL}), "data.tar": out.getvalue()})
    files = read_deb(io.BytesIO(deb)).files
    assert files[b"/usr/bin/b"] == files[b"/usr/bin/a"]


@pytest.mark.parametrize(
    "deb",
    [
        b"",
        b"!<arch>\n",
        GOOD[:100],
        ar({"debian-binary": b"2.0\n"}),
        ar({"control.tar": tarred({"./control": b"Version: 1\n"}), "data.tar": tarred({})}),
        ar({"control.tar": tarred({"./control": CONTROL}), "data.tar.lz5": b"x"}),
        GOOD.replace(b"`\n", b"!\n", 1),
    ],
)
def test_what_is_no_package_is_refused(deb: bytes) -> None:
    with pytest.raises(NotADebError):
        read_deb(io.BytesIO(deb))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_package_is_refused_or_has_another_digest(at: int, change: bytes) -> None:
    damaged = GOOD[:at] + change + GOOD[at + len(change) :]
    with contextlib.suppress(NotADebError):
        manifest = read_deb(io.BytesIO(damaged))
        assert damaged == GOOD or manifest.archive_sha256 != read_deb(io.BytesIO(GOOD)).archive_sha256


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"070701", b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]))
def test_an_image_of_whatever_bytes_is_refused_in_words_that_are_known(raw: bytes, magic: bytes) -> None:
    refused = (OSError, ValueError, EOFError, lzma.LZMAError, zstandard.ZstdError, zlib.error)
    with contextlib.suppress(*refused):
        list(read_image(io.BytesIO(magic + raw)))
    with contextlib.suppress(*refused):
        list(read_image(io.BytesIO(gzip.compress(b"070701" + raw))))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_other_readers_never_fail_in_another_way(raw: bytes) -> None:
    with contextlib.suppress(ValueError, struct.error):
        list(_cached(b"glibc-ld.so.cache1.1" + raw))
    read_header(raw, {NAME, BASE_NAMES})
    for kind, fingerprint, comment in keys_in(raw):
        assert kind.isascii()
        assert fingerprint.startswith("SHA256:")
        assert "\x1b" not in comment


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_signatures_of_whatever_bytes_are_taken_or_told(raw: bytes) -> None:
    class File:
        """As a path that is read."""

        def read_bytes(self) -> bytes:
            return raw

    found = read_signatures([File()])  # type: ignore[list-item]
    lines = [line for line in raw.splitlines() if line.strip() and not line.strip().startswith(b"#")]
    assert len(found.problems) <= len(lines)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "runs", "plays", "message_type", "files", "host"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_a_report_of_whatever_shape_is_refused_in_words_that_are_counted(report: Any) -> None:
    with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
        list(read_report(report))


def test_a_package_is_hashed_whole_though_bytes_follow_it(tmp_path: Path) -> None:
    plain, more = read_deb(io.BytesIO(GOOD)), read_deb(io.BytesIO(GOOD + b"\n" * 30))
    assert plain.files == more.files
    assert plain.archive_sha256 != more.archive_sha256

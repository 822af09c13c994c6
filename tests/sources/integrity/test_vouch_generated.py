"""Generated files on a small file tree: each explained by what it was made from, and not when that does not hold.
Counterpart: vouch_generated.py; what packages say is a table here."""

from __future__ import annotations

import hashlib
import os
import py_compile
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_generated import GeneratedVoucher


class Packages:
    """Vouches for what the test says, whatever its content."""

    def __init__(self, shipped: set[str]) -> None:
        self.shipped = shipped

    def standing(self, paths: Sequence[bytes]) -> Mapping[bytes, Vouching | None]:
        vouched = Vouching("package", Verdict.VOUCHED)
        return {path: vouched if os.fsdecode(path) in self.shipped else None for path in paths}


class Tree:
    """A file tree with a dpkg database of one package, `base`, that lists `owned`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shipped: set[str] = set()
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/alternatives").mkdir()
        (root / "var/lib/dpkg/status").write_text(
            "Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
        )
        self.owned("")

    def owned(self, *paths: str) -> None:
        (self.root / "var/lib/dpkg/info/base.list").write_text("".join(f"{one}\n" for one in paths))

    def put(self, path: str, content: bytes = b"") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def link(self, path: str, target: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(target)

    def said(self, path: str) -> Verdict | None:
        file = self.root / path.lstrip("/")
        target = os.fsencode(file.readlink()) if file.is_symlink() else b""
        kind = FileType.SYMLINK if target else FileType.FILE
        digest = b"" if target else hashlib.sha256(file.read_bytes()).digest()
        entry = Entry(os.fsencode(file), kind, 0o644, 0, 0, 0, 0, 0, 0, 0, 1, target, digest)
        asked = GeneratedVoucher(DpkgDatabase(self.root), Packages(self.shipped))
        (answer,) = asked.vouch([Change(ChangeKind.CHANGED, entry.path, after=entry)])
        return answer.verdict if answer else None


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


AWK = """auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz

/usr/bin/gawk
10

/usr/bin/mawk
5
/usr/share/man/man1/mawk.1.gz

"""


def test_an_alternative_is_one_that_is_registered_and_of_a_package(tree: Tree) -> None:
    (tree.root / "var/lib/dpkg/alternatives/awk").write_text(AWK)
    tree.owned("/usr/bin/mawk", "/usr/share/man/man1/mawk.1.gz")
    tree.link("/etc/alternatives/awk", "/usr/bin/mawk")
    assert tree.said("/etc/alternatives/awk") is Verdict.HINT, "this host's list alone vouches for nothing"
    tree.shipped = {"/usr/bin/mawk", "/usr/share/man/man1/mawk.1.gz"}
    for name, target, verdict in (
        ("awk", "/usr/bin/mawk", Verdict.VOUCHED),
        ("awk.1.gz", "/usr/share/man/man1/mawk.1.gz", Verdict.VOUCHED),
        ("awk", "/usr/bin/gawk", Verdict.HINT),
        ("awk", "/tmp/awk", Verdict.CONTRADICTED),
        ("awk", "/usr/share/man/man1/mawk.1.gz", Verdict.CONTRADICTED),
        ("vi", "/usr/bin/mawk", Verdict.CONTRADICTED),
    ):
        tree.link(f"/etc/alternatives/{name}", target)
        assert tree.said(f"/etc/alternatives/{name}") is verdict, (name, target)


def cache(*entries: tuple[str, str]) -> bytes:
    texts, body = b"", b""
    start = 48 + 24 * len(entries)
    for name, path in entries:
        body += struct.pack("<iIIIQ", 3, start + len(texts), start + len(texts) + len(name) + 1, 0, 0)
        texts += name.encode() + b"\0" + path.encode() + b"\0"
    header = b"glibc-ld.so.cache1.1" + struct.pack("<II", len(entries), len(texts)) + bytes(20)
    return header + body + texts


def test_the_cache_of_libraries_leads_to_libraries_of_packages(tree: Tree) -> None:
    tree.put("/etc/ld.so.conf", b"include ld.so.conf.d/*.conf\n")
    tree.put("/etc/ld.so.conf.d/local.conf", b"# here\n/opt/lib\n")
    tree.put("/usr/lib/libz.so.1.2")
    tree.link("/usr/lib/libz.so.1", "libz.so.1.2")
    tree.put("/opt/lib/libown.so.1")
    tree.put("/tmp/libz.so.1")
    tree.owned("/usr/lib/libz.so.1.2")
    for entries, verdict in (
        ((("libz.so.1", "/usr/lib/libz.so.1"),), Verdict.VOUCHED),
        ((("libz.so.1", "/usr/lib/libz.so.1"), ("libown.so.1", "/opt/lib/libown.so.1")), Verdict.HINT),
        ((("libz.so.1", "/tmp/libz.so.1"),), Verdict.CONTRADICTED),
        ((("libc.so.6", "/usr/lib/libz.so.1"),), Verdict.CONTRADICTED),
        ((("libgone.so", "/usr/lib/libgone.so"),), Verdict.HINT),
    ):
        tree.put("/etc/ld.so.cache", cache(*entries))
        assert tree.said("/etc/ld.so.cache") is verdict, entries
    tree.put("/etc/ld.so.cache", b"something else")
    assert tree.said("/etc/ld.so.cache") is None


def certificate(letter: str) -> bytes:
    return f"-----BEGIN CERTIFICATE-----\n{letter * 64}\n-----END CERTIFICATE-----\n".encode()


def test_the_bundle_of_certificates_holds_what_is_shipped(tree: Tree) -> None:
    tree.put("/usr/share/ca-certificates/mozilla/A.crt", certificate("A"))
    tree.put("/usr/share/ca-certificates/mozilla/B.crt", certificate("B"))
    tree.put("/usr/local/share/ca-certificates/own.crt", certificate("O"))
    tree.shipped = {"/usr/share/ca-certificates/mozilla/A.crt", "/usr/share/ca-certificates/mozilla/B.crt"}
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    for content, verdict in (
        (certificate("A") + certificate("B"), Verdict.VOUCHED),
        (certificate("A") + certificate("O"), Verdict.HINT),
        (certificate("A") + certificate("E"), Verdict.CONTRADICTED),
        (certificate("A") + b"more\n", Verdict.HINT),
    ):
        tree.put(bundle, content)
        assert tree.said(bundle) is verdict, content
    tree.shipped.clear()
    tree.put(bundle, certificate("A"))
    assert tree.said(bundle) is Verdict.HINT


def test_a_link_among_the_certificates_leads_to_what_is_shipped(tree: Tree) -> None:
    tree.put("/usr/share/ca-certificates/mozilla/A.crt", certificate("A"))
    tree.shipped = {"/usr/share/ca-certificates/mozilla/A.crt"}
    tree.link("/etc/ssl/certs/A.pem", "/usr/share/ca-certificates/mozilla/A.crt")
    tree.link("/etc/ssl/certs/0123abcd.0", "A.pem")
    assert tree.said("/etc/ssl/certs/0123abcd.0") is Verdict.VOUCHED
    tree.link("/etc/ssl/certs/A.pem", "/tmp/A.crt")
    assert tree.said("/etc/ssl/certs/0123abcd.0") is Verdict.CONTRADICTED


def test_compiled_python_is_what_the_packaged_python_makes_of_a_shipped_source(tree: Tree) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    tree.put("/usr/lib/app/a.py", b"def answer():\n    return 42\n")
    tree.put(f"/usr/bin/python{version}")
    tree.link(f"/usr/bin/python{version}", os.path.realpath(sys.executable))
    compiled = tree.root / f"usr/lib/app/__pycache__/a.cpython-{version.replace('.', '')}.pyc"
    source = str(tree.root / "usr/lib/app/a.py")
    py_compile.compile(source, cfile=str(compiled), doraise=True)
    path = f"/usr/lib/app/__pycache__/{compiled.name}"
    assert tree.said(path) is Verdict.HINT  # nobody vouches for the source
    tree.shipped = {"/usr/lib/app/a.py", f"/usr/bin/python{version}"}
    assert tree.said(path) is Verdict.VOUCHED
    good = compiled.read_bytes()
    # The right header before other code.
    other = tree.root / "other.py"
    other.write_bytes(b"def answer():\n    return 43\n")
    py_compile.compile(str(other), cfile=str(compiled), dfile=source, doraise=True)
    compiled.write_bytes(good[:16] + compiled.read_bytes()[16:])
    assert tree.said(path) is Verdict.HINT
    compiled.write_bytes(good[:8] + b"\1\0\0\0" + good[12:])
    assert tree.said(path) is Verdict.HINT


def test_other_files_are_nobodys(tree: Tree) -> None:
    tree.put("/etc/passwd", b"root")
    assert tree.said("/etc/passwd") is None

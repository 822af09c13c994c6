"""Files that no package ships because they are made on the host: each explained by looking at what it was made from.
Counterpart: `vouch_package` says whether that is as shipped; docs/integrity.md lists what each explainer checks."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vedette.model.integrity import Change, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.system import exec as programs
from vedette.text.escape import decode, terminal

GENERATED = "generated"
_MOST = 64 << 20
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PYC = re.compile(rb"(.+)/__pycache__/([^/]+)\.cpython-(\d)(\d+)(?:\.opt-([12]))?\.pyc")
_PYC_HEADER = 16
_COMPILE = (
    "import py_compile, sys; "
    "py_compile.compile(sys.argv[1], cfile=sys.argv[2], doraise=True, optimize=int(sys.argv[3]), "
    "invalidation_mode=py_compile.PycInvalidationMode(int(sys.argv[4]))); "
    "sys.stdout.buffer.write(open(sys.argv[2], 'rb').read())"
)
_CACHE_MAGIC, _CACHE_OLD = b"glibc-ld.so.cache1.1", b"ld.so-1.7.0\0"
_CACHE_HEADER, _CACHE_ENTRY = 48, 24
_LIBRARY_FOLDERS = (
    b"/lib",
    b"/usr/lib",
    b"/lib64",
    b"/usr/lib64",
    b"/lib32",
    b"/usr/lib32",
    b"/libx32",
    b"/usr/libx32",
)
_HASHED = re.compile(rb"[0-9a-f]{8}\.\d+")


class Standing(Protocol):
    """Says what packages say of files as they stand there now."""

    def standing(self, paths: Sequence[bytes]) -> Mapping[bytes, Vouching | None]:
        """By path; what is not there is left out."""
        ...


class GeneratedVoucher:
    """Asks one explainer after the other; each answers only for the paths that are its own."""

    def __init__(self, database: DpkgDatabase, packages: Standing) -> None:
        self._database = database
        self._packages = packages
        self._root = database.root
        self._explainers: tuple[Callable[[bytes, Change], Vouching | None], ...] = (
            self._alternative, self._compiled, self._library_cache, self._certificates, self._certificate_link,
        )  # fmt: skip

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        return [self._explain(change) for change in changes]

    def _explain(self, change: Change) -> Vouching | None:
        path = self._database.inside(change.path)
        if path is None:
            return None
        if change.after is None:
            return self._no_alternative(path)
        for explainer in self._explainers:
            with suppress(OSError, ValueError, struct.error):
                if (answer := explainer(path, change)) is not None:
                    return answer
        return None

    def _at(self, path: bytes) -> Path:
        return Path(os.fsdecode(os.fsencode(self._root) + path if self._root != Path("/") else path))

    def _read(self, path: bytes) -> bytes:
        with self._at(path).open("rb") as stream:
            return stream.read(_MOST)

    def _same(self, change: Change, content: bytes) -> bool:
        """Whether `content` is what the change speaks of, and not what was put there since."""
        return change.after is not None and hashlib.sha256(content).digest() == change.after.sha256

    def _owned(self, paths: Sequence[bytes]) -> set[bytes]:
        return set(self._database.owners(paths))

    # ---------------------------------------------------------------------------------------------- alternatives

    def _alternative(self, path: bytes, change: Change) -> Vouching | None:
        """A link of /etc/alternatives leads to one of the registered choices, and that is as a package ships it."""
        folder, _, name = path.rpartition(b"/")
        if folder != b"/etc/alternatives" or change.after is None or change.after.type is not FileType.SYMLINK:
            return None
        target = change.after.target
        shown = terminal(decode(target))
        if target not in set(self._choices(name)):
            return _said(Verdict.CONTRADICTED, f"{shown} is not among the registered alternatives")
        if not self._owned([target]):
            return _said(Verdict.HINT, f"{shown} is a registered alternative that no package brought")
        answer = self._packages.standing([target]).get(target)
        if answer is None or not answer.lowers:
            # What is registered, and who owns it, stands in files of this host alone.
            return _said(Verdict.HINT, f"{shown} is a registered alternative, for which no signed package vouches")
        return _said(Verdict.VOUCHED, f"{shown} is a registered alternative, and as a package ships it")

    def _no_alternative(self, path: bytes) -> Vouching | None:
        """A link that follows another group goes when that one's choice has nothing for it."""
        folder, _, name = path.rpartition(b"/")
        groups = self._root / "var/lib/dpkg/alternatives"
        if folder != b"/etc/alternatives" or not groups.is_dir() or (groups / os.fsdecode(name)).exists():
            return None
        return _said(Verdict.VOUCHED, "what is chosen now has nothing for it")

    def _choices(self, name: bytes) -> Iterator[bytes]:
        """Every path registered for the group `name`, or for a link that follows another group."""
        for file in sorted((self._root / "var/lib/dpkg/alternatives").iterdir()):
            lines = file.read_bytes().splitlines()
            if len(lines) < 3:
                continue
            links = [os.fsencode(file.name)]
            at = 2
            while at + 1 < len(lines) and lines[at]:
                links.append(lines[at])
                at += 2
            if name not in links:
                continue
            at += 1
            # Each choice: the path of the group, its priority, a path or an empty line for each link that follows.
            while at < len(lines) and lines[at]:
                choice = [lines[at], *lines[at + 2 : at + 1 + len(links)]]
                if links.index(name) < len(choice) and (found := choice[links.index(name)]):
                    yield found
                at += 1 + len(links)

    # ---------------------------------------------------------------------------------------------- Python

    def _compiled(self, path: bytes, change: Change) -> Vouching | None:
        """A .pyc names its source, which is as shipped, and is what the packaged Python makes of it."""
        found = _PYC.fullmatch(path)
        if found is None:
            return None
        source = found[1] + b"/" + found[2] + b".py"
        content = self._read(path)
        if not self._same(change, content) or len(content) < _PYC_HEADER:
            return None
        shown = terminal(decode(source))
        flags, mtime, size = struct.unpack_from("<III", content, 4)
        status = self._at(source).stat()
        if not flags & 1 and (mtime, size) != (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF):
            return _said(Verdict.HINT, f"it was not made from {shown} as that is now")
        interpreter = b"/usr/bin/python" + found[3] + b"." + found[4]
        said = self._packages.standing([source, interpreter])
        if not all((one := said.get(each)) is not None and one.lowers for each in (source, interpreter)):
            return _said(Verdict.HINT, f"made from {shown}, for which no signed package vouches")
        # The header is easily written; what counts is that the same code comes out.
        mode = 1 if not flags & 1 else 2 if flags & 2 else 3
        if self._made_by(interpreter, source, int(found[5] or b"0"), mode) != content:
            return _said(Verdict.HINT, f"not what {terminal(decode(interpreter))} makes of {shown}, byte for byte")
        return _said(Verdict.VOUCHED, f"it is what the packaged Python makes of {shown}, which is as shipped")

    def _made_by(self, interpreter: bytes, source: bytes, optimize: int, mode: int) -> bytes | None:
        with tempfile.TemporaryDirectory() as folder:
            argv = [str(self._at(interpreter)), "-I", "-S", "-c", _COMPILE, str(self._at(source)), f"{folder}/made.pyc"]
            ended = programs.run([*argv, str(optimize), str(mode)], timeout=30.0)
        return ended.stdout if ended.returncode == 0 else None

    # ---------------------------------------------------------------------------------------------- libraries

    def _library_cache(self, path: bytes, change: Change) -> Vouching | None:
        """Every name of ld.so.cache leads to a library of that name, in a configured folder, that a package brought."""
        if path != b"/etc/ld.so.cache":
            return None
        content = self._read(path)
        if not self._same(change, content):
            return None
        entries = list(_cached(content))
        folders = {*_LIBRARY_FOLDERS, *self._configured(b"/etc/ld.so.conf", 0)}
        for name, library in entries:
            shown = terminal(decode(library))
            folder = library.rpartition(b"/")[0]
            if not any(folder == one or folder.startswith(one + b"/") for one in folders):
                return _said(Verdict.CONTRADICTED, f"it leads to {shown}, which is in no folder of ld.so.conf")
            if library.rpartition(b"/")[2] != name:
                return _said(Verdict.CONTRADICTED, f"it leads {terminal(decode(name))} to {shown}")
            if not self._at(library).exists():
                return _said(Verdict.HINT, f"it leads to {shown}, which is not there")
        # The name is a link that ldconfig makes; a package brought what it leads to.
        real = {library: self._resolved(library) for _, library in entries}
        strange = sorted({*real.values()} - self._owned([*real.values()]))
        if strange:
            names = ", ".join(terminal(decode(one)) for one in strange[:3])
            return _said(Verdict.HINT, f"{len(strange)} libraries in it are of no package: {names}")
        return _said(Verdict.VOUCHED, f"each of its {len(entries)} entries is a library of a package")

    def _resolved(self, path: bytes) -> bytes:
        """Where a link leads in its own folder, as ldconfig makes them."""
        target = path
        for _ in range(8):
            try:
                link = str(self._at(target).readlink())
            except OSError:
                break
            name = os.fsencode(link)
            target = name if name.startswith(b"/") else os.path.normpath(target.rpartition(b"/")[0] + b"/" + name)
        return target

    def _configured(self, file: bytes, depth: int) -> Iterator[bytes]:
        """Folders that ld.so.conf names, with what it includes."""
        for line in self._read(file).splitlines():
            words = line.partition(b"#")[0].split()
            if not words:
                continue
            if words[0] != b"include":
                yield from (word.partition(b"=")[0].rstrip(b"/") for word in words if word.startswith(b"/"))
                continue
            for pattern in words[1:] if depth < 4 else ():
                absolute = pattern if pattern.startswith(b"/") else b"/etc/" + pattern
                for found in sorted(self._root.glob(os.fsdecode(absolute).lstrip("/"))):
                    yield from self._configured(b"/" + os.fsencode(found.relative_to(self._root)), depth + 1)

    # ---------------------------------------------------------------------------------------------- certificates

    def _certificates(self, path: bytes, change: Change) -> Vouching | None:
        """The bundle holds certificates of ca-certificates alone, each as shipped."""
        if path != b"/etc/ssl/certs/ca-certificates.crt":
            return None
        content = self._read(path)
        if not self._same(change, content):
            return None
        blocks = {_normal(block) for block in _PEM.findall(content)}
        if _PEM.sub(b"", content).strip():
            return _said(Verdict.HINT, "there is more in it than certificates")
        shipped: dict[bytes, bytes] = {}
        local: dict[bytes, bytes] = {}
        for folder, into in ((b"/usr/share/ca-certificates", shipped), (b"/usr/local/share/ca-certificates", local)):
            for file in self._at(folder).rglob("*.crt"):
                inner = b"/" + os.fsencode(file.relative_to(self._root))
                into |= {_normal(block): inner for block in _PEM.findall(self._read(inner))}
        strange = blocks - shipped.keys() - local.keys()
        if strange:
            return _said(Verdict.CONTRADICTED, f"{len(strange)} certificates in it are of no file that it is made from")
        if added := blocks - shipped.keys():
            names = ", ".join(sorted(terminal(decode(local[one])) for one in added)[:3])
            return _said(Verdict.HINT, f"{len(added)} certificates in it were put in on this host: {names}")
        said = self._packages.standing([shipped[one] for one in blocks])
        unsure = [one for one, answer in said.items() if answer is None or not answer.lowers]
        if unsure:
            return _said(Verdict.HINT, f"no signed package vouches for {len(unsure)} of the files it is made from")
        return _said(Verdict.VOUCHED, f"each of its {len(blocks)} certificates is as ca-certificates ships it")

    def _certificate_link(self, path: bytes, change: Change) -> Vouching | None:
        """A link among the certificates leads, over others there, to a file that ca-certificates ships."""
        folder, _, name = path.rpartition(b"/")
        if folder != b"/etc/ssl/certs" or change.after is None or change.after.type is not FileType.SYMLINK:
            return None
        if not _HASHED.fullmatch(name) and not name.endswith(b".pem"):
            return None
        end = self._resolved(path)
        shown = terminal(decode(end))
        if not end.startswith(b"/usr/share/ca-certificates/"):
            verdict = Verdict.HINT if end.startswith(b"/usr/local/share/ca-certificates/") else Verdict.CONTRADICTED
            return _said(verdict, f"it leads to {shown}")
        answer = self._packages.standing([end]).get(end)
        if answer is None or not answer.lowers:
            return _said(Verdict.HINT, f"it leads to {shown}, for which no signed package vouches")
        return _said(Verdict.VOUCHED, f"it leads to {shown}, which is as shipped")


def _said(verdict: Verdict, detail: str) -> Vouching:
    return Vouching(GENERATED, verdict, detail)


def _normal(block: bytes) -> bytes:
    return b"".join(block.split())


def _cached(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and paths of an ld.so.cache; ValueError where it is none. glibc, sysdeps/generic/dl-cache.h"""
    start = 0
    if content.startswith(_CACHE_OLD):
        (count,) = struct.unpack_from("<I", content, 12)
        start = 16 + 12 * count + 7 & ~7
    if content[start : start + len(_CACHE_MAGIC)] != _CACHE_MAGIC:
        raise ValueError("not a cache of libraries")
    (count,) = struct.unpack_from("<I", content, start + 20)
    for number in range(count):
        _, key, value = struct.unpack_from("<iII", content, start + _CACHE_HEADER + _CACHE_ENTRY * number)
        yield _text(content, start + key), _text(content, start + value)


def _text(content: bytes, at: int) -> bytes:
    end = content.index(b"\0", at)
    return content[at:end]

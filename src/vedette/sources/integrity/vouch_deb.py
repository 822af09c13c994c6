"""What a .deb ships: every path with its SHA-256, mode and owner, and the digest of exactly the bytes that say so.
Counterpart: `vouch_archive` says whether a signed archive knows that digest; `vouch_package` compares files with it."""

# deb(5), ar(5). Read with the standard library's tar and our own ar (thirty lines): python-debian would
# read a package twice, so that what was hashed need not be what was read, and of the rest of it nothing was needed.
from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import IO, cast

import zstandard

from vedette.model.integrity import FileType

_MAGIC, _HEADER = b"!<arch>\n", 60
_CHUNK = 1 << 18
_MOST_MEMBERS, _MOST_BYTES, _MOST_CONTROL = 500_000, 8 << 30, 4 << 20
"""What a package may unpack to; what is above it is no package of a distribution."""


class NotADebError(ValueError):
    """It is not a Debian package, or one that cannot be read; says why."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """One path of a package. sha256: 32 bytes, of a regular file. target: of a symlink."""

    type: FileType
    mode: int
    uid: int
    gid: int
    sha256: bytes = b""
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one package ships. archive_sha256: of the .deb, 32 bytes. files: absolute path to what is there. configures:
    the script that runs when it was unpacked."""

    package: str
    version: str
    architecture: str
    archive_sha256: bytes
    files: Mapping[bytes, Shipped]
    conffiles: frozenset[bytes] = field(default_factory=frozenset)
    configures: bytes = b""


class _Hashing(io.RawIOBase):
    """Reads a stream forwards and hashes every byte that passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def rest(self) -> bytes:
        """The digest of the whole stream, whose end is read for it."""
        while self.read(_CHUNK):
            pass
        return self._hash.digest()


class _Member(io.RawIOBase):
    """One member of an ar archive, read forwards."""

    def __init__(self, stream: _Hashing, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(wanted) if wanted else b""
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Read what is left of it."""
        while self.read(_CHUNK):
            pass


def read_deb(stream: IO[bytes]) -> Manifest:
    """The manifest of the package in `stream`, read once from its beginning; NotADebError where there is none."""
    hashing = _Hashing(stream)
    control: dict[str, bytes] | None = None
    files: dict[bytes, Shipped] | None = None
    try:
        for name, member in _members(hashing):
            if name.startswith("control.tar"):
                control = _control(name, member)
            elif name.startswith("data.tar"):
                files = _files(name, member)
    except (tarfile.TarError, zstandard.ZstdError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise NotADebError(str(error) or type(error).__name__) from None
    if control is None or files is None:
        raise NotADebError("it has no control or no data")
    fields = stanza(control.get("control", b"").decode("utf-8", "replace"))
    conffiles = frozenset(
        line.strip() for line in control.get("conffiles", b"").splitlines() if line.strip().startswith(b"/")
    )
    package, version = fields.get("package", ""), fields.get("version", "")
    if not package or not version:
        raise NotADebError("its control names no package or no version")
    script = control.get("postinst", b"")
    return Manifest(package, version, fields.get("architecture", ""), hashing.rest(), files, conffiles, script)


def stanza(text: str) -> dict[str, str]:
    """The fields of one paragraph of a control file, names in lower case, lines that go on joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _members(stream: _Hashing) -> Iterator[tuple[str, _Member]]:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise NotADebError("it does not begin as a package does")
    while len(header := stream.read(_HEADER)) == _HEADER:
        size = int(header[48:58])
        if header[58:60] != b"`\n" or size < 0:
            raise NotADebError("a member's header is damaged")
        member = _Member(stream, size)
        yield header[:16].decode("ascii", "replace").rstrip(" /"), member
        member.skip()
        if size % 2:
            stream.read(1)


@contextmanager
def _unpacked(name: str, member: _Member) -> Iterator[tarfile.TarFile]:
    kind = name.partition(".tar")[2].removeprefix(".")
    if kind not in _UNPACK:
        raise NotADebError(f"{name} is packed in a way that is not known")
    # Not by tarfile, whose own unpacking breaks in ways of its own at what is damaged.
    with _UNPACK[kind](cast(IO[bytes], member)) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        yield tar


_UNPACK: Mapping[str, Callable[[IO[bytes]], AbstractContextManager[IO[bytes]]]] = {
    "": nullcontext,
    "gz": lambda packed: cast(IO[bytes], gzip.GzipFile(fileobj=packed, mode="rb")),
    "xz": lambda packed: cast(IO[bytes], lzma.open(packed)),  # noqa: SIM115 (whoever asks closes it)
    "bz2": lambda packed: cast(IO[bytes], bz2.open(packed)),  # noqa: SIM115
    "zst": lambda packed: cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(packed, closefd=False)),
}


def _control(name: str, member: _Member) -> dict[str, bytes]:
    found = {}
    with _unpacked(name, member) as tar:
        for info in tar:
            plain = info.name.removeprefix("./")
            if info.isreg() and plain in ("control", "conffiles", "postinst"):
                if info.size > _MOST_CONTROL:
                    raise NotADebError(f"{plain} is too long")
                content = tar.extractfile(info)
                found[plain] = content.read() if content is not None else b""
    return found


def _files(name: str, member: _Member) -> dict[bytes, Shipped]:
    files: dict[bytes, Shipped] = {}
    total = 0
    with _unpacked(name, member) as tar:
        for number, info in enumerate(tar):
            total += info.size
            if number >= _MOST_MEMBERS or total > _MOST_BYTES:
                raise NotADebError("it unpacks to more than a package does")
            path = _absolute(info.name)
            if info.islnk():
                # A hard link has the content of what it leads to, which stands before it.
                if (first := files.get(_absolute(info.linkname))) is not None:
                    files[path] = first
                continue
            files[path] = _shipped(tar, info)
    return files


def _shipped(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Shipped:
    mode = info.mode & 0o7777
    if info.isreg():
        content = tar.extractfile(info)
        digest = hashlib.sha256()
        while content is not None and (data := content.read(_CHUNK)):
            digest.update(data)
        return Shipped(FileType.FILE, mode, info.uid, info.gid, digest.digest())
    if info.issym():
        return Shipped(FileType.SYMLINK, mode, info.uid, info.gid, target=_bytes(info.linkname))
    kinds = ((info.isdir(), FileType.DIRECTORY), (info.isfifo(), FileType.FIFO), (info.ischr(), FileType.CHARACTER))
    kind = next((kind for so, kind in kinds if so), FileType.BLOCK if info.isblk() else FileType.UNKNOWN)
    return Shipped(kind, mode, info.uid, info.gid)


def _absolute(name: str) -> bytes:
    return b"/" + _bytes(name).removeprefix(b".").strip(b"/")


def _bytes(name: str) -> bytes:
    # As tarfile decodes names.
    return name.encode("utf-8", "surrogateescape")

"""An initramfs image is explained by what it was made from: whatever runs in it is, byte for byte, a file of a package.
Counterpart: `vouch_generated` explains the other files that are made on a host; docs/integrity.md says what is not."""

# initramfs-tools(7); buffer-format.rst of the kernel (cpio newc, one archive or several one after the other).
from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import zstandard

from vedette.model.integrity import Change, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.text.escape import decode, terminal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GENERATED = "generated"
_IMAGE = re.compile(rb"/boot/init(?:rd\.img|ramfs)-[^/]+")
_HEADER, _TRAILER = 110, b"TRAILER!!!"
_MOST_BYTES, _MOST_MEMBERS, _LONGEST_NAME = 2 << 30, 200_000, 4096
_SHELL = b"usr/share/initramfs-tools/"
_ORDER = re.compile(rb'(?:/scripts/[\w./-]+ "\$@"\n|\[ -e /conf/param\.conf \] && \. /conf/param\.conf\n|\s+)*')
_PLAIN = {
    # What mkinitramfs writes itself and the shell reads, and what may stand in it.
    re.compile(rb"conf/arch\.conf"): re.compile(rb"DPKG_ARCH=[a-z0-9-]+\n?"),
    re.compile(rb"conf/modules"): re.compile(rb"(?:[\w =.,-]*\n)*"),
    re.compile(rb"scripts/[\w-]+/ORDER"): _ORDER,
}
_RUN = re.compile(
    rb"(?:conf|scripts|hooks)/|init$|(?:.*/)?[^/]+\.(?:so(?:\.[\d.]+)?|ko(?:\.\w+)?)$|etc/ld\.so\.preload$|(?:(?:usr/)?lib|etc)/(?:udev|modprobe\.d)/"
)
"""What runs, or is read by what runs as orders, whatever its mode says."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an image, or a link. content: only of what is short. target: of a link. links: hard ones."""

    name: bytes
    mode: int
    sha256: bytes
    content: bytes
    target: bytes = b""
    links: int = 1


class InitramfsVoucher:
    """Looks into images of /boot."""

    def __init__(self, database: DpkgDatabase) -> None:
        self._database = database

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        return [self._explain(change) for change in changes]

    def _explain(self, change: Change) -> Vouching | None:
        path = self._database.inside(change.path)
        if path is None or change.after is None or _IMAGE.fullmatch(path) is None:
            return None
        try:
            with Path(os.fsdecode(change.path)).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").digest() != change.after.sha256:
                    return None
                stream.seek(0)
                members = list(read_image(stream))
        except (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
            return Vouching(GENERATED, Verdict.HINT, f"it cannot be looked into: {error}")
        strange, same = self._strange(members)
        if strange:
            names = ", ".join(terminal(decode(one)) for one in strange[:3])
            return Vouching(GENERATED, Verdict.HINT, f"{len(strange)} files that run in it are of no package: {names}")
        if not same:
            return Vouching(GENERATED, Verdict.HINT, "nothing in it was made from files of packages")
        return Vouching(
            GENERATED, Verdict.VOUCHED, f"whatever runs in it ({same} files) is as the files of packages here"
        )

    def _strange(self, members: Sequence[Member]) -> tuple[list[bytes], int]:
        """Files that run and are no file of a package, and how many are one."""
        sources: dict[bytes, Member] = {}
        strange, same = [], 0
        linked = _linked(members)
        for member in members:
            if member.target:
                continue
            runs = member.mode & 0o111 or _RUN.match(member.name) or member.links > 1
            if not runs and not any(member.name == one or member.name.startswith(one + b"/") for one in linked):
                continue
            plain = next((text for name, text in _PLAIN.items() if name.fullmatch(member.name)), None)
            if plain is not None and plain.fullmatch(member.content):
                continue
            if not member.content and member.links == 1 and member.name == b"conf/param.conf":
                continue
            source = next((one for one in _places(member.name) if self._digest(one) == member.sha256), None)
            if source is None:
                strange.append(member.name)
            else:
                sources[source] = member
        owned = self._database.owners([self._real(source) for source in sources])
        for source, member in sources.items():
            # Scripts and settings of the administrator lie in /etc/initramfs-tools, watched as every file there.
            if self._real(source) in owned or source.startswith(b"/etc/initramfs-tools/"):
                same += 1
            else:
                strange.append(member.name)
        return strange, same

    def _at(self, path: bytes) -> Path:
        return Path(os.fsdecode(path if self._database.root == Path("/") else os.fsencode(self._database.root) + path))

    def _real(self, path: bytes) -> bytes:
        """What is a link is owned by what it leads to."""
        with suppress(OSError):
            return self._database.inside(os.fsencode(self._at(path).resolve())) or path
        return path

    def _digest(self, path: bytes) -> bytes:
        with suppress(OSError), self._at(path).open("rb") as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return hashlib.file_digest(stream, "sha256").digest()
        return b""


def _linked(members: Sequence[Member]) -> set[bytes]:
    """Names that are reached by another one: of links, and of what they lead to; but for those of merged folders."""
    found: set[bytes] = set()
    for member in members:
        if not member.target:
            continue
        folder = b"/" + member.name.rpartition(b"/")[0] + b"/"
        target = os.path.normpath(member.target if member.target.startswith(b"/") else folder + member.target)
        if target.lstrip(b"/") != b"usr/" + member.name:
            found |= {member.name, target.lstrip(b"/")}
    return found - {b""}


def _places(name: bytes) -> Iterator[bytes]:
    """Where on the host a file of an image may come from."""
    yield b"/" + name
    yield b"/usr/" + name
    yield b"/" + _SHELL + name
    yield b"/etc/initramfs-tools/" + name
    yield b"/etc/initramfs-tools/" + name.removeprefix(b"conf/")
    yield b"/" + _SHELL + name.removeprefix(b"conf/")
    if name.startswith((b"bin/", b"sbin/", b"usr/bin/", b"usr/sbin/")):
        base = name.rpartition(b"/")[2]
        # klibc and busybox bring their programs under names of their own.
        yield b"/usr/lib/klibc/bin/" + base
        yield b"/lib/klibc/bin/" + base
        yield b"/usr/lib/initramfs-tools/bin/" + base


def read_image(stream: IO[bytes]) -> Iterator[Member]:
    """Regular files of every archive in the image, packed or not; ValueError where it is none."""
    count = 0
    while head := stream.read(8):
        if head.startswith(b"\0"):
            # Padding between archives.
            stream.seek(len(head.lstrip(b"\0")) * -1, os.SEEK_CUR)
            continue
        stream.seek(-len(head), os.SEEK_CUR)
        packed = not head.startswith(b"070701")
        archive = _unpacked(stream, head) if packed else stream
        first = b""
        while True:
            for member in _members(archive, first):
                count += 1
                if count > _MOST_MEMBERS:
                    raise ValueError("there is too much in it")
                yield member
            # The kernel goes on behind the end of an archive, and so must whoever says what is in it.
            if not packed:
                break
            if not (first := _behind_zeros(archive)):
                return


def _behind_zeros(archive: IO[bytes]) -> bytes:
    """What follows the padding behind an archive; empty at the end."""
    while data := archive.read(4):
        if data.strip(b"\0"):
            return data
    return b""


class _Streams(io.RawIOBase):
    """Packed streams one after the other, as one; what follows and is none is an error, and not passed over."""

    def __init__(self, stream: IO[bytes], made: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> None:
        self._stream = stream
        self._made = made
        self._unpacker = made()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            given = b""
            if self._unpacker.eof:
                given = self._unpacker.unused_data.lstrip(b"\0")
                while not given:
                    data = self._stream.read(1 << 16)
                    if not data:
                        return 0
                    given = data.lstrip(b"\0")
                self._unpacker = self._made()
            elif self._unpacker.needs_input and not (given := self._stream.read(1 << 16)):
                raise EOFError("it is cut short")
            if found := self._unpacker.decompress(given, len(view)):
                view[: len(found)] = found
                return len(found)


def _unpacked(stream: IO[bytes], head: bytes) -> IO[bytes]:
    openers: tuple[tuple[bytes, Callable[[], IO[bytes]]], ...] = (
        (b"\x1f\x8b", lambda: cast(IO[bytes], gzip.GzipFile(fileobj=stream))),
        (b"\xfd7zXZ", lambda: cast(IO[bytes], io.BufferedReader(_Streams(stream, lzma.LZMADecompressor)))),
        (b"BZh", lambda: cast(IO[bytes], io.BufferedReader(_Streams(stream, bz2.BZ2Decompressor)))),
        (b"\x28\xb5\x2f\xfd", lambda: cast(IO[bytes], _whole(stream))),
    )
    for magic, opened in openers:
        if head.startswith(magic):
            return opened()
    raise ValueError("it is packed in a way that is not known")


def _whole(stream: IO[bytes]) -> io.BufferedReader:
    reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True, closefd=False)
    return io.BufferedReader(cast(io.RawIOBase, reader), 1 << 16)


def _members(archive: IO[bytes], first: bytes = b"") -> Iterator[Member]:
    """first: of the archive, what was read of it already."""
    total = 0
    while True:
        header = first + _exactly(archive, _HEADER - len(first))
        first = b""
        if not header.startswith((b"070701", b"070702")):
            raise ValueError("a member's header is damaged")
        fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER, 8)]
        mode, links, size, length = fields[1], fields[4], fields[6], fields[11]
        if not 0 < length <= _LONGEST_NAME:
            raise ValueError("a member's name is damaged")
        name = _exactly(archive, length).rstrip(b"\0")
        _exactly(archive, -(_HEADER + length) % 4)
        total += size
        if total > _MOST_BYTES:
            raise ValueError("it unpacks to too much")
        digest, left, kept = hashlib.sha256(), size, b""
        while left:
            data = _exactly(archive, min(left, 1 << 18))
            digest.update(data)
            kept = kept or data[:65_536]
            left -= len(data)
        _exactly(archive, -size % 4)
        if name == _TRAILER:
            return
        if stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and kept):
            target = kept if stat.S_ISLNK(mode) else b""
            plain = os.path.normpath(b"/" + name).lstrip(b"/")
            yield Member(plain, mode & 0o7777, digest.digest(), kept, target, links)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size) if size else b""
    if len(data) != size:
        raise EOFError("it is cut short")
    return data

"""Whether a signed archive knows a .deb: from the signature of its release file to the digest of the package.
Counterpart: `vouch_deb` says what the package ships; the keyrings are the distribution's."""

# The chain: InRelease (or Release with Release.gpg), signed -> SHA256 of Packages -> SHA256 of the .deb. apt-secure(8).
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vedette.sources.integrity.vouch_deb import stanza
from vedette.sources.integrity.vouch_keyrings import Keyrings
from vedette.system import exec as programs
from vedette.system.piped import piped

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
)
_APT_HELPER = "/usr/lib/apt/apt-helper"
"""apt's own way to unpack its lists, whatever they are packed with."""
_PACKED = frozenset({".lz4", ".gz", ".xz", ".bz2", ".zst", ".lzma"})
_LISTED = re.compile(r"^ ([0-9a-f]{64})\s+\d+\s+(\S+)$", re.MULTILINE)
_CHUNK = 1 << 20
_LONGEST_STANZA = 1 << 20
_MOST_RELEASE = 64 << 20


class ArchiveLack(StrEnum):
    """Why no signed archive could say anything."""

    NO_VERIFIER = "no-verifier"
    """The program gpgv is not installed."""
    NO_KEYRING = "no-keyring"
    KEYRING_CHANGED = "keyring-changed"
    """A keyring is not the one that was there at the start, which still is what counts: start anew where it may."""
    NO_LISTS = "no-lists"
    """apt has not fetched any list of packages."""
    BAD_SIGNATURE = "bad-signature"
    """Of a release file: nothing it lists counts."""
    LIST_DIFFERS = "list-differs"
    """A list of packages is not the one that the release file names."""
    LIST_UNREADABLE = "list-unreadable"


@dataclass(frozen=True, slots=True)
class Listing:
    """A package as a signed archive lists it. origin: what the archive calls itself, with its suite."""

    package: str
    version: str
    architecture: str
    origin: str


class SignedArchive:
    """Knows packages by the SHA-256 of their .deb. lists: of apt. lacks: what could not be used, and how often.

    Keyrings count as they were when this began: whoever is root could else put a key of their own there.
    """

    def __init__(self, lists: Path = Path("/var/lib/apt/lists"), keyrings: Sequence[Path] = KEYRINGS) -> None:
        self._lists = lists
        self._keyrings = Keyrings(keyrings)
        self._known: dict[bytes, Listing | None] = {}
        self._as_of: tuple[tuple[str, int, int], ...] = ()
        self.lacks: dict[ArchiveLack, int] = {}

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Listing]:
        """The listings of those of these digests (32 bytes each) that the archive knows. Never raises."""
        as_of = self._state()
        if as_of != self._as_of:
            # What an older list knew stays known: it was signed then as well.
            self._known = {digest: one for digest, one in self._known.items() if one is not None}
            self._as_of = as_of
        wanted = {digest for digest in digests if digest not in self._known}
        if wanted:
            self._known |= dict.fromkeys(wanted) | self._search(wanted)
        return {digest: one for digest in digests if (one := self._known.get(digest)) is not None}

    def _state(self) -> tuple[tuple[str, int, int], ...]:
        state = []
        for path in self._releases():
            with suppress(OSError):
                status = path.stat()
                state.append((path.name, status.st_mtime_ns, status.st_size))
        return tuple(state)

    def _releases(self) -> list[Path]:
        try:
            return sorted(one for one in self._lists.iterdir() if one.name.endswith(("_InRelease", "_Release")))
        except OSError:
            return []

    def _lack(self, why: ArchiveLack) -> None:
        self.lacks[why] = self.lacks.get(why, 0) + 1

    def _search(self, wanted: set[bytes]) -> dict[bytes, Listing]:
        found: dict[bytes, Listing] = {}
        releases = self._releases()
        if not releases:
            self._lack(ArchiveLack.NO_LISTS)
        for release in releases:
            text = self._signed(release)
            if text is None:
                continue
            names = stanza(text.partition("\nSHA256:")[0])
            origin = " ".join(filter(None, (names.get("origin", ""), names.get("codename", names.get("suite", "")))))
            listed = {name: digest for digest, name in _LISTED.findall(text.partition("\nSHA256:")[2])}
            prefix = release.name.removesuffix("InRelease").removesuffix("Release")
            for path in self._package_lists(prefix):
                found |= self._searched(path, prefix, listed, origin, wanted - found.keys())
                if not wanted - found.keys():
                    return found
        return found

    def _package_lists(self, prefix: str) -> list[Path]:
        return [
            one
            for one in sorted(self._lists.iterdir())
            if one.name.startswith(prefix) and _unpacked_name(one.name).endswith("_Packages")
        ]

    def _signed(self, release: Path) -> str | None:
        """What was signed of a release file: what gpgv gives out, not what else may stand in the file."""
        with ExitStack() as stack:
            keyrings = self._keyrings.arguments(stack)
            for _ in range(self._keyrings.changed):
                self._lack(ArchiveLack.KEYRING_CHANGED)
            if not keyrings:
                self._lack(ArchiveLack.NO_KEYRING)
                return None
            inline = release.name.endswith("_InRelease")
            signature = release.with_name(release.name + ".gpg")
            what = [str(release)] if inline else [str(signature), str(release)]
            try:
                if not inline and not signature.exists():
                    return None
                before = release.read_bytes()
                ended = programs.run(["gpgv", *keyrings, *(["--output", "-"] if inline else []), *what], timeout=30.0)
                if ended.returncode != 0 or (not inline and release.read_bytes() != before):
                    self._lack(ArchiveLack.BAD_SIGNATURE)
                    return None
                signed = ended.stdout if inline else before
            except FileNotFoundError:
                self._lack(ArchiveLack.NO_VERIFIER)
                return None
            except OSError:
                self._lack(ArchiveLack.LIST_UNREADABLE)
                return None
        return signed[:_MOST_RELEASE].decode("utf-8", "replace").replace("\r\n", "\n")

    def _searched(
        self, path: Path, prefix: str, listed: dict[str, str], origin: str, wanted: set[bytes]
    ) -> dict[bytes, Listing]:
        expected = listed.get(_unpacked_name(path.name).removeprefix(prefix).replace("_", "/"))
        if expected is None:
            self._lack(ArchiveLack.LIST_DIFFERS)
            return {}
        digest = hashlib.sha256()
        found: dict[bytes, Listing] = {}
        marks = {one: b"\nSHA256: " + one.hex().encode() for one in wanted}
        try:
            for stanzas in _stanzas(_content(path), digest):
                for one, mark in marks.items():
                    at = stanzas.find(mark)
                    if at >= 0:
                        begin, end = stanzas.rfind(b"\n\n", 0, at) + 1, stanzas.find(b"\n\n", at)
                        fields = stanza(stanzas[begin : end if end >= 0 else None].decode("utf-8", "replace"))
                        found[one] = Listing(
                            fields.get("package", ""), fields.get("version", ""), fields.get("architecture", ""), origin
                        )
        except OSError:
            self._lack(ArchiveLack.LIST_UNREADABLE)
            return {}
        if digest.hexdigest() != expected:
            self._lack(ArchiveLack.LIST_DIFFERS)
            return {}
        return found


def _unpacked_name(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    return stem if dot and f".{last}" in _PACKED else name


def _content(path: Path) -> Iterator[bytes]:
    if path.suffix not in _PACKED:
        with path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                yield data
        return
    yield from piped([_APT_HELPER, "cat-file", str(path)])


def _stanzas(content: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """The same, hashed, cut only between two stanzas."""
    kept = b"\n"
    for data in content:
        digest.update(data)
        kept += data
        whole, gap, rest = kept.rpartition(b"\n\n")
        if gap:
            yield whole + gap
            kept = b"\n" + rest
        elif len(kept) > _LONGEST_STANZA:
            raise OSError("a stanza has no end")
    yield kept

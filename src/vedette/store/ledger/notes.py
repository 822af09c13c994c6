"""Signed notes, checkpoints and cosignatures as C2SP writes them (signed-note, tlog-checkpoint, tlog-cosignature).
Counterpart: `store.ledger.ledger` signs them, `witness` cosigns, `verify` reads them; needs cryptography alone."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vedette.store.ledger.tree import HASH_SIZE

ED25519 = 1
COSIGNATURE = 4

MAX_NOTE = 1 << 20
_PRIVATE = "PRIVATE+KEY+"
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
# Names and bodies that a mail program may have quoted, indented or given other line ends.
_IN_A_MAIL = re.compile(r"^[> \t]*", re.MULTILINE)
_NOTE_IN_TEXT = re.compile(
    r"^[^\s][^\n]*\n(?:0|[1-9][0-9]{0,18})\n[A-Za-z0-9+/]{43}=\n(?:[^\n]+\n)*\n(?:— [^\n]+\n)+", re.MULTILINE
)


class NoteError(ValueError):
    """A note, key or checkpoint that is not written as it must be."""


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("not base64") from None


def _checked_name(name: str) -> str:
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise NoteError("a key's name has neither spaces nor a plus sign")
    return name


def _key_id(name: str, algorithm: int, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name and what it signs: notes (1) or cosignatures (4)."""

    name: str
    algorithm: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that stand before its signatures."""
        return _key_id(self.name, self.algorithm, self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([self.algorithm]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`name+id+base64`; NoteError where it is something else or its id is not of this key."""
        name, _, rest = text.strip().partition("+")
        ident, _, encoded = rest.partition("+")
        material = _decoded(encoded)
        if len(material) != 33 or material[0] not in (ED25519, COSIGNATURE):
            raise NoteError("no Ed25519 verifier key (name+id+base64)")
        key = cls(_checked_name(name), material[0], material[1:])
        if key.id.hex() != ident.lower():
            raise NoteError(f"verifier key {name}: the id {ident} is not of this key")
        return key

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether it is this key's signature of the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key with its name; `str(verifier)` is what may be shown."""

    def __init__(self, name: str, key: Ed25519PrivateKey, algorithm: int = ED25519) -> None:
        self._key = key
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.verifier = VerifierKey(_checked_name(name), algorithm, public)

    @classmethod
    def generate(cls, name: str, algorithm: int = ED25519) -> Self:
        """A new key."""
        return cls(name, Ed25519PrivateKey.generate(), algorithm)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`PRIVATE+KEY+name+id+base64`, as `private` writes it; NoteError where it is something else."""
        rest = text.strip()
        if not rest.startswith(_PRIVATE):
            raise NoteError("no private key of a note")
        name, _, rest = rest.removeprefix(_PRIVATE).partition("+")
        ident, _, encoded = rest.partition("+")
        material = _decoded(encoded)
        if len(material) != 33 or material[0] not in (ED25519, COSIGNATURE):
            raise NoteError("no Ed25519 private key")
        made = cls(name, Ed25519PrivateKey.from_private_bytes(material[1:]), material[0])
        if made.verifier.id.hex() != ident:
            raise NoteError("the key's id is not of this key")
        return made

    def private(self) -> str:
        """The key as text for a file of mode 0600."""
        seed = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        key = self.verifier
        return f"{_PRIVATE}{key.name}+{key.id.hex()}+{b64encode(bytes([key.algorithm]) + seed).decode()}"

    def signature(self, text: str) -> str:
        """The signature line of a note of this text."""
        assert self.verifier.algorithm == ED25519
        return _line(self.verifier, self._key.sign(text.encode()))

    def cosignature(self, text: str, at: int) -> str:
        """The cosignature/v1 line of a checkpoint; at: Unix time in seconds."""
        assert self.verifier.algorithm == COSIGNATURE
        return _line(self.verifier, at.to_bytes(8, "big") + self._key.sign(_cosigned(text, at)))

    def sign(self, text: str) -> str:
        """The whole signed note."""
        return f"{text}\n{self.signature(text)}"


def _line(key: VerifierKey, signature: bytes) -> str:
    return f"— {key.name} {b64encode(key.id + signature).decode()}\n"


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note taken apart; nothing of it is believed before a key holds it."""

    text: str
    signatures: tuple[tuple[str, bytes], ...]

    def __str__(self) -> str:
        lines = "".join(f"— {name} {b64encode(signature).decode()}\n" for name, signature in self.signatures)
        return f"{self.text}\n{lines}"

    @classmethod
    def parse(cls, written: str) -> Self:
        """NoteError where it is no signed note: text, an empty line, signature lines."""
        if len(written) > MAX_NOTE or any(ord(c) < 0x20 and c != "\n" for c in written):
            raise NoteError("not a signed note: too long, or control characters in it")
        body, found, lines = written.rpartition("\n\n")
        if not found or not lines.endswith("\n"):
            raise NoteError("not a signed note: no signatures")
        signatures = []
        for line in lines[:-1].split("\n"):
            match = _SIGNATURE.fullmatch(line)
            signature = _decoded(match[2]) if match else b""
            if match is None or len(signature) < 5:
                raise NoteError("not a signed note: a signature line is not written as one")
            signatures.append((match[1], signature))
        return cls(body + "\n", tuple(signatures))

    def signed_by(self, key: VerifierKey) -> bool:
        """Whether the key signed this text."""
        if key.algorithm != ED25519:
            return False
        return any(key.holds(found, self.text.encode()) for found in self._of(key))

    def cosigned_at(self, key: VerifierKey) -> int | None:
        """When the witness cosigned it, Unix time in seconds, newest; None where it did not."""
        if key.algorithm != COSIGNATURE:
            return None
        times = []
        for found in self._of(key):
            at, signature = int.from_bytes(found[:8], "big"), found[8:]
            if key.holds(signature, _cosigned(self.text, at)):
                times.append(at)
        return max(times, default=None)

    def _of(self, key: VerifierKey) -> list[bytes]:
        return [found[4:] for name, found in self.signatures if name == key.name and found[:4] == key.id]

    def with_line(self, line: str) -> Note:
        """With one more signature line, in place of an older one of the same key; NoteError where it is none."""
        added = Note.parse(f"{self.text}\n{line}").signatures
        if len(added) != 1:
            raise NoteError("one signature line at a time")
        ((name, signature),) = added
        others = tuple(one for one in self.signatures if (one[0], one[1][:4]) != (name, signature[:4]))
        return Note(self.text, (*others, (name, signature)))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The ledger's head: so many leaves, this root; `note` is what was signed, with all signatures."""

    origin: str
    size: int
    root: bytes
    note: Note

    @classmethod
    def parse(cls, written: str) -> Self:
        """NoteError where it is no signed checkpoint (C2SP tlog-checkpoint)."""
        note = Note.parse(written)
        lines = note.text.split("\n")
        if len(lines) < 4 or not lines[0] or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1], re.ASCII):
            raise NoteError("not a checkpoint: origin, size and root stand on three lines")
        root = _decoded(lines[2])
        if len(root) != HASH_SIZE:
            raise NoteError("not a checkpoint: the root has another length")
        return cls(lines[0], int(lines[1]), root, note)

    def __str__(self) -> str:
        return str(self.note)

    def witnesses(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """Those of the keys that cosigned it, each public key once."""
        found = {key.public: key for key in keys if self.note.cosigned_at(key) is not None}
        return list(found.values())


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """The text of a checkpoint, to be signed."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def make_checkpoint(signer: Signer, size: int, root: bytes) -> Checkpoint:
    """Signed; the origin is the key's name."""
    return Checkpoint.parse(signer.sign(checkpoint_text(signer.verifier.name, size, root)))


def checkpoints_in(text: str) -> Sequence[Checkpoint]:
    """Every signed checkpoint that stands in a text: a file of them, or a mail that quotes one."""
    plain = _IN_A_MAIL.sub("", text.replace("\r\n", "\n"))
    if not plain.endswith("\n"):
        plain += "\n"
    found = []
    for match in _NOTE_IN_TEXT.finditer(plain):
        try:
            found.append(Checkpoint.parse(match[0]))
        except NoteError:
            continue  # text that only looks like one; the caller says when none is left
    return found

"""The header of one package as rpm's database keeps it: an index of 16-byte entries, then their data.
Counterpart: `packages` asks who owns a path, the voucher of `sources.integrity` what a file should be."""

# The header format, regions and tags of rpm's manual (rpm.org, "RPM V4 Package format", "Immutable header regions").
from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Collection
from contextlib import suppress

NAME, VERSION, RELEASE, DIGESTS, LINKS, FLAGS = 1000, 1001, 1002, 1035, 1036, 1037
DIR_INDEXES, BASE_NAMES, DIR_NAMES, ALGORITHM = 1116, 1117, 1118, 5011
MODES, USERS, GROUPS = 1030, 1039, 1040
_DSA, _RSA, _OPENPGP, _IMMUTABLE = 267, 268, 278, 63
_INT16, _INT32, _STRING, _BINARY, _STRING_ARRAY, _I18N = 3, 4, 6, 7, 8, 9
_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
_TRAILER = 16

Tags = dict[int, list[bytes | int]]


def read_header(blob: bytes, wanted: Collection[int]) -> Tags:
    """The wanted tags of it: numbers and texts; nothing of one that is damaged."""
    tags: Tags = {}
    if len(blob) < 8:
        return tags
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    if start + size > len(blob):
        return tags
    for number in range(entries):
        tag, kind, offset, count = struct.unpack_from(">IIII", blob, 8 + 16 * number)
        if tag not in wanted:
            continue
        data = blob[start + offset :]
        if kind == _INT32 and 4 * count <= len(data):
            tags[tag] = list(struct.unpack_from(f">{count}I", data))
        elif kind == _INT16 and 2 * count <= len(data):
            tags[tag] = list(struct.unpack_from(f">{count}H", data))
        elif kind == _BINARY and count <= len(data):
            tags[tag] = [data[:count]]
        elif kind in (_STRING, _STRING_ARRAY, _I18N):
            tags[tag] = list(data.split(b"\0", count)[:count])
    return tags


def as_signed(blob: bytes) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Of a header that rpm's database keeps: the part that came in the package, as a header of its own; the bytes that
    were signed of it; and the signatures over them (OpenPGP packets). All empty where it has no such part.

    What rpm added to it later (when it was installed, say) stands behind that part and is in nobody's signature.
    """
    nothing = b"", b"", ()
    if len(blob) < 24:
        return nothing
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    tag, kind, offset, count = struct.unpack_from(">IIII", blob, 8)
    if (tag, kind, count) != (_IMMUTABLE, _BINARY, _TRAILER) or start + size > len(blob) or offset + _TRAILER > size:
        return nothing
    tag, kind, back, count = struct.unpack_from(">IIiI", blob, start + offset)
    own, odd = divmod(-back, 16)
    if (tag, kind, count) != (_IMMUTABLE, _BINARY, _TRAILER) or odd or not 0 < own <= entries:
        return nothing
    length = offset + _TRAILER
    part = struct.pack(">II", own, length) + blob[8 : 8 + 16 * own] + blob[start : start + length]
    found = read_header(blob, (_DSA, _RSA, _OPENPGP))
    signatures = [one for tag in (_RSA, _DSA) for one in found.get(tag, []) if isinstance(one, bytes)]
    for text in found.get(_OPENPGP, []):
        with suppress(binascii.Error, TypeError):
            signatures.append(base64.b64decode(text))  # type: ignore[arg-type]
    return part, _MAGIC + part, tuple(signatures)

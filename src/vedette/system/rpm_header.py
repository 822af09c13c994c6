"""The header of one package as rpm's database keeps it: an index of 16-byte entries, then their data.
Counterpart: `packages` asks who owns a path, the voucher of `sources.integrity` what a file should be."""

# The header format and tags of rpm's manual (rpm.org, "RPM V4 Package format").
from __future__ import annotations

import struct
from collections.abc import Collection

NAME, VERSION, RELEASE, DIGESTS, LINKS, FLAGS = 1000, 1001, 1002, 1035, 1036, 1037
DIR_INDEXES, BASE_NAMES, DIR_NAMES, ALGORITHM = 1116, 1117, 1118, 5011
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9

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
        elif kind in (_STRING, _STRING_ARRAY, _I18N):
            tags[tag] = list(data.split(b"\0", count)[:count])
    return tags

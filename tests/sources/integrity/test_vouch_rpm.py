"""A database of rpm with one package, as rpm lays it out: what fits is a hint, what does not is contradicted.
Counterpart: vouch_rpm.py."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_rpm import RpmVoucher

GOOD, BAD = b"tool 1\n", b"tool I\n"
FILES = [
    # folder, name, digest, link, flags
    ("/usr/bin/", "tool", hashlib.sha256(GOOD).hexdigest(), "", 0),
    ("/etc/", "tool.conf", hashlib.sha256(GOOD).hexdigest(), "", 1),
    ("/usr/bin/", "t", "", "tool", 0),
    ("/var/lib/", "state", hashlib.sha256(GOOD).hexdigest(), "", 64),
]


def header(algorithm: int = 8) -> bytes:
    folders = sorted({one[0] for one in FILES})
    texts = {
        1000: (6, ["tool"]), 1001: (6, ["1.0"]), 1002: (6, ["3.el9"]),
        1035: (8, [one[2] for one in FILES]), 1036: (8, [one[3] for one in FILES]),
        1117: (8, [one[1] for one in FILES]), 1118: (8, folders),
    }  # fmt: skip
    numbers = {1037: [one[4] for one in FILES], 1116: [folders.index(one[0]) for one in FILES], 5011: [algorithm]}
    index, data = b"", b""
    for tag in sorted(texts.keys() | numbers.keys()):
        if tag in texts:
            kind, values = texts[tag]
            index += struct.pack(">IIII", tag, kind, len(data), len(values))
            data += b"".join(value.encode() + b"\0" for value in values)
        else:
            data += bytes(-len(data) % 4)
            index += struct.pack(">IIII", tag, 4, len(data), len(numbers[tag]))
            data += struct.pack(f">{len(numbers[tag])}I", *numbers[tag])
    return struct.pack(">II", len(index) // 16, len(data)) + index + data


def database(root: Path, algorithm: int = 8) -> RpmVoucher:
    path = root / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.execute("CREATE TABLE Basenames (key TEXT, hnum INTEGER, idx INTEGER)")
        connection.execute("INSERT INTO Packages VALUES (1, ?)", (header(algorithm),))
        connection.executemany("INSERT INTO Basenames VALUES (?, 1, ?)", [(one[1], at) for at, one in enumerate(FILES)])
    return RpmVoucher(root, patience=0)


def said(asked: RpmVoucher, root: Path, path: str, content: bytes = b"", target: bytes = b"") -> Vouching | None:
    kind = FileType.SYMLINK if target else FileType.FILE
    digest = b"" if target else hashlib.sha256(content).digest()
    entry = Entry(os.fsencode(root) + path.encode(), kind, 0o755, 0, 0, 0, 0, 0, 0, 0, 1, target, digest)
    (answer,) = asked.vouch([Change(ChangeKind.CHANGED, entry.path, after=entry)])
    return answer


@pytest.mark.parametrize(
    ("path", "content", "target", "verdict"),
    [
        ("/usr/bin/tool", GOOD, b"", Verdict.HINT),
        ("/bin/tool", GOOD, b"", Verdict.HINT),
        ("/usr/bin/tool", BAD, b"", Verdict.CONTRADICTED),
        ("/usr/sbin/tool", BAD, b"", None),
        ("/etc/tool.conf", BAD, b"", None),
        ("/etc/tool.conf", GOOD, b"", Verdict.HINT),
        ("/usr/bin/t", b"", b"tool", Verdict.HINT),
        ("/usr/bin/t", b"", b"/tmp/tool", Verdict.CONTRADICTED),
        ("/var/lib/state", BAD, b"", None),
        ("/usr/bin/other", GOOD, b"", None),
    ],
)
def test_what_the_database_says(
    tmp_path: Path, path: str, content: bytes, target: bytes, verdict: Verdict | None
) -> None:
    one = said(database(tmp_path), tmp_path, path, content, target)
    assert (one and one.verdict) is verdict
    if one is not None:
        assert (one.package, one.version) == ("tool", "1.0-3.el9")
        assert not one.lowers


def test_old_digests_say_nothing_and_neither_does_what_is_no_database(tmp_path: Path) -> None:
    assert said(database(tmp_path / "md5", algorithm=1), tmp_path / "md5", "/usr/bin/tool", BAD) is None
    assert said(RpmVoucher(tmp_path / "none"), tmp_path / "none", "/usr/bin/tool", BAD) is None
    asked = database(tmp_path / "broken")
    (tmp_path / "broken/usr/lib/sysimage/rpm/rpmdb.sqlite").write_bytes(bytes(9000))
    assert said(asked, tmp_path / "broken", "/usr/bin/tool", BAD) is None

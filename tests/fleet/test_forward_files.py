"""The raw copy is whole, in its place, and there once, also after a crash in the middle of a file.
Counterpart: vedette.fleet.forward_files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.forwarding import HOST, Put, Shelves

from vedette.fleet.forward_files import FilesForward, escaped
from vedette.fleet.forward_settings import FilesTarget

DAY = "2026-11-24"


def target(folder: Path, compress: str = "none") -> FilesForward:
    made = {"type": "files", "name": "copy", "folder": str(folder / "tree"), "compress": compress}
    return FilesForward(FilesTarget.model_validate(made), folder / "copy.intent")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_records_lie_by_day_host_and_stream_byte_for_byte(tmp_path: Path) -> None:
    shelves, copy = Shelves(), target(tmp_path)
    group = [shelves.add("audit", b"a\0\xff", b""), shelves.add("file:/var/log/x", b"b"), shelves.add("audit", b"c")]
    assert await copy.send(group, 0) == 0
    assert tree(tmp_path / "tree") == {
        f"{DAY}/{HOST}/audit.log": b"a\0\xff\n\nc\n",
        f"{DAY}/{HOST}/file:%2Fvar%2Flog%2Fx.log": b"b\n",
    }


@pytest.mark.parametrize("compress", ["none", "gz"])
async def test_what_a_crash_left_half_done_is_taken_back(tmp_path: Path, compress: str) -> None:
    shelves = Shelves()
    first, second = shelves.add("audit", b"one" * 50), shelves.add("audit", b"two" * 50)
    await target(tmp_path, compress).send([first], 0)
    await target(tmp_path, compress).send([second], 1)
    [file] = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    # The cursor did not move, and of what was written a part is missing.
    file.write_bytes(file.read_bytes()[:-5])
    await target(tmp_path, compress).send([second, shelves.add("audit", b"three")], 1)
    await target(tmp_path, compress).send([shelves.add("audit", b"four")], 3)
    raw = file.read_bytes() if compress == "none" else gzip.decompress(file.read_bytes())
    assert raw == b"one" * 50 + b"\n" + b"two" * 50 + b"\nthree\nfour\n"


async def test_a_link_laid_there_is_not_followed(tmp_path: Path) -> None:
    shelves, copy = Shelves(), target(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    place = tmp_path / "tree" / DAY / HOST
    place.mkdir(parents=True)
    (place / "audit.log").symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"audit\.log"):
        await copy.send([shelves.add("audit", b"x")], 0)
    assert elsewhere.read_bytes() == b"mine"


async def test_names_of_others_lead_nowhere(tmp_path: Path) -> None:
    shelves, copy = Shelves(), target(tmp_path)
    names = ["../../up", "..", ".", "", "/etc/passwd", "a\nb\x1b[31m", "x" * 5000]
    group: list[Put] = [shelves.add(name, b"x", host=name) for name in names]
    await copy.send(group, 0)
    there = tree(tmp_path)
    del there["copy.intent"]
    assert len(there) == len(names)
    assert all(name.startswith(f"tree/{DAY}/") and name.isprintable() for name in there)


@given(st.text())
def test_an_escaped_name_is_one_plain_component(name: str) -> None:
    text = escaped(name)
    assert text.isascii()
    assert text.isprintable()
    assert "/" not in text
    assert not text.startswith(".")
    assert 0 < len(text) <= 200

"""A backup of what is in use, its restore on a bare machine, and archives that are torn, altered or hostile.
Counterpart: vedette.app.backup, vedette.app.sealing."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from vedette.app import sealing
from vedette.app.backup import CONFIGURATION, FORMAT, backup, inspect, restore
from vedette.app.host import STATE_FILE, Lock, host_id, is_running, prepare_folder
from vedette.model.errors import StateError
from vedette.store.state import State
from vedette.testing.clock import START

PASSPHRASE = "six random words make one"


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key's cost is a number in the archive; tests take a small one."""
    monkeypatch.setattr(sealing.Sealing, "new", classmethod(lambda cls: cls(b"0123456789abcdef".hex(), n=16)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as a hub has it, with a lake whose list is a database."""
    folder = prepare_folder(tmp_path / "data")
    host_id(folder)
    State(folder / STATE_FILE).close()
    (folder / "fleet").mkdir(mode=0o700)
    (folder / "fleet" / "ca.pem").write_bytes(b"key" * 100_000)
    (folder / "spool").mkdir()
    (folder / "spool" / "segment").write_bytes(b"waits")
    (folder / "lake" / "day=2026-11-24").mkdir(parents=True)
    (folder / "lake" / "day=2026-11-24" / "1-9.parquet").write_bytes(b"PAR1 records")
    with closing(sqlite3.connect(folder / "lake" / "manifest.db")) as connection:
        connection.execute("CREATE TABLE files (name TEXT)")
        connection.commit()
    return folder


def written(data: Path, *, passphrase: str = "", lake: bool = False) -> Path:
    config = data.parent / "vedette.yml"
    config.write_text("version: 1\n")
    to = data.parent / "hub.vedette"
    backup(
        data,
        to,
        now=START,
        host="hub",
        configuration={"vedette.yml": config},
        lake=lake,
        passphrase=passphrase,
    )
    return to


def made(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_in_use_comes_back_as_it_was(data: Path, tmp_path: Path):
    lock = Lock(data)
    lock.take()
    try:
        # Committed, but only in the log beside the database: a plain copy of the file would not have it.
        with closing(sqlite3.connect(data / STATE_FILE)) as connection:
            connection.execute("INSERT INTO cursors (source, cursor) VALUES ('journal', 'here')")
            connection.commit()
            archive = written(data)
    finally:
        lock.close()
    assert archive.stat().st_mode & 0o777 == 0o600
    target = tmp_path / "bare"
    manifest, done = restore(archive, target, user="root")
    assert (manifest.host, manifest.created, done.files) == ("hub", START, len(manifest.files))
    found = made(target)
    assert set(found) == {"host-id", STATE_FILE, "fleet/ca.pem", "lake/manifest.db", f"{CONFIGURATION}/vedette.yml"}
    assert found["fleet/ca.pem"] == b"key" * 100_000
    assert host_id(target) == host_id(data)
    assert target.stat().st_mode & 0o777 == 0o700
    state = State(target / STATE_FILE)
    try:
        assert state.cursors() == {"journal": "here"}
    finally:
        state.close()
    assert prepare_folder(target) == target
    assert not is_running(target)


def test_the_records_of_the_event_store_are_taken_where_asked_for(data: Path, tmp_path: Path):
    restore(written(data, lake=True), tmp_path / "bare", user="root")
    assert (tmp_path / "bare/lake/day=2026-11-24/1-9.parquet").read_bytes() == b"PAR1 records"


def test_a_sealed_archive_opens_with_its_passphrase_alone(data: Path, tmp_path: Path):
    archive = written(data, passphrase=PASSPHRASE)
    assert b"keykey" not in archive.read_bytes()
    assert "fleet/ca.pem" in inspect(archive, passphrase=PASSPHRASE).files
    for wrong in ("", "another one of that length"):
        with pytest.raises(StateError, match="seal"):
            restore(archive, tmp_path / "bare", passphrase=wrong, user="root")
    assert not (tmp_path / "bare").exists()


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_a_torn_or_altered_archive_leaves_nothing_behind(data: Path, tmp_path: Path, passphrase: str):
    archive = written(data, passphrase=passphrase)
    whole = archive.read_bytes()
    header = whole.index(b"\n") + 1
    broken = [whole[: header + (len(whole) - header) * part // 8] for part in range(8)]
    if passphrase:
        # Without a seal, what stands behind the last file (zeros, a checksum of what was compared already) may be cut.
        broken += [whole[:-1], whole[:-16]]
    for at in (header, (header + len(whole)) // 2, len(whole) - 1):
        broken.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    before = set(tmp_path.iterdir())
    for content in broken:
        archive.write_bytes(content)
        with pytest.raises(StateError):
            restore(archive, tmp_path / "bare", passphrase=passphrase, user="root")
        assert set(tmp_path.iterdir()) == before


def hostile(
    path: Path, files: dict[str, bytes], members: list[tuple[tarfile.TarInfo, bytes]], *, version: int = 1
) -> Path:
    """An archive by somebody else's hand: what its manifest says, and what follows."""
    manifest = {
        "format": FORMAT,
        "version": 1,
        "program": "0",
        "created": 1,
        "host": "x",
        "lake": False,
        "files": {
            name: {"size": len(content), "sha256": sha256(content).hexdigest(), "mode": 0o600}
            for name, content in files.items()
        },
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for member, content in [(tarfile.TarInfo("manifest.json"), json.dumps(manifest).encode()), *members]:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    head = json.dumps({"format": FORMAT, "version": version, "sealing": None}).encode() + b"\n"
    path.write_bytes(head + zstandard.compress(raw.getvalue()))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    ("files", "members", "said"),
    [
        ({"../evil": b"x"}, [(tarfile.TarInfo("../evil"), b"x")], "names the file"),
        ({"/evil": b"x"}, [(tarfile.TarInfo("/evil"), b"x")], "names the file"),
        ({"a/../../evil": b"x"}, [(tarfile.TarInfo("a/../../evil"), b"x")], "names the file"),
        ({"a": b"x", "a/b": b"x"}, [], "inside a file"),
        ({"a": b""}, [(link("a", "/etc/passwd"), b"")], "no plain file"),
        ({"a": b"x"}, [(tarfile.TarInfo("b"), b"x")], "not what its manifest says"),
        ({"a": b"x"}, [(tarfile.TarInfo("a"), b"x" * 5000)], "not what its manifest says"),
        ({"a": b"x"}, [(tarfile.TarInfo("a"), b"y")], "altered"),
        ({"a": b"x"}, [(tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a"), b"x")], "not what its manifest says"),
        ({"a": b"x", "b": b"x"}, [(tarfile.TarInfo("a"), b"x")], "1 files are missing"),
    ],
)
def test_a_hostile_archive_is_refused(
    tmp_path: Path, files: dict[str, bytes], members: list[tuple[tarfile.TarInfo, bytes]], said: str
):
    archive = hostile(tmp_path / "archive", files, members)
    with pytest.raises(StateError, match=said):
        restore(archive, tmp_path / "in" / "bare", user="root")
    assert set(tmp_path.rglob("*")) == {archive, tmp_path / "in"}


def test_versions_and_keys_that_cannot_be_are_refused(tmp_path: Path):
    archive = hostile(tmp_path / "archive", {}, [], version=2)
    with pytest.raises(StateError, match="version 2"):
        inspect(archive)
    for n, salt in ((1 << 30, "00" * 16), (3, "00" * 16), (16, "00")):
        head = {"format": FORMAT, "version": 1, "sealing": {"salt": salt, "n": n, "r": 8, "p": 1}}
        archive.write_text(json.dumps(head) + "\n")
        with pytest.raises(StateError, match="no archive of ours"):
            inspect(archive, passphrase=PASSPHRASE)


def test_a_folder_with_something_in_it_is_left_alone(data: Path):
    archive = written(data)
    before = made(data)
    with pytest.raises(StateError, match="not empty"):
        restore(archive, data, user="root")
    assert made(data) == before


def test_where_there_is_no_state_nothing_is_written(tmp_path: Path):
    with pytest.raises(StateError, match="no state"):
        backup(tmp_path / "none", tmp_path / "archive", now=START, host="hub", configuration={})
    assert list(tmp_path.iterdir()) == []

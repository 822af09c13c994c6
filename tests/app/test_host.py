from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from vedette.app.host import Lock, give_to, host_id, is_running, prepare_folder
from vedette.model.errors import StateError
from vedette.respond.allowlist import write_allowlist
from vedette.store.state import State

NOBODY = 65_534


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_data_folder_and_all_in_it_are_closed_to_others(tmp_path: Path):
    folder = prepare_folder(tmp_path / "data")
    host_id(folder)
    Lock(folder).take()
    State(folder / "state.db").close()
    write_allowlist(folder / "allowlist", [])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes(folder) == {"host-id": 0o600, "lock": 0o600, "state.db": 0o600, "allowlist": 0o600}


def test_a_lock_of_an_earlier_version_is_closed_too(tmp_path: Path):
    (tmp_path / "lock").touch(0o644)
    lock = Lock(tmp_path)
    lock.take()
    assert modes(tmp_path) == {"lock": 0o600}
    lock.close()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_data_folder_leads_to_no_other_file(tmp_path: Path, link):
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    folder = prepare_folder(tmp_path / "data")
    for name in ("lock", "host-id", "state.db", "allowlist"):
        link(victim, folder / name)
    with pytest.raises(StateError):
        Lock(folder)
    with pytest.raises(StateError):
        host_id(folder)
    with pytest.raises(StateError):
        State(folder / "state.db")
    write_allowlist(folder / "allowlist", [])
    assert not is_running(folder)
    assert victim.read_text() == "precious\n"


def test_a_host_id_is_not_written_where_a_dangling_link_leads(tmp_path: Path):
    os.symlink(tmp_path / "elsewhere", tmp_path / "host-id")
    with pytest.raises(StateError, match="host id"):
        host_id(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path):
    tmp_path.chmod(0o755)
    (tmp_path / "passwd").touch(0o644)
    with pytest.raises(StateError, match="other files"):
        prepare_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_mount_point_is_an_empty_folder(tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    assert prepare_folder(tmp_path) == tmp_path


def test_looking_whether_it_runs_makes_nothing_and_keeps_nobody_out(tmp_path: Path):
    assert not is_running(tmp_path)
    assert list(tmp_path.iterdir()) == []
    lock = Lock(tmp_path)
    looker = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    with pytest.raises(StateError, match="another vedette"):
        lock.take()
    os.close(looker)
    lock = Lock(tmp_path)
    lock.take()
    assert is_running(tmp_path)
    with pytest.raises(StateError, match="another vedette"):
        Lock(tmp_path).take()
    lock.close()
    lock.close()
    assert not is_running(tmp_path)


@pytest.mark.root
def test_a_folder_of_a_third_user_is_refused_by_root(tmp_path: Path):
    os.chown(tmp_path, 12_345, 12_345)
    with pytest.raises(StateError, match="belongs to 12345"):
        prepare_folder(tmp_path, "nobody")
    os.chown(tmp_path, NOBODY, NOBODY)
    assert prepare_folder(tmp_path, "nobody") == tmp_path


@pytest.mark.root
def test_only_plain_files_that_root_made_are_given_away(tmp_path: Path):
    victim, folder = tmp_path / "victim", tmp_path / "data"
    victim.touch()
    folder.mkdir()
    for name in ("state.db", "theirs"):
        (folder / name).touch()
    os.chown(folder / "theirs", 12_345, 12_345)
    os.symlink(victim, folder / "symbolic")
    os.link(victim, folder / "hard")
    os.mkfifo(folder / "pipe")
    give_to(folder, NOBODY, NOBODY)
    owners = {path.name: path.lstat().st_uid for path in [victim, *folder.iterdir()]}
    assert owners == {"victim": 0, "state.db": NOBODY, "theirs": 12_345, "symbolic": 0, "hard": 0, "pipe": 0}

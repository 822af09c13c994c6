from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from tests.sources.ports.fake_host import OWN, FakeHost

from vedette.system.namespaces import inside, network_namespaces, process_ids


def test_namespaces_are_found_by_who_lives_in_them_and_by_the_files_that_keep_them(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.process(10)
    fake.process(7, namespace=99)
    fake.process(8, namespace=99)
    kept = fake.root / "run/netns/blue"
    kept.touch()
    found, unread = network_namespaces(fake.root)
    assert unread == 0
    assert [(one.inode, one.name, one.own, one.pids) for one in found] == sorted(
        [
            (OWN, "", True, (10,)),
            (99, "net:[99]", False, (7, 8)),
            (kept.stat().st_ino, "blue", False, ()),
        ],
        key=lambda one: (not one[2], one[0]),
    )
    by_name = {one.name: one for one in found}
    assert by_name["blue"].entrance == kept
    assert by_name["net:[99]"].entrance == fake.root / "proc/7/ns/net"


def test_a_process_that_does_not_say_where_it_lives_is_counted(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    folder = fake.process(10)
    (folder / "ns" / "net").unlink()
    (folder / "ns" / "net").mkdir()  # readlink of what is no link: refused, as far as anybody can tell
    found, unread = network_namespaces(fake.root)
    assert ([one.inode for one in found], unread) == ([OWN], 1)


def test_processes_are_those_with_a_number(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.process(10)
    fake.process(9)
    (fake.root / "proc" / "\u0663").mkdir()
    assert process_ids(fake.root) == [9, 10]


def test_nobody_gets_inside_of_what_is_no_namespace(tmp_path: Path):
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        inside(tmp_path / "gone", lambda: None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as caught:
        inside(tmp_path / "file", lambda: None)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)
    assert threading.active_count() == before

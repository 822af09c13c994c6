from __future__ import annotations

from pathlib import Path

import pytest
from tests.sources.ports.fake_host import BOOT, FakeHost

from vedette.system.processes import boot_time, process, socket_holders, unit_of, user_names


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/nc.service\n", "nc.service"),
        ("0::/system.slice/docker-0123abc.scope\n", "docker-0123abc.scope"),
        ("0::/system.slice/nginx.service/worker\n", "nginx.service"),
        ("12:cpu:/other.service\n1:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service"),
        ("0::/user.slice\n", ""),
        ("0::/\n", ""),
        ("", ""),
        ("no such line", ""),
    ],
)
def test_the_unit_is_the_innermost_one_that_is_no_slice(cgroup: str, unit: str):
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize("name", [b"sshd", b"a) S 1 (b", b"(", b")", b"x\n y", b"\xff"])
def test_a_name_may_look_like_the_rest_of_its_line(tmp_path: Path, name: bytes):
    fake = FakeHost(tmp_path / "root")
    fake.process(10, name, uid=33, ticks=200)
    found = process(10, fake.root)
    assert found is not None
    assert (found.name, found.uid, found.since) == (name, 33, (BOOT + 2) * 1_000_000)
    assert (found.executable, found.unit, found.own_files) == ("/usr/sbin/sshd", "ssh.service", True)


def test_of_a_container_the_executable_says_nothing_here(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    (tmp_path / "image").mkdir()
    fake.process(10, files=tmp_path / "image")
    found = process(10, fake.root)
    assert found is not None
    assert (found.executable, found.own_files) == ("", False)


def test_an_executable_that_was_replaced_keeps_its_name(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.process(10, executable="/usr/sbin/sshd (deleted)")
    found = process(10, fake.root)
    assert found is not None
    assert found.executable == "/usr/sbin/sshd"


def test_what_is_gone_or_damaged_is_none(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    assert process(10, fake.root) is None
    (fake.process(11) / "stat").write_text("nothing")
    assert process(11, fake.root) is None
    (fake.root / "proc" / "stat").unlink()
    fake.process(12)
    found = process(12, fake.root)
    assert found is not None
    assert (found.since, boot_time(fake.root)) == (0, 0)


def test_who_holds_a_socket_and_whose_descriptors_cannot_be_read(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.process(10, sockets=[1, 2])
    fake.process(11, sockets=[2, 3])
    folder = fake.process(12)
    (folder / "fd" / "0").unlink()
    (folder / "fd").rmdir()
    (folder / "fd").touch()
    found = socket_holders([2, 3, 4], fake.root)
    assert (found.by_inode, found.unread) == ({2: [10, 11], 3: [11]}, 1)


def test_users_are_those_of_the_file(tmp_path: Path):
    assert user_names(FakeHost(tmp_path / "root").root) == {0: "root", 33: "www-data"}
    assert user_names(tmp_path / "nowhere") == {}

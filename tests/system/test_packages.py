from __future__ import annotations

from pathlib import Path

from tests.sources.ports.fake_host import FakeHost

from vedette.system.packages import owners


def test_a_file_is_of_the_package_that_lists_it_whole(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.package("openssh-server:amd64", "/usr/sbin/sshd", "/lib/x/y")
    fake.package("other", "/usr/sbin/sshd-extra")
    asked = ["/usr/sbin/sshd", "/sbin/sshd", "/usr/lib/x/y", "/usr/sbin/ssh", "/usr/sbin/sshd-extr", ""]
    assert owners(asked, fake.root) == {
        "/usr/sbin/sshd": "openssh-server",
        "/sbin/sshd": "openssh-server",
        "/usr/lib/x/y": "openssh-server",
    }


def test_a_database_of_rpm_is_read_as_it_lies(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.rpm("nginx-core", "/usr/sbin/", "nginx", "nginx-debug")
    asked = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/sbin/nginx-debug"]
    assert owners(asked, fake.root) == {"/usr/sbin/nginx": "nginx-core", "/usr/sbin/nginx-debug": "nginx-core"}


def test_a_database_that_is_none_says_nothing(tmp_path: Path):
    fake = FakeHost(tmp_path / "root")
    fake.rpm("nginx-core", "/usr/sbin/", "nginx")
    (fake.root / "usr/lib/sysimage/rpm/rpmdb.sqlite").write_bytes(b"\0" * 9000)
    assert owners(["/usr/sbin/nginx"], fake.root) == {}

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources.ports.fake_host import BOOT, FakeHost

from vedette.model.ports import Listener, Protocol, UnreadWhy
from vedette.sources.ports.inside import look_inside
from vedette.system.bound_sockets import BoundSocket
from vedette.testing.clock import FakeClock


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "root")


def listeners(fake: FakeHost) -> list[Listener]:
    return list(look_inside("web", FakeClock(), fake.root).view().listeners)


def test_a_listener_is_told_with_everything_that_is_known_of_it(fake: FakeHost):
    fake.socket("0.0.0.0", 22, 1001)
    fake.process(12, sockets=[1001], ticks=1234)
    fake.package("openssh-server", "/usr/sbin/sshd")
    (found,) = listeners(fake)
    assert found == Listener(
        "web", "0.0.0.0", 22, Protocol.TCP, process="sshd", pid=12, user="root", unit="ssh.service",
        package="openssh-server", since=BOOT * 1_000_000 + 12_340_000,
    )  # fmt: skip


def test_what_listens_and_what_does_not(fake: FakeHost):
    fake.socket("127.0.0.1", 25, 1)
    fake.socket("192.0.2.1", 443, 2, state=1)
    fake.socket("2001:db8::1", 80, 3)
    fake.socket("::ffff:192.0.2.1", 81, 4)
    fake.socket("0.0.0.0", 53, 5, table="udp")
    fake.socket("0.0.0.0", 5353, 6, table="udp", state=1)
    assert [(one.address, one.port, one.protocol.value) for one in listeners(fake)] == [
        ("127.0.0.1", 25, "tcp"),
        ("0.0.0.0", 53, "udp"),
        ("2001:db8::1", 80, "tcp"),
        ("192.0.2.1", 81, "tcp"),
    ]


def test_a_socket_on_any_address_takes_ipv4_unless_another_one_does(fake: FakeHost):
    fake.socket("::", 80, 1)
    fake.socket("::", 22, 2)
    fake.socket("0.0.0.0", 22, 3)
    assert [(one.address, one.port, one.dual) for one in listeners(fake)] == [
        ("0.0.0.0", 22, False),
        ("::", 22, False),
        ("::", 80, True),
    ]


def test_of_several_that_hold_a_socket_it_is_the_oldest_and_not_the_one_that_only_opened_it(fake: FakeHost):
    fake.socket("0.0.0.0", 80, 1)
    fake.process(1, b"systemd", sockets=[1], ticks=1)
    fake.process(40, b"nginx", sockets=[1], ticks=90, uid=33)
    fake.process(30, b"nginx", sockets=[1], ticks=80)
    assert [(one.process, one.pid) for one in listeners(fake)] == [("nginx", 30)]


def test_a_socket_that_waits_for_its_service_is_systemds(fake: FakeHost):
    fake.socket("0.0.0.0", 80, 1)
    fake.process(1, b"systemd", sockets=[1], unit="init.scope")
    assert [(one.process, one.unit) for one in listeners(fake)] == [("systemd", "init.scope")]


def test_workers_that_share_a_port_are_one_listener_and_different_users_are_not(fake: FakeHost):
    for inode in (1, 2, 3):
        fake.socket("0.0.0.0", 80, inode)
        fake.process(100 + inode, b"nginx", sockets=[inode], ticks=100 + inode, uid=33 if inode == 3 else 0)
    assert [(one.user, one.pid) for one in listeners(fake)] == [("root", 101), ("www-data", 103)]


def test_every_namespace_is_looked_into_and_has_its_name(fake: FakeHost, tmp_path: Path):
    fake.socket("0.0.0.0", 22, 1)
    fake.process(10, sockets=[1])
    container = tmp_path / "container"
    container.mkdir()
    fake.process(20, b"nginx", namespace=77, uid=33, sockets=[2], files=container, unit="docker-abc.scope")
    fake.socket("0.0.0.0", 80, 2, namespace=77)
    fake.process(30, b"named", namespace=(fake.root / "run/netns").stat().st_ino, sockets=[3])
    fake.package("nginx-light", "/usr/sbin/sshd")
    found = listeners(fake)
    assert [(one.namespace, one.port) for one in found] == [("", 22), ("net:[77]", 80)]
    # Of a container's files neither users nor packages are those of the host.
    assert (found[1].user, found[1].package, found[1].unit) == ("33", "", "docker-abc.scope")
    assert (found[0].user, found[0].package) == ("root", "nginx-light")


def test_a_namespace_nobody_can_look_into_is_counted(fake: FakeHost):
    (fake.root / "run/netns/left").touch()
    found = look_inside("web", FakeClock(), fake.root)
    assert found.unread == {UnreadWhy.NAMESPACE: 1}
    assert not found.view().complete
    assert found.view().knows_own_ports


def test_what_ends_while_it_is_looked_at_is_left_out(fake: FakeHost, monkeypatch: pytest.MonkeyPatch):
    fake.socket("0.0.0.0", 22, 1)
    fake.process(10, sockets=[1])
    monkeypatch.setattr(
        "vedette.sources.ports.inside.process", lambda pid, root: shutil.rmtree(root / "proc" / str(pid))
    )
    found = look_inside("web", FakeClock(), fake.root)
    (listener,) = found.view().listeners
    assert (listener.port, listener.process, listener.user, listener.pid) == (22, "", "root", 0)
    assert found.unread == {UnreadWhy.HOLDER: 1}
    assert found.view().complete


NAMES = st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name)


@settings(max_examples=30)
@given(NAMES, st.text(max_size=20))
def test_names_that_processes_choose_themselves_reach_nobody_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, name: bytes, unit: str
):
    fake = FakeHost(tmp_path_factory.mktemp("host") / "root")
    fake.socket("0.0.0.0", 22, 1)
    folder = fake.process(10, name, sockets=[1])
    (folder / "cgroup").write_bytes(f"0::/system.slice/{unit}.service\n".encode("utf-8", "replace"))
    (found,) = listeners(fake)
    assert found.pid == 10
    assert found.since == BOOT * 1_000_000 + 5_000_000
    assert found.process.isprintable() or not any(ord(one) < 32 or ord(one) == 127 for one in found.process)
    assert "\n" not in found.unit
    assert "\x1b" not in found.process + found.unit


@settings(max_examples=40)
@given(st.lists(st.text(alphabet="0123456789ABCDEF: \n", max_size=60), max_size=5))
def test_a_table_that_is_damaged_is_read_as_far_as_it_can_be(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
):
    fake = FakeHost(tmp_path_factory.mktemp("host") / "root")
    fake.socket("0.0.0.0", 22, 1)
    table = fake.root / "proc/self/net/tcp"
    table.write_text(table.read_text() + "\n".join(lines))
    assert (22, "0.0.0.0") in [(one.port, one.address) for one in listeners(fake)]


def test_a_device_that_somebody_gave_any_bytes_for_a_name_can_be_told(monkeypatch: pytest.MonkeyPatch):
    bound = BoundSocket("tcp", "0.0.0.0", 7777, 0, 0, False, "d\udcff\n")
    monkeypatch.setattr("vedette.system.bound_sockets.ask_kernel", lambda: [bound])
    view = look_inside("web", FakeClock()).view()
    assert {one.device for one in view.listeners} == {"d\\xff\\x0a"}
    assert b"7777" in msgspec.json.encode(view)

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from vedette.system import bound_sockets
from vedette.system.bound_sockets import BoundSocket, ask_kernel, read_tables

NET = Path("/proc/self/net")


@pytest.fixture
def made() -> Iterator[dict[str, socket.socket]]:
    """Sockets of every sort on ports the kernel picked."""
    sockets = {
        "four": socket.create_server(("127.0.0.1", 0)),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "connected": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "bound": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    }
    if socket.has_dualstack_ipv6():
        sockets["dual"] = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        sockets["six"] = socket.create_server(("::", 0), family=socket.AF_INET6)
    sockets["udp"].bind(("127.0.0.1", 0))
    sockets["bound"].bind(("127.0.0.1", 0))
    sockets["connected"].connect(("127.0.0.1", sockets["udp"].getsockname()[1]))
    yield sockets
    for one in sockets.values():
        one.close()


def test_the_kernel_and_its_tables_say_the_same_of_what_listens(made: dict[str, socket.socket]):
    ports = {name: one.getsockname()[1] for name, one in made.items()}
    asked = {(one.transport, one.port): one for one in ask_kernel()}
    read = {(one.transport, one.port): one for one in read_tables(NET)}
    for found in (asked, read):
        four = found["tcp", ports["four"]]
        assert (four.address, four.dual, four.device) == ("127.0.0.1", False, "")
        assert found["udp", ports["udp"]].address == "127.0.0.1"
        assert ("udp", ports["connected"]) not in found
        assert ("tcp", ports["bound"]) not in found
    inode = int(Path(f"/proc/self/fd/{made['four'].fileno()}").readlink().name[8:-1])
    assert asked["tcp", ports["four"]].inode == read["tcp", ports["four"]].inode == inode
    if "dual" in made:
        assert [asked["tcp", ports[name]].dual for name in ("dual", "six")] == [True, False]
        assert [read["tcp", ports[name]].dual for name in ("dual", "six")] == [None, None]


def test_addresses_and_routes_are_those_of_the_namespace(tmp_path: Path):
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.0\n        /8 host LOCAL\n     |-- 127.0.0.1\n"
        "        /32 host LOCAL\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.2\n"
        "        /24 link UNICAST\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text(f"{'0' * 31}1 01 80 10 80       lo\nfd{'0' * 29}2 04 40 00 82     eth0\n")
    assert bound_sockets.addresses(tmp_path) == {"127.0.0.1", "192.0.2.2", "::1", "fd00::2"}
    (tmp_path / "ipv6_route").write_text(
        f"fd{'0' * 30} 40 {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001     eth0\n"
        f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"
    )
    assert bound_sockets.routes(tmp_path) == ((ip_network("fd00::/64"), "eth0"),)
    assert bound_sockets.addresses(tmp_path / "nowhere") == frozenset()


def test_an_address_of_ipv4_in_a_table_of_ipv6_is_one_of_ipv4(tmp_path: Path):
    row = "   0: 0000000000000000FFFF0000{}:0050 {}:0000 0A 0:0 00:0 0 33 0 7 1 0"
    native = f"{int.from_bytes(bytes((192, 0, 2, 1)), sys.byteorder):08X}"
    (tmp_path / "tcp").write_text("head\n")
    (tmp_path / "udp").write_text("head\n")
    (tmp_path / "tcp6").write_text("head\n" + row.format(native, "0" * 32) + "\n")
    assert read_tables(tmp_path) == [BoundSocket("tcp", "192.0.2.1", 80, 7, 33, False)]

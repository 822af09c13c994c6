"""The checks for rootkits on the running machine: real processes, interfaces and flags, and ours that are none.
Counterpart: sources/rootkit; tests/sources/rootkit has what a file tree can play."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.scenarios.parts.processes import wait_until

from vedette.sources.rootkit.files import Known, Walk, walk_files
from vedette.sources.rootkit.processes import hidden_processes, lost_executables, preloaded_libraries
from vedette.sources.rootkit.sockets import hidden_ports
from vedette.sources.rootkit.traces import Look, TraceKind
from vedette.system import bound_sockets

pytestmark = pytest.mark.root

IN_NAMESPACES = ("unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-c")


@contextmanager
def running(argv: list[str], *, executable: str | None = None, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, executable=executable, stdout=subprocess.PIPE, **more) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def subjects(look: Look, kind: TraceKind) -> dict[str, int]:
    return {one.subject: one.fields.get("process.pid", 0) for one in look.traces if one.kind is kind}


def test_this_machine_hides_neither_processes_nor_ports() -> None:
    look = Look()
    with socket.create_server(("127.0.0.1", 0)), socket.socket() as bound, socket.socket(type=socket.SOCK_DGRAM) as udp:
        bound.bind(("127.0.0.1", 0))  # bound, and nobody listens
        udp.bind(("127.0.0.1", 0))
        hidden_processes(look)
        hidden_ports(look)
    assert look.traces == []
    assert look.blind == {}


def test_a_process_under_a_mount_is_seen() -> None:
    """A real /proc with a real mount over a process's folder, in a mount namespace of its own."""
    script = """
import os, subprocess, sys
from vedette.sources.rootkit.processes import hidden_processes
from vedette.sources.rootkit.traces import Look
victim = subprocess.Popen(["sleep", "600"])
try:
    os.makedirs(sys.argv[1], exist_ok=True)
    subprocess.run(["mount", "--bind", sys.argv[1], f"/proc/{victim.pid}"], check=True)
    look = Look()
    hidden_processes(look)
    print([one.subject for one in look.traces] == [f"pid {victim.pid}"], look.traces, look.blind)
finally:
    victim.kill()
    victim.wait()
"""
    folder = Path("/tmp") / f"vedette-rootkit-{os.getpid()}"
    try:
        ended = subprocess.run([*IN_NAMESPACES, script, str(folder)], capture_output=True, text=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.stdout.startswith("True"), (ended.stdout, ended.stderr)


def test_a_program_whose_file_is_gone_and_one_that_was_replaced(scratch: Path) -> None:
    scratch.chmod(0o755)
    program = scratch / "quiet"
    shutil.copy("/bin/sleep", program)
    with running([str(program), "600"]) as process:
        wait_until("it runs", lambda: os.path.realpath(f"/proc/{process.pid}/exe") == str(program))
        before = Look()
        lost_executables(before)
        assert process.pid not in subjects(before, TraceKind.DELETED_EXECUTABLE).values()
        program.unlink()
        look = Look()
        lost_executables(look)
    assert subjects(look, TraceKind.DELETED_EXECUTABLE)[str(program)] == process.pid


def test_a_program_that_runs_from_memory_alone() -> None:
    descriptor = os.memfd_create("kworker/0:1")
    try:
        os.write(descriptor, Path("/bin/sleep").read_bytes())
        path = f"/proc/self/fd/{descriptor}"
        with running(["[kworker/0:1]", "600"], executable=path, pass_fds=(descriptor,)) as process:
            wait_until("it runs", lambda: os.readlink(f"/proc/{process.pid}/exe").startswith("/memfd:"))
            look = Look()
            lost_executables(look)
    finally:
        os.close(descriptor)
    (found,) = [one for one in look.traces if one.fields.get("process.pid") == process.pid]
    assert found.kind is TraceKind.MEMORY_EXECUTABLE
    assert found.subject.startswith("memory ")
    assert "kworker" in found.detail


def test_a_library_in_the_environment_of_a_program(scratch: Path) -> None:
    library = next(Path("/lib/x86_64-linux-gnu").glob("libz.so.1.*"))
    copy = scratch / "libhook.so"
    shutil.copy(library, copy)
    environment = {**os.environ, "LD_PRELOAD": str(copy)}
    with running(["sleep", "600"], env=environment) as process:
        wait_until("it is loaded", lambda: str(copy) in Path(f"/proc/{process.pid}/maps").read_text())
        look = Look()
        preloaded_libraries(look)
    assert subjects(look, TraceKind.PRELOADED_LIBRARY)[str(copy)] == process.pid


def test_a_real_interface_that_takes_everything() -> None:
    script = """
import subprocess
from vedette.sources.rootkit.sockets import promiscuous_interfaces
from vedette.sources.rootkit.traces import Look
def found():
    look = Look()
    promiscuous_interfaces(look)
    return sorted((one.subject, one.level.label) for one in look.traces)
def ip(*words):
    subprocess.run(["ip", "link", *words], check=True)
ip("add", "watched", "type", "veth", "peer", "name", "port")
ip("add", "bridge0", "type", "bridge")
print(found())
ip("set", "watched", "promisc", "on")
ip("set", "port", "master", "bridge0")
print(found())
ip("set", "watched", "promisc", "off")
print(found())
"""
    ended = subprocess.run([*IN_NAMESPACES, script], capture_output=True, text=True)
    assert ended.stdout.splitlines() == [
        "[]",
        "[('port', 'informational'), ('watched', 'medium')]",
        "[('port', 'informational')]",
    ], ended.stderr


def test_a_port_that_one_list_does_not_show() -> None:
    """A real listener, and a list that lies about it as a rootkit makes it lie."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        look = Look()
        hidden_ports(
            look,
            asked=lambda: [one for one in bound_sockets.ask_kernel() if one.port != port],
            ports=range(port, port + 1),
        )
    assert [one.subject for one in look.traces] == [f"{port}/tcp"]


def test_a_port_that_no_list_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = bound_sockets.read_tables
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(bound_sockets, "read_tables", lambda net: [one for one in kept(net) if one.port != port])
        monkeypatch.setattr("vedette.sources.rootkit.sockets._every_local_port", lambda net: set())
        look = Look()
        hidden_ports(
            look,
            asked=lambda: [one for one in bound_sockets.ask_kernel() if one.port != port],
            ports=range(port, port + 1),
        )
    assert [(one.subject, one.detail) for one in look.traces] == [
        (f"{port}/tcp", "it is taken, and no list of the kernel shows it")
    ]


def test_an_immutable_file(scratch: Path) -> None:
    file = scratch / "etc/resolv.conf"
    file.parent.mkdir()
    file.touch()
    subprocess.run(["chattr", "+i", str(file)], check=True)
    try:
        look = Look()
        walk_files(look, Known(), Walk(scratch))
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
    assert subjects(look, TraceKind.IMMUTABLE_FILE) == {"/etc/resolv.conf": 0}
    again = Look()
    walk_files(again, Known(), Walk(scratch))
    assert again.traces == []


def test_a_real_ld_so_preload_in_a_root_of_its_own(scratch: Path) -> None:
    """In a mount namespace with another /etc/ld.so.preload, which the loader really heeds."""
    library = next(Path("/lib/x86_64-linux-gnu").glob("libz.so.1.*"))
    copy = scratch / "libevil.so"
    shutil.copy(library, copy)
    script = """
import subprocess, sys
from pathlib import Path
from vedette.sources.rootkit.processes import preloaded_libraries
from vedette.sources.rootkit.traces import Look
scratch, library = Path(sys.argv[1]), sys.argv[2]
layers = f"lowerdir=/etc,upperdir={scratch}/upper,workdir={scratch}/work"
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, "/etc"], check=True)
Path("/etc/ld.so.preload").write_text(library + chr(10))
maps = subprocess.run(["cat", "/proc/self/maps"], capture_output=True, text=True, check=True).stdout
look = Look()
preloaded_libraries(look)
print(library in maps, [(one.subject, one.level.label) for one in look.traces if one.subject == library])
"""
    (scratch / "upper").mkdir()
    (scratch / "work").mkdir()
    ended = subprocess.run([*IN_NAMESPACES, script, str(scratch), str(copy)], capture_output=True, text=True)
    assert ended.stdout.strip() == f"True [('{copy}', 'critical')]", (ended.stdout, ended.stderr)


def test_threads_of_real_programs_are_not_hidden() -> None:
    script = """
import threading, time
for _ in range(20):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print(1, flush=True)
time.sleep(600)
"""
    with running([sys.executable, "-c", script]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(os.listdir(f"/proc/{process.pid}/task")) > 20
        look = Look()
        hidden_processes(look)
    assert look.traces == []
    assert ctypes.CDLL(None).kill(process.pid, 0) != 0

"""Proves the namespaces: they reach each other from every address, end their programs and leave nothing.
Counterpart: parts/netns.py and parts/processes.py."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.scenarios.parts import netns
from tests.scenarios.parts.netns import NetLab, Wire
from tests.scenarios.parts.nft import greeting
from tests.scenarios.parts.processes import PartError, Processes, run, wait_until

pytestmark = pytest.mark.root

_ECHO = (
    "import socket\n"
    "s = socket.create_server(('::', 7777), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "while True:\n"
    "    c, peer = s.accept()\n"
    "    c.sendall(peer[0].encode()); c.close()\n"
)


def _existing() -> str:
    return run(["ip", "netns", "list"])


def _alive(pid: int) -> bool:
    # An orphan stays as a zombie where the first process of the machine does not reap.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_address_of_the_cast_reaches_the_server_as_itself(wire: Wire):
    wire.server.start([sys.executable, "-c", _ECHO])
    wait_until("the echo", lambda: ":7777" in wire.server.run(["ss", "-Hltn"]))
    for source in (netns.ATTACKER, *netns.ATTACKERS[:2], netns.LEGITIMATE):
        assert greeting(wire.world, source, netns.SERVER, 7777) == f"::ffff:{source}"
    for source in (netns.ATTACKER6, netns.LEGITIMATE6):
        assert greeting(wire.world, source, netns.SERVER6, 7777) == source
    assert greeting(wire.world, netns.ATTACKER, netns.SERVER, 7778) == "refused"


def test_the_victim_can_never_send_anything(wire: Wire):
    with pytest.raises(PartError, match="Cannot assign requested address"):
        greeting(wire.world, netns.VICTIM, netns.SERVER, 22)


@pytest.mark.usefixtures("namespaces")
def test_closing_ends_programs_and_their_children_and_deletes_everything(scratch: Path):
    lab = NetLab(scratch)
    wire = lab.wire()
    parent = wire.server.start(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
            "print(child.pid, flush=True)\n"
            "child.wait()\n",
        ]
    )
    wait_until("the child", lambda: parent.stdout.endswith("\n"))
    child = int(parent.stdout)
    assert _alive(child)
    lab.close()
    assert not _alive(child)
    assert not _alive(parent.pid)
    assert wire.server.name not in _existing()
    assert wire.world.name not in _existing()


def test_a_killed_runs_namespace_is_swept_and_a_live_ones_is_not(lab: NetLab):
    mine = lab.namespace()
    gone = subprocess.Popen(["true"])
    gone.wait()
    orphan = f"vdt{gone.pid:x}-0"
    run(["ip", "netns", "add", orphan])
    folder = Path(tempfile.mkdtemp(prefix=f"vdt-{gone.pid:x}-"))
    (folder / "left").touch()
    swept = netns.sweep()
    assert {orphan, folder.name} <= set(swept)
    assert orphan not in _existing()
    assert not folder.exists()
    assert mine.name in _existing()
    assert lab.folder.exists()


def test_a_program_that_fails_says_what_it_complained_about():
    with pytest.raises(PartError, match=r"exit 3: no use"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('no use'); sys.exit(3)"])


def test_a_program_dies_with_the_run_that_started_it(scratch: Path, project: Path):
    script = (
        "import pathlib, sys, time\n"
        "from tests.scenarios.parts.processes import Processes\n"
        "print(Processes(pathlib.Path(sys.argv[1])).start(['sleep', '600']).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(scratch)]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        assert _alive(pid)
        runner.kill()
    wait_until("its end", lambda: not _alive(pid))


def test_kill_is_sudden_and_close_is_patient(processes: Processes):
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    first, second = (processes.start([sys.executable, "-u", "-c", script]) for _ in range(2))
    wait_until("both", lambda: first.stdout == second.stdout == "up\n")
    first.kill()
    second.close()
    assert (first.poll(), first.stdout) == (-9, "up\n")
    assert (second.poll(), second.stdout) == (0, "up\nbye\n")

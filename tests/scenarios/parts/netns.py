"""Network namespaces joined by veth pairs, with documentation addresses, always taken down again.
Counterpart: sshd.py and attacker.py live in them, nft.py reads the kernel sets inside."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import TypeVar

from .processes import FOLDER_PREFIX, PartError, Process, Processes, run, wait_until

_PREFIX = "vdt"
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_serial = itertools.count()

# The scenario's cast (RFC 5737, RFC 3849, RFC 2544). The victim is planted in hostile text and never connects.
SERVER = "192.0.2.1"
SERVER6 = "2001:db8:1::1"
ATTACKER = "198.51.100.7"
ATTACKER6 = "2001:db8:7::7"
ATTACKERS = tuple(f"198.51.100.{last}" for last in range(10, 20))
LEGITIMATE = "198.18.0.20"
LEGITIMATE6 = "2001:db8:20::20"
VICTIM = "203.0.113.9"


class Namespace:
    """One network namespace. `start` and `run` execute a program inside it (`ip netns exec`, same pid)."""

    def __init__(self, name: str, processes: Processes) -> None:
        self.name = name
        self._processes = processes

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The argument vector that runs `argv` inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 30.0) -> str:
        """Run to the end; output. `PartError` unless exit 0 (or `check=False`)."""
        return run(self.argv(argv), stdin=stdin, check=check, timeout=timeout)

    def start(
        self, argv: Sequence[str], *, name: str | None = None, env: Mapping[str, str] | None = None, stdin: bool = False
    ) -> Process:
        """Start in the background; ended with the lab at the latest."""
        return self._processes.start(self.argv(argv), name=name or Path(argv[0]).name, env=env, stdin=stdin)

    def inside(self, call: Callable[[], T]) -> T:
        """Call it in a thread that is inside: sockets it opens and threads it starts stay there."""
        results: list[T] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as space:
                    if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                results.append(call())
            except BaseException as failure:  # noqa: BLE001 (raised again in the caller's thread)
                failures.append(failure)

        thread = threading.Thread(target=work, name=f"inside-{self.name}")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def ip(self, *arguments: str) -> None:
        """`ip -n THIS ...`."""
        run(["ip", "-n", self.name, *arguments])

    def set_knob(self, name: str, value: str) -> None:
        """Write /proc/sys/`name`, which shows the namespace of the process that opens it."""
        self.run(["tee", f"/proc/sys/{name}"], stdin=value)

    def pids(self) -> list[int]:
        """Processes that live in this namespace now (all of them are ours: the namespace is)."""
        return [int(pid) for pid in run(["ip", "netns", "pids", self.name]).split()]


@dataclass(frozen=True)
class Wire:
    """The usual pair: `server` (SERVER, SERVER6) and `world`, which owns every other address of the cast.

    Both reach each other over IPv4 and IPv6; a client in `world` picks who it is by its source address.
    """

    server: Namespace
    world: Namespace
    server_device: str
    world_device: str


class NetLab:
    """Makes namespaces and links of one test; `close` ends every process inside and deletes them.

    Names hold our pid and a running number, so parallel runs do not meet and a killed run's leftovers are known.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder / "processes")
        self._namespaces: list[Namespace] = []

    def namespace(self) -> Namespace:
        """A new namespace with its loopback up."""
        name = f"{_PREFIX}{os.getpid():x}-{next(_serial):x}"
        run(["ip", "netns", "add", name])
        made = Namespace(name, self.processes)
        self._namespaces.append(made)
        made.ip("link", "set", "lo", "up")
        # The link-local address, from which a router asks for neighbours, is else unusable for a second or two.
        for scope in ("all", "default"):
            made.set_knob(f"net/ipv6/conf/{scope}/accept_dad", "0")
        return made

    def link(
        self, left: Namespace, right: Namespace, left_addresses: Sequence[str], right_addresses: Sequence[str]
    ) -> tuple[str, str]:
        """Join two namespaces by a veth pair; addresses as `ADDR/LEN`. Returns both device names."""
        number = next(_serial)
        left_device, right_device = f"{_PREFIX}{number:x}l", f"{_PREFIX}{number:x}r"
        left.ip("link", "add", left_device, "type", "veth", "peer", "name", right_device, "netns", right.name)
        for space, device, addresses in ((left, left_device, left_addresses), (right, right_device, right_addresses)):
            for address in addresses:
                # nodad: an IPv6 address is otherwise unusable for a second after it was set.
                extra = ["nodad"] if ip_interface(address).version == 6 else []
                space.ip("address", "add", address, "dev", device, *extra)
            space.ip("link", "set", device, "up")
        return left_device, right_device

    def wire(self) -> Wire:
        """The usual pair, see `Wire`."""
        server, world = self.namespace(), self.namespace()
        people4 = [f"{ATTACKER}/32", *(f"{one}/32" for one in ATTACKERS), f"{LEGITIMATE}/32"]
        people6 = [f"{ATTACKER6}/128", f"{LEGITIMATE6}/128"]
        server_device, world_device = self.link(server, world, [f"{SERVER}/32", f"{SERVER6}/128"], [*people4, *people6])
        for space, device in ((server, server_device), (world, world_device)):
            space.ip("route", "add", "default", "dev", device)
            space.ip("-6", "route", "add", "default", "dev", device)
        # The first packet would otherwise be lost to neighbour discovery on a device that is not up on both sides yet.
        for space, device in ((server, server_device), (world, world_device)):
            wait_until(f"{device} up", lambda s=space, d=device: _carrier(s, d))  # type: ignore[misc]
        return Wire(server, world, server_device, world_device)

    def close(self) -> None:
        """End all processes inside, then delete the namespaces (their devices vanish with them)."""
        self.processes.close()
        failures = []
        while self._namespaces:
            try:
                _delete(self._namespaces.pop())
            except PartError as failure:
                failures.append(str(failure))
        if failures:
            raise PartError("; ".join(failures))


def _carrier(space: Namespace, device: str) -> bool:
    return "state UP" in run(["ip", "-n", space.name, "-o", "link", "show", "dev", device])


def _delete(space: Namespace) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in space.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(PartError):
            wait_until(f"{space.name} empty", lambda: not space.pids(), timeout=3.0)
            break
    run(["ip", "netns", "delete", space.name])


def sweep() -> list[str]:
    """Delete namespaces and scratch folders whose maker is gone (a test run that was killed); returns their names."""
    swept = []
    for line in run(["ip", "netns", "list"]).splitlines():
        name = line.split()[0]
        if _maker_is_gone(name, rf"{_PREFIX}([0-9a-f]+)-"):
            _delete(Namespace(name, Processes(Path("/tmp"))))
            swept.append(name)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        if _maker_is_gone(folder.name, rf"{FOLDER_PREFIX}([0-9a-f]+)-"):
            for place in reversed(_mounted_in(folder)):
                run(["umount", "--lazy", place])
            run(["rm", "-r", "--one-file-system", "--", str(folder)])
            swept.append(folder.name)
    return swept


def _mounted_in(folder: Path) -> list[str]:
    """Mount points below, in the order in which they were mounted (proc_pid_mountinfo(5))."""
    places = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [place for place in places if place.startswith(f"{folder}/")]


def _maker_is_gone(name: str, pattern: str) -> bool:
    found = re.match(pattern, name)
    return found is not None and not Path(f"/proc/{int(found[1], 16)}").exists()


def available() -> str | None:
    """None where namespaces can be made, else why not (for skipping with a reason)."""
    if os.geteuid() != 0:
        return "needs root"
    probe = f"{_PREFIX}{os.getpid():x}-p{next(_serial):x}"
    try:
        done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "needs iproute2"
    if done.returncode != 0:
        return f"cannot make a network namespace: {done.stderr.strip()}"
    run(["ip", "netns", "delete", probe])
    return None

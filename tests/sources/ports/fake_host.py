"""A made-up host: a folder with the parts of /proc, /run, /etc and /var that the inside view reads.
Counterpart: `vedette.sources.ports.inside` and `vedette.system`, which are given its root."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

BOOT = 1_700_000_000
"""When it started, seconds UTC."""
OWN = 4026531840
_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@dataclass
class FakeHost:
    """Processes and sockets are added one by one; the first namespace is the one we are in."""

    root: Path
    rows: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in ("proc/self/ns", "run/netns", "etc", "var/lib/dpkg/info"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "proc" / "stat").write_text(f"cpu 1 2 3\nbtime {BOOT}\n")
        (self.root / "etc" / "passwd").write_text("root:x:0:0:::\nwww-data:x:33:33:::\nbroken line\n")
        self._lives_in(self.root / "proc" / "self", OWN)

    def process(
        self,
        pid: int,
        name: bytes = b"sshd",
        *,
        namespace: int = OWN,
        uid: int = 0,
        unit: str = "ssh.service",
        executable: str = "/usr/sbin/sshd",
        sockets: Sequence[int] = (),
        ticks: int = 500,
        files: Path | None = None,
    ) -> Path:
        """A process that holds sockets of these inodes; files: its root, where that is not the host's."""
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        fields = " ".join(["S", "1", *["0"] * 17, str(ticks), "0", "0"])
        (folder / "stat").write_bytes(str(pid).encode() + b" (" + name + b") " + fields.encode() + b"\n")
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (folder / "cgroup").write_text(f"1:name=systemd:/old\n0::/system.slice/{unit}\n")
        (folder / "exe").symlink_to(executable)
        (folder / "root").symlink_to(files or self.root)
        for number, inode in enumerate(sockets, 3):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (folder / "fd" / "0").symlink_to("/dev/null")
        self._lives_in(folder, namespace)
        return folder

    def socket(
        self,
        address: str,
        port: int,
        inode: int,
        *,
        table: str = "tcp",
        state: int = 0,
        uid: int = 0,
        namespace: int = OWN,
    ) -> None:
        """A row of /proc/net/`table`; state: by default the one that listens."""
        packed = ip_address(address).packed
        table += "6" if len(packed) == 16 else ""
        words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
        text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
        state = state or (10 if table.startswith("tcp") else 7)
        row = f"   0: {text}:{port:04X} {'0' * len(text)}:0000 {state:02X} 0:0 00:0 0 {uid:5} 0 {inode} 1 0\n"
        self.rows.setdefault((namespace, table), []).append(row)
        for folder in (self.root / "proc").iterdir():
            link = folder / "ns" / "net"
            if link.is_symlink() and str(link.readlink()) == f"net:[{namespace}]":
                self._tables(folder, namespace)

    def package(self, name: str, *paths: str) -> None:
        """A package of dpkg with these files."""
        text = "/.\n/usr\n" + "".join(f"{path}\n" for path in paths)
        (self.root / "var/lib/dpkg/info" / f"{name}.list").write_text(text)

    def rpm(self, name: str, folder: str, *files: str) -> None:
        """A package of rpm, in a database of its newer kind."""
        path = self.root / "usr/lib/sysimage/rpm/rpmdb.sqlite"
        path.parent.mkdir(parents=True)
        data, index = b"", b""
        entries = (
            (1000, 6, 1, name.encode() + b"\0"),
            (1116, 4, len(files), struct.pack(f">{len(files)}I", *[0] * len(files))),
            (1117, 8, len(files), b"".join(one.encode() + b"\0" for one in files)),
            (1118, 8, 1, folder.encode() + b"\0"),
        )
        for tag, kind, count, said in entries:
            data += b"\0" * (-len(data) % 4)
            index += struct.pack(">IIII", tag, kind, len(data), count)
            data += said
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
            database.execute("CREATE TABLE Basenames (key TEXT, hnum INTEGER, idx INTEGER)")
            blob = struct.pack(">II", len(entries), len(data)) + index + data
            database.execute("INSERT INTO Packages VALUES (7, ?)", (blob,))
            database.executemany("INSERT INTO Basenames VALUES (?, 7, 0)", [(one,) for one in files])
        database.close()

    def _lives_in(self, folder: Path, namespace: int) -> None:
        (folder / "ns").mkdir(exist_ok=True)
        (folder / "ns" / "net").symlink_to(f"net:[{namespace}]")
        self._tables(folder, namespace)

    def _tables(self, folder: Path, namespace: int) -> None:
        (folder / "net").mkdir(exist_ok=True)
        for table in ("tcp", "tcp6", "udp", "udp6"):
            rows = self.rows.get((namespace, table), [])
            (folder / "net" / table).write_text(_HEAD + "".join(rows))

"""Three ways a host writes down what sshd says: a socket of ours, a real rsyslog, a real systemd-journald.
Counterpart: sshd.py points its /dev/log at the `devlog` of one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from .netns import Namespace
from .processes import PartError, Process, Processes, run, wait_until

_PRIVATE_ROOT = Path(__file__).with_name("private_root.py")

Header = Literal["rfc3164", "rfc3339"]


class SyslogSocket:
    """A datagram socket that writes an auth.log as syslog daemons do, each line with one `write`, at once.

    `rfc3164` keeps the sender's stamp (`Nov 24 02:53:13 HOST sshd[1]: ...`); `rfc3339` puts the time of arrival
    with microseconds and offset. Control characters become `#ooo` as in rsyslog; other bytes stay as they are.
    `arrivals` holds (time in microseconds UTC, line without newline) for measuring from the log line on.
    """

    def __init__(self, devlog: Path, output: Path, *, header: Header = "rfc3164", host: str = "bastion") -> None:
        self.devlog = devlog
        self.output = output
        self.arrivals: list[tuple[int, bytes]] = []
        self._header = header
        self._host = host.encode()
        self._file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(devlog))
        devlog.chmod(0o666)
        self._thread = threading.Thread(target=self._collect, name="syslog-socket", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        while True:
            datagram = self._socket.recv(65536)
            if not datagram:
                return
            now = time.time_ns() // 1000
            line = self._line(datagram, now)
            self.arrivals.append((now, line))
            os.write(self._file, line + b"\n")

    def _line(self, datagram: bytes, now: int) -> bytes:
        _, _, rest = datagram.rstrip(b"\n\0").partition(b">")
        stamp, message = rest[:15], rest[16:]
        if self._header == "rfc3339":
            stamp = datetime.fromtimestamp(now / 1e6).astimezone().isoformat(timespec="microseconds").encode()
        message = b"".join(b"#%03o" % byte if byte < 32 or byte == 127 else bytes([byte]) for byte in message)
        return stamp + b" " + self._host + b" " + message

    def reopen(self) -> None:
        """Go on in a new file at `output`, as a syslog daemon does on SIGHUP after logrotate renamed the old one."""
        old, self._file = self._file, os.open(self.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        os.close(old)

    def lines(self) -> list[bytes]:
        """Lines written so far, without newlines."""
        return [line for _, line in list(self.arrivals)]

    def close(self) -> None:
        """Stop; everything received before is on file."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ender:
            ender.connect(str(self.devlog))
            ender.send(b"")
        self._thread.join(10)
        self._socket.close()
        self.devlog.unlink(missing_ok=True)
        os.close(self._file)


class Rsyslog:
    """A real rsyslogd that reads `devlog` and writes `output`, traditional or RFC 3339 header.

    `reduce_repeats` turns on `message repeated N times`. Needs the package rsyslog.
    """

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        devlog: Path,
        output: Path,
        *,
        header: Header = "rfc3339",
        reduce_repeats: bool = False,
    ) -> None:
        self.devlog = devlog
        self.output = output
        folder.mkdir(parents=True, exist_ok=True)
        template = "RSYSLOG_TraditionalFileFormat" if header == "rfc3164" else "RSYSLOG_FileFormat"
        configuration = folder / "rsyslog.conf"
        configuration.write_text(
            f"$RepeatedMsgReduction {'on' if reduce_repeats else 'off'}\n"
            f'global(workDirectory="{folder}")\n'
            'module(load="imuxsock" SysSock.Use="off")\n'
            # Its default limit, 200 lines in 5 s of one pid, would make a test red once in a while.
            f'input(type="imuxsock" Socket="{devlog}" CreatePath="on" RateLimit.Interval="0")\n'
            f'auth,authpriv.* action(type="omfile" file="{output}" template="{template}")\n'
        )
        self.process = processes.start(
            ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid")], name="rsyslogd"
        )
        wait_until("rsyslogd's socket", lambda: devlog.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise PartError(f"rsyslogd ended: {self.process.stderr}")
        devlog.chmod(0o666)

    def close(self) -> None:
        """End it; it writes what it holds first."""
        self.process.close()


class Forwarder:
    """A real rsyslogd in `namespace` that reads `devlog` and sends everything to `host`:`port`, as `omfwd` does.

    udp: RFC 3164 as rsyslog forwards it by itself; tcp: RFC 5424, octet-counted.
    """

    def __init__(
        self, namespace: Namespace, folder: Path, protocol: Literal["udp", "tcp"], host: str, port: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.devlog = folder / "devlog"
        template = "RSYSLOG_TraditionalForwardFormat" if protocol == "udp" else "RSYSLOG_SyslogProtocol23Format"
        framing = ' TCP_Framing="octet-counted"' if protocol == "tcp" else ""
        configuration = folder / "rsyslog.conf"
        configuration.write_text(
            f'global(workDirectory="{folder}")\n'
            'module(load="imuxsock" SysSock.Use="off")\n'
            f'input(type="imuxsock" Socket="{self.devlog}" CreatePath="on" RateLimit.Interval="0")\n'
            f'*.* action(type="omfwd" target="{host}" port="{port}" protocol="{protocol}"{framing} '
            f'template="{template}" action.resumeRetryCount="-1" action.resumeInterval="1")\n'
        )
        self.process = namespace.start(
            ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid")], name="rsyslogd"
        )
        wait_until("rsyslogd's socket", lambda: self.devlog.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise PartError(f"rsyslogd ended: {self.process.stderr}")
        self.devlog.chmod(0o666)

    def close(self) -> None:
        """End it; it sends what it holds first."""
        self.process.close()


class RelpSender:
    """A real rsyslogd that reads `devlog` and sends everything to 127.0.0.1:`port` by RELP, as `omrelp` does.

    Its queue lies in memory, and it tries for ever. Needs the package rsyslog-relp.
    """

    def __init__(self, processes: Processes, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.devlog = folder / "devlog"
        configuration = folder / "rsyslog.conf"
        configuration.write_text(
            f'global(workDirectory="{folder}")\n'
            'module(load="imuxsock" SysSock.Use="off")\n'
            'module(load="omrelp")\n'
            f'input(type="imuxsock" Socket="{self.devlog}" CreatePath="on" RateLimit.Interval="0")\n'
            f'*.* action(type="omrelp" target="127.0.0.1" port="{port}" windowSize="50" '
            'action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList")\n'
        )
        self.process = processes.start(
            ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid")], name="rsyslogd"
        )
        wait_until("rsyslogd's socket", lambda: self.devlog.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise PartError(f"rsyslogd ended: {self.process.stderr}")

    def close(self) -> None:
        """End it."""
        self.process.close()


class SyslogReceiver:
    """A real rsyslogd that takes octet-counted TCP on 127.0.0.1:`port` and writes what it understood to `output`.

    A line: priority, time, host, program, process id, message, with `|` between them. Made again with the same
    folder and its port it is a restarted daemon.
    """

    def __init__(self, processes: Processes, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "received"
        written = folder / "port"
        written.unlink(missing_ok=True)
        configuration = folder / "rsyslog.conf"
        fields = ("pri", "timereported:::date-rfc3339", "hostname", "app-name", "procid", "msg")
        line = "|".join(f"%{field}%" for field in fields)
        configuration.write_text(
            f'global(workDirectory="{folder}")\n'
            'module(load="imtcp")\n'
            f'template(name="seen" type="string" string="{line}\\n")\n'
            f'input(type="imtcp" address="127.0.0.1" port="{port}" listenPortFileName="{written}")\n'
            f'*.* action(type="omfile" file="{self.output}" template="seen")\n'
        )
        self.process = processes.start(
            ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid")], name="rsyslogd"
        )

        def listening() -> bool:
            if port:
                with socket.socket() as asking:
                    return asking.connect_ex(("127.0.0.1", port)) == 0
            return written.exists() and bool(written.read_text())

        wait_until("rsyslogd's port", lambda: listening() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise PartError(f"rsyslogd ended: {self.process.stderr}")
        self.port = port or int(written.read_text())

    def lines(self) -> list[bytes]:
        """What it wrote so far; of its own it says nothing more than that it started or ended."""
        found = self.output.read_bytes().splitlines() if self.output.exists() else []
        return [line for line in found if b"|rsyslogd|" not in line]

    def close(self) -> None:
        """End it; it writes what it holds first."""
        self.process.close()


class Journald:
    """A real systemd-journald in a mount namespace of its own, writing under `journal_folder`/MACHINE-ID/.

    `devlog` takes syslog datagrams (sshd), `socket` the native protocol; trusted fields (_PID, _UID, _EXE) are real.
    `_SYSTEMD_UNIT` is missing where the machine does not run systemd. journald syncs at once only above `crit`,
    but readers see entries without a sync. Made again with the same folders it is a restarted daemon: same `devlog`,
    same journal, a new file when the old one was not closed in order.
    """

    machine_id = "c0ffee00c0ffee00c0ffee00c0ffee00"

    def __init__(
        self, processes: Processes, folder: Path, journal_folder: Path, *, options: Sequence[str] = ()
    ) -> None:
        self.folder = journal_folder
        journal_folder.mkdir(parents=True, exist_ok=True)
        run_folder = folder / "run"
        if (run_folder / "dev").exists():
            # A restart: /run stays, as on a host, for the daemon keeps its sequence numbers there.
            run(["rm", "-r", "--one-file-system", "--", str(run_folder / "dev")])
        (run_folder / "systemd" / "journal").mkdir(parents=True, exist_ok=True)
        # Where this file is, journald writes to disk from the start instead of to /run/log until told to flush.
        (run_folder / "systemd" / "journal" / "flushed").touch()
        log_folder = folder / "log"
        (log_folder / "journal").mkdir(parents=True, exist_ok=True)
        (folder / "machine-id").write_text(self.machine_id + "\n")
        (folder / "journald.conf").write_text(
            "[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\nSyncIntervalSec=1s\n"
            + "".join(f"{option}\n" for option in options)
        )
        layout = {
            "run": str(run_folder),
            "run_folders": ["log"],
            "devlog": "/run/systemd/journal/dev-log",
            "binds": [
                [str(log_folder), "/var/log"],
                [str(journal_folder), "/var/log/journal"],
                [str(folder / "machine-id"), "/etc/machine-id"],
                [str(folder / "journald.conf"), "/etc/systemd/journald.conf"],
            ],
            "exec": ["/lib/systemd/systemd-journald"],
        }
        (folder / "layout.json").write_text(json.dumps(layout))
        self.process: Process = processes.start(
            ["unshare", "-m", sys.executable, str(_PRIVATE_ROOT), str(folder / "layout.json")], name="journald"
        )
        self.devlog = run_folder / "systemd" / "journal" / "dev-log"
        self.socket = run_folder / "systemd" / "journal" / "socket"
        wait_until("journald", lambda: self._ready() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise PartError(f"journald ended: {self.process.stderr}")

    def _files(self) -> int:
        return len(list(self.folder.glob("*/*.journal")))

    def _ready(self) -> bool:
        # It takes SIGUSR1 and SIGUSR2 from a descriptor once it blocks them; before that they would end it.
        try:
            program = os.readlink(f"/proc/{self.process.pid}/exe")
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:
            return False
        if not program.endswith("/systemd-journald"):
            return False
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        return bool(blocked >> (signal.SIGUSR2 - 1) & 1) and self._files() > 0

    def rotate(self) -> None:
        """Close the current file and begin a new one, as `journalctl --rotate` does."""
        before = self._files()
        self.process.signal(signal.SIGUSR2)
        wait_until("a rotated journal file", lambda: self._files() > before)

    def entries(self) -> list[dict[str, object]]:
        """All entries as `journalctl -o json` gives them, an independent reader to compare with."""
        output = run(["journalctl", "-D", str(self.folder), "-o", "json", "--no-pager", "-q"])
        return [json.loads(line) for line in output.splitlines() if line]

    def close(self) -> None:
        """End it; the files stay readable."""
        self.process.close()


def missing(*programs: str) -> str | None:
    """None when all programs are installed, else which one is not (for skipping with a reason)."""
    lacking = [program for program in programs if shutil.which(program) is None and not Path(program).exists()]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def log_as(devlog: Path, message: str, *, tag: str = "sshd") -> None:
    """What any local user can do: `logger -t sshd` into that socket."""
    # Without --socket-errors a socket that nobody reads is no error.
    subprocess.run(
        ["logger", "--socket-errors=on", "-u", str(devlog), "-t", tag, "-p", "auth.info", "--", message], check=True
    )

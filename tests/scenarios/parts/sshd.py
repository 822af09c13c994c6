"""A real OpenSSH server in a namespace, with users of its own that the machine never sees.
Counterpart: attacker.py talks to it, syslogs.py writes down what it logs."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncssh

from .netns import Namespace
from .processes import PartError, Process, run, wait_until

_PRIVATE_ROOT = Path(__file__).with_name("private_root.py")
_FIRST_UID = 20000


@dataclass(frozen=True)
class User:
    """An account of that server only. No password: none works. `expired` and `locked` are the shadow file's."""

    name: str
    password: str | None = None
    keys: tuple[str, ...] = ()
    shell: str = "/bin/sh"
    locked: bool = False
    expired: bool = False


@cache
def password_hash(password: str) -> str:
    """SHA-512 crypt of a password, with the fewest rounds (a test's CPU is not for hashing)."""
    # Python's own module is deprecated and the program openssl is not everywhere; libcrypt is, for login needs it.
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode(), b"$6$rounds=1000$vedettetest$")
    if not isinstance(hashed, bytes) or not hashed.startswith(b"$6$"):
        raise PartError("libcrypt cannot make a SHA-512 hash")
    return hashed.decode()


class Sshd:
    """A running sshd. Give either `error_log` (`-E FILE`: lines without header) or `devlog` (a syslog socket).

    Default options: UsePAM no, PasswordAuthentication yes, KbdInteractiveAuthentication no, UseDNS no,
    LogLevel VERBOSE, MaxStartups 200:30:400. `options` adds to or replaces them; a list value repeats the keyword.
    `root_password` gives root a password (and PermitRootLogin yes unless options say otherwise).
    The port is 22 by default: the namespace is the test's own. `hosts` (address -> name) becomes /etc/hosts there:
    what sshd takes for DNS.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        users: Sequence[User],
        *,
        error_log: Path | None = None,
        devlog: Path | None = None,
        options: Mapping[str, str | Sequence[str]] | None = None,
        root_password: str | None = None,
        port: int = 22,
        program: str = "/usr/sbin/sshd",
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        if (error_log is None) == (devlog is None):
            raise PartError("give error_log or devlog, one of them")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.users = tuple(users)
        self._folder = folder
        self._pid_file = folder / "sshd.pid"
        self._pid_file.unlink(missing_ok=True)
        names = {"127.0.0.1": "localhost", **(hosts or {})}
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for address, name in names.items()))
        self._write_accounts(root_password)
        self._write_configuration(dict(options or {}), root_password is not None)
        run_folder = folder / "run"
        layout = {
            "run": str(run_folder),
            "run_folders": ["sshd"],
            "devlog": None if devlog is None else str(devlog),
            # sshd writes wtmp, btmp and lastlog; those of the machine are not ours.
            "binds": [
                *([str(folder / name), f"/etc/{name}"] for name in ("passwd", "shadow", "group", "hosts")),
                [str(folder / "log"), "/var/log"],
            ],
            "exec": [
                program,
                "-D",
                "-f",
                str(folder / "sshd_config"),
                *(["-E", str(error_log)] if error_log is not None else []),
            ],
        }
        # A second start in the same folder must not meet the first one's device nodes.
        if run_folder.exists():
            run(["rm", "-r", "--one-file-system", "--", str(run_folder)])
        run_folder.mkdir(mode=0o755)
        (run_folder / "utmp").touch()
        (folder / "log").mkdir(exist_ok=True)
        for name in ("wtmp", "btmp", "lastlog"):
            (folder / "log" / name).touch(0o600)
        (folder / "layout.json").write_text(json.dumps(layout))
        self.process: Process = namespace.start(
            ["unshare", "-m", sys.executable, str(_PRIVATE_ROOT), str(folder / "layout.json")], name="sshd"
        )
        wait_until("sshd's pid file", lambda: self._pid_file.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            said = error_log.read_text(errors="replace") if error_log is not None and error_log.exists() else ""
            raise PartError(f"sshd ended: {self.process.stderr}{said}")

    def _write_accounts(self, root_password: str | None) -> None:
        passwd = Path("/etc/passwd").read_text().splitlines()
        shadow = Path("/etc/shadow").read_text().splitlines()
        group = Path("/etc/group").read_text().splitlines()
        if root_password is not None:
            shadow = [line for line in shadow if not line.startswith("root:")]
            shadow.append(f"root:{password_hash(root_password)}:19000:0:99999:7:::")
        keys = self._folder / "authorized_keys"
        keys.mkdir(exist_ok=True)
        for uid, user in enumerate(self.users, _FIRST_UID):
            secret = "*" if user.password is None else password_hash(user.password)
            passwd.append(f"{user.name}:x:{uid}:{uid}::/:{user.shell}")
            group.append(f"{user.name}:x:{uid}:")
            shadow.append(
                f"{user.name}:{'!' if user.locked else ''}{secret}:19000:0:99999:7::{'1' if user.expired else ''}:"
            )
            (keys / user.name).write_text("".join(key.rstrip("\n") + "\n" for key in user.keys))
        for name, lines in (("passwd", passwd), ("shadow", shadow), ("group", group)):
            path = self._folder / name
            path.write_text("\n".join(lines) + "\n")
            path.chmod(0o600 if name == "shadow" else 0o644)

    def _write_configuration(self, options: dict[str, str | Sequence[str]], root: bool) -> None:
        host_key = self._folder / "host_key"
        if not host_key.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            with os.fdopen(os.open(host_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key.export_private_key("openssh"))
        settings: dict[str, str | Sequence[str]] = {
            "Port": str(self.port),
            "ListenAddress": ["0.0.0.0", "::"],
            "HostKey": str(host_key),
            "PidFile": str(self._pid_file),
            "AuthorizedKeysFile": f"{self._folder}/authorized_keys/%u",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "yes",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "LogLevel": "VERBOSE",
            "MaxStartups": "200:30:400",
            **({"PermitRootLogin": "yes"} if root else {}),
            **options,
        }
        # sshd takes the first value of a keyword and everything after `Match` as conditional.
        match = settings.pop("Match", None)
        lines = []
        for keyword, value in settings.items():
            lines += [f"{keyword} {one}" for one in ([value] if isinstance(value, str) else value)]
        if isinstance(match, str):
            lines.append(match)
        (self._folder / "sshd_config").write_text("\n".join(lines) + "\n")

    def close(self) -> None:
        """End the listener; sessions end with the namespace."""
        self.process.close()

"""A real SSH client in a namespace, from an address of its own: guesses, offers keys, logs in, scans.
Counterpart: attacker_main.py is what runs inside; sshd.py is what it meets."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .netns import SERVER, Namespace
from .processes import PartError, Process

_MAIN = Path(__file__).with_name("attacker_main.py")

Text = str | bytes
Job = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One attempt: `sent` and `answered` in microseconds UTC, by the client's clock (the same machine's).

    method: password, keyboard-interactive, publickey, raw, scan, stream, command. outcome: accepted, failed
    (answered no), lost (sent, connection ended before an answer), unreachable (nothing could be sent), connected
    (scan), ended (raw, stream: the connection is over), line (stream), exit N (command). `secret` is the password.
    """

    job: int
    method: str
    outcome: str
    sent: int
    answered: int
    user: str | None = None
    source: str | None = None
    secret: str | None = None
    detail: str = ""


def encode(value: Any) -> Any:
    """A job's value as JSON can carry it: bytes as base64, inside lists and mappings too."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {name: encode(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [encode(one) for one in value]
    return value


class Assault:
    """Attempts in progress. `attempts()` at any time; `wait()` until all are over."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def attempts(self) -> list[Attempt]:
        """What was reported so far, in order of reporting."""
        whole, _, _ = self._process.stdout.rpartition("\n")
        return [Attempt(**json.loads(line)) for line in whole.splitlines()]

    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def wait(self, timeout: float = 60.0) -> list[Attempt]:
        """All attempts, when over; `PartError` when the client itself broke."""
        status = self._process.wait(timeout)
        if status != 0:
            raise PartError(f"the client ended with {status}: {self._process.stderr}")
        return self.attempts()

    def stop(self) -> list[Attempt]:
        """End it now."""
        self._process.close()
        return self.attempts()


class Attacker:
    """A client at `source` inside `namespace` (which must own that address), against `host`:`port`.

    The same class is the legitimate user: only the address, the key and the manners differ.
    """

    def __init__(self, namespace: Namespace, source: str, *, host: str = SERVER, port: int = 22) -> None:
        self._namespace = namespace
        self._target: Job = {"source": source, "host": host, "port": port}
        self.source = source

    def start(self, jobs: Sequence[Job], *, parallel: int = 1, shuffle: int | None = None) -> Assault:
        """Start jobs (see the `*_job` methods) in the background, `parallel` at a time."""
        process = self._namespace.start([sys.executable, str(_MAIN)], name="attacker", stdin=True)
        order = {"jobs": list(jobs), "parallel": parallel, "shuffle": shuffle}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.close()
        return Assault(process)

    def run(self, jobs: Sequence[Job], *, parallel: int = 1, timeout: float = 60.0) -> list[Attempt]:
        """Start and wait."""
        return self.start(jobs, parallel=parallel).wait(timeout)

    def password_job(self, user: str, passwords: Sequence[str], **more: Any) -> Job:
        """Guess passwords.

        more: per_connection, interactive, timeout, stop_when_unreachable, command, stay, version.
        """
        return {"kind": "passwords", **self._target, "user": user, "passwords": list(passwords), **more}

    def key_job(self, user: str, keys: Sequence[str | Mapping[str, str]], **more: Any) -> Job:
        """Offer keys in order. more: command, stay, timeout, version, disconnect={code, text} after the login."""
        return {"kind": "keys", **self._target, "user": user, "keys": list(keys), **more}

    def stream_job(
        self, user: str, *, password: str | None = None, key: str | None = None, count: int = 1000, **more: Any
    ) -> Job:
        """Log in and keep reading `count` lines, one every 50 ms: an established connection to be cut or spared.

        Reports `accepted`, then each `line` with its time, at last `ended` or `lost` (reset; a mere drop just stalls).
        """
        return {
            "kind": "stream",
            **self._target,
            "user": user,
            "password": password,
            "key": key,
            "count": count,
            **more,
        }

    def scan_job(self, chunks: Sequence[Any] = (), **more: Any) -> Job:
        """A plain connection that sends `chunks` (bytes, text or cleartext packets) and closes.

        more: wait (seconds to read on), reset (close with RST), read_banner, half_close, timeout.
        """
        return {"kind": "scan", **self._target, "chunks": encode(chunks), **more}

    def raw_job(
        self, packets: Sequence[Mapping[str, Text]], *, disconnect: Text | None = None, code: int = 11, **more: Any
    ) -> Job:
        """Hand-made USERAUTH_REQUESTs after a real key exchange: `user`, `method`, optional `service` and `rest`."""
        job: Job = {"kind": "raw", **self._target, **more}
        job["packets"] = [
            {name: encode(value) for name, value in {"service": "ssh-connection", "rest": b"", **packet}.items()}
            for packet in packets
        ]
        if disconnect is not None:
            job["disconnect"] = {"code": code, "text": encode(disconnect)}
        return job

    def guess(self, user: str, passwords: Sequence[str], **more: Any) -> list[Attempt]:
        """Guess passwords to the end."""
        return self.run([self.password_job(user, passwords, **more)])

    def login(self, user: str, *, password: str | None = None, key: str | None = None, command: str = "true") -> bool:
        """Whether a login works and a command runs: what a legitimate user asks for."""
        if (password is None) == (key is None):
            raise PartError("give password or key, one of them")
        job = (
            self.password_job(user, [password], command=command, timeout=5.0)
            if password is not None
            else self.key_job(user, [key or ""], command=command, timeout=5.0)
        )
        return any(attempt.outcome == "exit 0" for attempt in self.run([job]))


def password_packet(user: Text, password: str) -> dict[str, Text]:
    """A password attempt for `raw_job` with any bytes as user name."""
    secret = password.encode()
    return {"user": user, "method": "password", "rest": b"\0" + len(secret).to_bytes(4, "big") + secret}

"""Run as a program inside a namespace: a real SSH client that does what its JSON jobs on standard input say.
Counterpart: attacker.py starts it there, sends jobs and reads one JSON line per attempt."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

Job = dict[str, Any]
Report = Callable[..., None]

_MSG_DISCONNECT, _MSG_KEXINIT, _MSG_USERAUTH_REQUEST = 1, 20, 50


def _now() -> int:
    return time.time_ns() // 1000


def _bytes(value: str | dict[str, str] | None) -> bytes:
    """Text as UTF-8, or {"b64": ...} for bytes that are no text."""
    if value is None:
        return b""
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _cleartext_packet(payload: bytes) -> bytes:
    """A binary packet before key exchange (RFC 4253 section 6): no cipher, block size 8, no MAC."""
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


class _Passwords(asyncssh.SSHClient):
    """Answers each request with the next password and reports when it was sent and answered."""

    def __init__(self, passwords: list[str], report: Report) -> None:
        self._passwords = list(passwords)
        self._report = report
        self._pending: tuple[str, int] | None = None
        self.succeeded = False

    def _answer(self, outcome: str, detail: str = "") -> None:
        if self._pending is not None:
            secret, sent = self._pending
            self._pending = None
            self._report(method="password", secret=secret, sent=sent, answered=_now(), outcome=outcome, detail=detail)

    def password_auth_requested(self) -> str | None:
        self._answer("failed")
        if not self._passwords:
            return None
        self._pending = (self._passwords.pop(0), _now())
        return self._pending[0]

    def auth_completed(self) -> None:
        self.succeeded = True
        self._answer("accepted")

    def connection_lost(self, exc: Exception | None) -> None:
        self._answer("lost", "" if exc is None else str(exc))

    def left(self) -> list[str]:
        """Passwords not sent yet."""
        return self._passwords


class _Challenges(_Passwords):
    """The same for keyboard-interactive."""

    def kbdint_auth_requested(self) -> str | None:
        self._answer("failed")
        return "" if self._passwords else None

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str] | None:
        if not prompts:
            return []
        self._pending = (self._passwords.pop(0), _now())
        return [self._pending[0]] * len(prompts)


class _NoMethod:
    """Stands where asyncssh expects the method in progress; hand-made packets have none."""

    def auth_failed(self) -> None:
        pass

    def auth_succeeded(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    def log_received_packet(self, *args: Any, **more: Any) -> None:
        pass

    async def process_packet(self, pkttype: int, pktid: int, packet: Any) -> bool:
        return True


class _Raw(asyncssh.SSHClient):
    """After key exchange, sends authentication packets made by hand: any bytes as user, service, method."""

    def __init__(self, job: Job, report: Report) -> None:
        self._packets = list(job.get("packets", []))
        self._disconnect = job.get("disconnect")
        self._report = report
        self._sent: int | None = None
        self._connection: Any = None

    def connection_made(self, conn: Any) -> None:
        self._connection = conn
        # asyncssh prepares its own texts (SASLprep, UTF-8); an attacker does not.
        conn.try_next_auth = self._next

    def _next(self, *, next_method: bool = False) -> None:
        if self._sent is not None:
            self._report(method="raw", sent=self._sent, answered=_now(), outcome="failed")
            self._sent = None
        if self._packets:
            packet = self._packets.pop(0)
            body = b"".join(_string(_bytes(packet[name])) for name in ("user", "service", "method"))
            self._connection._auth = _NoMethod()
            self._sent = _now()
            self._connection.send_packet(_MSG_USERAUTH_REQUEST, body + _bytes(packet.get("rest")))
            return
        if self._disconnect is not None:
            body = (
                struct.pack(">I", self._disconnect["code"]) + _string(_bytes(self._disconnect["text"])) + _string(b"")
            )
            with contextlib.suppress(Exception):
                self._connection.send_packet(_MSG_DISCONNECT, body)
        self._connection.abort() if self._disconnect is None else self._connection.create_task(self._leave())

    async def _leave(self) -> None:
        # The disconnect must be on the wire before the connection is cut, or sshd logs a reset instead.
        await asyncio.sleep(0.05)
        self._connection.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent is not None:
            self._report(method="raw", sent=self._sent, answered=_now(), outcome="lost", detail=str(exc or ""))
            self._sent = None


def _socket(job: Job) -> socket.socket:
    family = socket.AF_INET6 if ":" in job["host"] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(job.get("timeout", 10.0))
    try:
        if job.get("source"):
            made.bind((job["source"], 0))
        made.connect((job["host"], job["port"]))
    except OSError:
        made.close()
        raise
    return made


async def _ssh(job: Job, client: Callable[[], asyncssh.SSHClient], **options: Any) -> asyncssh.SSHClientConnection:
    connected = await asyncio.get_running_loop().run_in_executor(None, _socket, job)
    timeout = job.get("timeout", 10.0)
    if job.get("version"):
        options["client_version"] = job["version"]
    try:
        return await asyncssh.connect(
            sock=connected,
            known_hosts=None,
            agent_path=None,
            config=None,
            client_factory=client,
            username=job.get("user", "nobody"),
            login_timeout=timeout,
            connect_timeout=timeout,
            **options,
        )
    except BaseException:
        connected.close()
        raise


async def passwords(job: Job, report: Report) -> None:
    """Try passwords, `per_connection` on each connection, until one is accepted or none is left."""
    interactive = job.get("interactive", False)
    kind = _Challenges if interactive else _Passwords
    method = "keyboard-interactive" if interactive else "password"
    left = list(job["passwords"])
    while left:
        size = job.get("per_connection", len(left))
        batch, left = left[:size], left[size:]
        client = kind(batch, report)
        started = _now()
        try:
            connection = await _ssh(
                job,
                lambda client=client: client,  # type: ignore[misc]
                client_keys=None,
                preferred_auth=[method],
                password_auth=not interactive,
                kbdint_auth=interactive,
                public_key_auth=False,
            )
        except (OSError, asyncssh.Error, TimeoutError) as failure:
            if len(client.left()) == len(batch):
                report(method=method, sent=started, answered=_now(), outcome="unreachable", detail=_said(failure))
                if job.get("stop_when_unreachable", True):
                    return
            else:
                # sshd ends a connection after MaxAuthTries: the rest goes on a new one, as attackers do.
                left = client.left() + left
            continue
        await _session(connection, job, report)
        return


async def _session(connection: asyncssh.SSHClientConnection, job: Job, report: Report) -> None:
    # What a user who may log in can make sshd write down: subsystem names and ends of forwardings are free text.
    with contextlib.suppress(asyncssh.Error):
        if job.get("subsystem") is not None:
            await connection.create_process(subsystem=job["subsystem"])
    with contextlib.suppress(asyncssh.Error):
        if job.get("forward"):
            target, origin = job["forward"]["target"], job["forward"]["origin"]
            await connection.open_connection(target, 9, orig_host=origin, orig_port=22)
    command = job.get("command")
    if command:
        sent = _now()
        done = await connection.run(command, check=False)
        report(
            method="command", sent=sent, answered=_now(), outcome=f"exit {done.exit_status}", detail=str(done.stdout)
        )
    stay = job.get("stay", 0.0)
    if stay:
        await asyncio.sleep(stay)
    if job.get("disconnect"):
        # asyncssh drops what it has not written yet when it disconnects.
        await asyncio.sleep(0.05)
        connection.disconnect(job["disconnect"]["code"], job["disconnect"]["text"])
    else:
        connection.close()
    await connection.wait_closed()


async def keys(job: Job, report: Report) -> None:
    """Offer the keys (OpenSSH private key texts, or {"key", "certificate"}) one after the other."""
    offers: list[Any] = []
    for one in job["keys"]:
        if isinstance(one, str):
            offers.append(asyncssh.import_private_key(one))
        else:
            key = asyncssh.import_private_key(one["key"])
            offers.append((key, asyncssh.import_certificate(one["certificate"])))
    sent = _now()
    client = _Passwords([], report)
    try:
        connection = await _ssh(
            job,
            lambda: client,
            client_keys=offers,
            preferred_auth=["publickey"],
            password_auth=False,
            kbdint_auth=False,
        )
    except (OSError, asyncssh.Error, TimeoutError) as failure:
        report(method="publickey", sent=sent, answered=_now(), outcome="failed", detail=_said(failure))
        return
    report(method="publickey", sent=sent, answered=_now(), outcome="accepted")
    await _session(connection, job, report)


async def stream(job: Job, report: Report) -> None:
    """Log in and read a remote command that says something every 50 ms, until it ends or the connection does."""
    credentials: dict[str, Any] = {"preferred_auth": ["password"], "password": job["password"], "client_keys": None}
    if job.get("key"):
        credentials = {"preferred_auth": ["publickey"], "client_keys": [asyncssh.import_private_key(job["key"])]}
    began = _now()
    try:
        connection = await _ssh(job, asyncssh.SSHClient, **credentials)
        command = f"i=0; while [ $i -lt {job['count']} ]; do echo $i; i=$((i+1)); sleep 0.05; done"
        async with connection, connection.create_process(command) as process:
            report(method="stream", sent=began, answered=_now(), outcome="accepted")
            async for line in process.stdout:
                report(method="stream", sent=began, answered=_now(), outcome="line", detail=str(line).strip())
        report(method="stream", sent=began, answered=_now(), outcome="ended")
    except (OSError, asyncssh.Error, TimeoutError) as failure:
        report(method="stream", sent=began, answered=_now(), outcome="lost", detail=_said(failure))


async def raw(job: Job, report: Report) -> None:
    """Key exchange by asyncssh, then hand-made authentication packets and a hand-made disconnect."""
    sent = _now()
    options = {name: job[name] for name in ("kex_algs", "encryption_algs", "mac_algs") if name in job}
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        connection = await _ssh(job, lambda: _Raw(job, report), client_keys=None, **options)
        connection.abort()
        await connection.wait_closed()
    report(method="raw", sent=sent, answered=_now(), outcome="ended")


async def scan(job: Job, report: Report) -> None:
    """A plain socket: send `chunks` as they are, wait `wait` seconds for sshd, close (`reset`: with RST)."""
    sent = _now()
    try:
        received = await asyncio.get_running_loop().run_in_executor(None, _scan, job)
    except OSError as failure:
        report(method="scan", sent=sent, answered=_now(), outcome="unreachable", detail=_said(failure))
        return
    detail = received.decode("latin-1")
    report(method="scan", sent=sent, answered=_now(), outcome="connected", detail=detail[:200])


def _scan(job: Job) -> bytes:
    received = b""
    with _socket(job) as connected:
        if job.get("read_banner", True):
            with contextlib.suppress(TimeoutError):
                received = connected.recv(4096)
        for chunk in job.get("chunks", []):
            try:
                connected.sendall(_chunk(chunk))
            except (BrokenPipeError, ConnectionResetError):
                return received
        if job.get("reset", False):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return received
        if job.get("half_close", True) and job.get("chunks"):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_WR)
        connected.settimeout(max(job.get("wait", 0.0), 0.001))
        deadline = time.monotonic() + job.get("wait", 0.0)
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                more = connected.recv(4096)
                if not more:
                    break
                received += more
    return received


def _chunk(chunk: Any) -> bytes:
    """Bytes as they are, or a cleartext packet: {"kexinit": ten lists}, {"disconnect", "code"} or {"packet"}."""
    if isinstance(chunk, dict) and "kexinit" in chunk:
        lists = b"".join(_string(_bytes(one)) for one in chunk["kexinit"])
        return _cleartext_packet(bytes([_MSG_KEXINIT]) + bytes(16) + lists + b"\0" + bytes(4))
    if isinstance(chunk, dict) and "disconnect" in chunk:
        text = _string(_bytes(chunk["disconnect"])) + _string(b"")
        return _cleartext_packet(bytes([_MSG_DISCONNECT]) + struct.pack(">I", chunk["code"]) + text)
    if isinstance(chunk, dict) and "packet" in chunk:
        return _cleartext_packet(_bytes(chunk["packet"]))
    return _bytes(chunk)


def _said(failure: BaseException) -> str:
    return f"{type(failure).__name__}: {failure}"


_KINDS: dict[str, Callable[[Job, Report], Awaitable[None]]] = {
    "passwords": passwords,
    "keys": keys,
    "raw": raw,
    "scan": scan,
    "stream": stream,
}


async def _main(order: dict[str, Any]) -> None:
    jobs = list(enumerate(order["jobs"]))
    if order.get("shuffle") is not None:
        random.Random(order["shuffle"]).shuffle(jobs)

    async def worker() -> None:
        while jobs:
            number, job = jobs.pop(0)

            def report(number: int = number, job: Job = job, **facts: Any) -> None:
                line = {"job": number, "user": job.get("user"), "source": job.get("source"), "detail": "", **facts}
                print(json.dumps(line), flush=True)

            await _KINDS[job["kind"]](job, report)

    async with asyncio.TaskGroup() as group:
        for _ in range(order.get("parallel", 1)):
            group.create_task(worker())


if __name__ == "__main__":
    asyncssh.set_log_level("CRITICAL")
    asyncio.run(_main(json.loads(sys.stdin.readline())))

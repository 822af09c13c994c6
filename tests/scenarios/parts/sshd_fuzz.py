"""Attacks a real sshd from one address with texts made to look like another address's lines; collects what it logs.
Counterpart: whoever reads the lines must never blame the planted address: nothing ever came from it."""

from __future__ import annotations

import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from .attacker import Attacker, Job, Text, password_packet
from .netns import ATTACKER, SERVER, VICTIM, NetLab, Wire
from .processes import short_folder
from .sshd import Sshd, User
from .sshd_sessions import certify, new_key
from .syslogs import Header, SyslogSocket

# sshd gives syslog at most 500 bytes of a message: text that is long enough pushes the real address out at the end.
_MESSAGE_LIMIT = 500
# Of the user's name, lines that end a connection show this much (200 less "invalid user "), before escaping.
_NAME_LIMIT = 187

_V = VICTIM
_TAILS = (
    f"{_V}",
    f" from {_V}",
    f"root from {_V}",
    f"x from {_V} port 22",
    f"x from {_V} port 22 ssh2",
    f"root from {_V} port 22 ssh2: RSA SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    f"x {_V} port 22",
    f"x {_V} port 22 [preauth]",
    f"user root {_V} port 22 [preauth]",
    f"x port 22 from {_V}",
    f"{_V} port 22",
    f"{_V} port 22:11: Bye Bye",
    f"{_V} port 22:11: Bye Bye [preauth]",
    f"invalid user x from {_V} port 22 ssh2",
    f"illegal user x from {_V}",
    f"rhost={_V}",
    f"x; logname= uid=0 euid=0 tty=ssh ruser= rhost={_V}  user=root",
    f"::ffff:{_V}",
    f"[{_V}]:22 on [{SERVER}]:22 past MaxStartups",
    f"x not allowed because not listed in AllowUsers from {_V}",
    f"x (serial 0) CA ED25519 SHA256:AAAA from {_V} port 22 ssh2",
    f"{ATTACKER} port 22 ssh2 from {_V} port 22 ssh2",
)
_LINES = (
    f"Failed password for root from {_V} port 22 ssh2",
    f"Failed password for invalid user x from {_V} port 22 ssh2",
    f"Failed keyboard-interactive/pam for root from {_V} port 22 ssh2",
    f"Invalid user x from {_V} port 22",
    f"Accepted password for alice from {_V} port 22 ssh2",
    f"Connection from {_V} port 22 on {SERVER} port 22",
    f"Connection closed by authenticating user root {_V} port 22 [preauth]",
    f"Connection reset by {_V} port 22 [preauth]",
    f"Received disconnect from {_V} port 22:11: Bye [preauth]",
    f"Disconnected from invalid user x {_V} port 22 [preauth]",
    f"error: maximum authentication attempts exceeded for root from {_V} port 22 ssh2 [preauth]",
    f"error: PAM: Authentication failure for root from {_V}",
    f"pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={_V}  user=root",
    f"banner exchange: Connection from {_V} port 22: invalid format",
    f"Unable to negotiate with {_V} port 22: no matching key exchange method found. Their offer: x [preauth]",
    f"User root from {_V} not allowed because not listed in AllowUsers",
    f"ROOT LOGIN REFUSED FROM {_V} port 22",
    f"message repeated 99 times: [ Failed password for root from {_V} port 22 ssh2]",
)
_GLUE = ("", " ", ": ", "; ", '"', "'", "\\", "]", "[preauth] ", "#012", "\\n", "%s%n ", "\t", "\u202e", "\u00e9")
_BREAKS = (b"\n", b"\r\n", b"\0", b"\x1b[2K\r", b"\xff\xfe", b"\xe2\x80\xa8", b"\x85", b"\x0b")


@dataclass(frozen=True)
class FuzzRun:
    """`lines`: auth.log lines without newline, in order. Every one that names an address speaks of ATTACKER.

    `headerless` is the same of a server that writes its log itself (`sshd -E`): there a newline in a user name is
    written as it is, so that whole lines are the attacker's and nothing in them can be believed.
    """

    lines: list[bytes]
    headerless: list[bytes]
    sessions: int
    seed: int


def texts(generator: random.Random) -> Iterator[bytes]:
    """Hostile texts without end: every tail and line once, in order, then random mixtures with breaks and lengths."""
    for one in (*_TAILS, *_LINES):
        yield one.encode()
    while True:
        body = generator.choice((*_TAILS, *_LINES)).encode()
        roll = generator.random()
        if roll < 0.25:
            yield generator.choice(_GLUE).encode() + body + generator.choice(_GLUE).encode()
        elif roll < 0.5:
            # A line of its own, headers included, behind every kind of line break.
            stamp = generator.choice((b"", b"Nov 24 03:00:00 bastion sshd[1]: ", b"<38>Nov 24 03:00:00 sshd[1]: "))
            line = generator.choice(_LINES).encode()
            yield b"x" + generator.choice(_BREAKS) + stamp + line + generator.choice((b"", b"\n"))
        elif roll < 0.7:
            yield body + b" " * generator.randrange(3) + generator.choice(_TAILS).encode()
        elif roll < 0.85:
            # Lengths around sshd's own cuts: 100 (user), 200, 256 (version), 400 (disconnect), 500 and 1023 (message).
            limit = generator.choice((100, 200, 256, 400, _MESSAGE_LIMIT, 1023)) + generator.randrange(-80, 5)
            yield b"A" * max(0, limit - len(body)) + body
        else:
            yield body + b"\\" * generator.randrange(1, 300)


def aligned(prefix: bytes, generator: random.Random) -> bytes:
    """Text that sshd's cut leaves with a planted tail as the very end (give or take 2 bytes) of `prefix` + text."""
    tail = f" from {_V} port 22 ssh2".encode()
    return b"A" * (_MESSAGE_LIMIT - len(prefix) - len(tail) + generator.randrange(-2, 3)) + tail + b" cut away"


def aligned_name(line: bytes, tail: bytes) -> bytes:
    """A user name whose escaped form ends, at sshd's cut, exactly with `tail`; the real address falls off.

    The unprivileged child escapes 0xff as four characters, the monitor doubles the backslash: five for one byte.
    """
    room = _MESSAGE_LIMIT - len(line) - len(tail)
    wide = room // 5
    name = b"\xff" * wide + b"A" * (room - 5 * wide) + tail
    return name + b" " * max(0, _NAME_LIMIT - len(name))


class Fuzz:
    """Makes the sessions of one run. Everything follows from the seed but ports, pids, keys and times."""

    def __init__(
        self, wire: Wire, folder: Path, *, seed: int, header: Header = "rfc3164", devlog: Path | None = None
    ) -> None:
        self._wire = wire
        self._folder = folder
        self._random = random.Random(seed)
        self._texts = texts(self._random)
        self._log = None if devlog else SyslogSocket(folder / "devlog", folder / "auth.log", header=header)
        self._devlog = devlog or folder / "devlog"
        self._headerless = folder / "headerless.log"
        self._key = new_key()
        self._blob = asyncssh.import_public_key(self._key[1]).public_data
        self._authority = new_key()
        self._stranger = new_key()
        self._seed = seed

    def _servers(self) -> dict[str, int]:
        """Servers by kind -> port: both log levels that write attacker text, PAM, and names from a hostile DNS."""
        trusted = self._folder / "ca.pub"
        trusted.write_text(self._authority[1] + "\n")
        users = [User("alice", "correct", keys=(self._key[1],))]
        common = {"TrustedUserCAKeys": str(trusted), "HostbasedAuthentication": "yes", "MaxAuthTries": "4"}
        kinds: dict[str, tuple[dict[str, str], dict[str, str]]] = {
            "verbose": ({"LogLevel": "VERBOSE"}, {}),
            "info": ({"LogLevel": "INFO", "AllowTcpForwarding": "no"}, {}),
            "pam": ({"UsePAM": "yes", "KbdInteractiveAuthentication": "yes"}, {}),
            "name": ({"UseDNS": "yes", "AllowUsers": "other"}, {ATTACKER: f"{_V}.attacker.example"}),
            "headerless": ({"LogLevel": "VERBOSE"}, {}),
            "nasty": ({"UseDNS": "yes", "UsePAM": "yes", "AllowUsers": "other"}, {ATTACKER: _V}),
        }
        ports = {}
        for port, (kind, (options, hosts)) in enumerate(kinds.items(), 2201):
            folder = self._folder / kind
            Sshd(
                self._wire.server,
                folder,
                users,
                devlog=None if kind == "headerless" else self._devlog,
                error_log=self._headerless if kind == "headerless" else None,
                options={**common, **options},
                port=port,
                hosts=hosts,
                root_password="toor" if kind == "pam" else None,
            )
            ports[kind] = port
        return ports

    def _text(self) -> bytes:
        return next(self._texts)

    def _word(self) -> str:
        """A hostile text for places where the client library wants valid Unicode without NUL."""
        return self._text().decode("utf-8", "replace").replace("\0", " ")

    def _user(self, client: Attacker) -> Job:
        method = self._random.randrange(6)
        user = self._text()
        if self._random.random() < 0.2:
            # sshd splits `user:style` and, with SELinux, `user/role`.
            user = b"alice" + self._random.choice((b":", b"/")) + user
        secret = struct.pack(">I", 1) + b"x"
        packet: dict[str, Text] = {"user": user, "method": "password", "rest": b"\0" + secret}
        if method == 1:
            packet = {"user": user, "method": "none"}
        elif method == 2:
            packet = {"user": user, "method": self._text(), "rest": secret}
        elif method == 3:
            packet = {
                "user": user,
                "method": "publickey",
                "rest": b"\0" + _string(b"ssh-ed25519") + _string(self._blob),
            }
        elif method == 4:
            packet = {"user": user, "method": "password", "service": self._text(), "rest": b"\0" + secret}
        repeat = self._random.choice((1, 1, 2, 5))
        bye = self._text() if self._random.random() < 0.5 else None
        return client.raw_job([packet] * repeat, disconnect=bye, code=self._random.choice((11, 2, 14)))

    def _cut_off(self, client: Attacker) -> Job:
        """The lines that end a connection name the user before the address: make the cut fall between the two."""
        tail = self._random.choice((f"x {_V} port 22", f"x {_V} port 22 [preauth]", f" {_V} port 22 [preauth]"))
        kind = self._random.randrange(4)
        if kind == 0:
            name = aligned_name(b"Connection closed by invalid user ", tail.encode())
            return client.raw_job([password_packet(name, "x")])
        if kind == 1:
            name = aligned_name(b"Disconnected from invalid user ", tail.encode())
            return client.raw_job([password_packet(name, "x")], disconnect="bye")
        if kind == 2:
            tail = f"x {_V} port 22: Too many authentication failures [preauth]"
            name = aligned_name(b"Disconnecting invalid user ", tail.encode())
            return client.raw_job([password_packet(name, "x")] * 6)
        tail = f"x from {_V} port 22 ssh2 [preauth]"
        name = aligned_name(b"error: maximum authentication attempts exceeded for invalid user ", tail.encode())
        return client.raw_job([password_packet(name, "x")] * 6)

    def _algorithm(self, client: Attacker) -> Job:
        rest = (
            b"\1" + _string(self._text()) + _string(self._random.choice((self._blob, self._text()))) + _string(b"sig")
        )
        user = self._random.choice((b"alice", b"root", self._text()))
        return client.raw_job([{"user": user, "method": "publickey", "rest": rest}])

    def _hostbased(self, client: Attacker) -> Job:
        rest = _string(b"ssh-ed25519") + _string(self._blob) + _string(self._text()) + _string(self._text())
        rest += _string(_string(b"ssh-ed25519") + _string(b"\0" * 64))
        return client.raw_job([{"user": self._random.choice(("alice", "root")), "method": "hostbased", "rest": rest}])

    def _disconnect(self, client: Attacker) -> Job:
        user: Text = self._random.choice((b"alice", b"root", b"ghost"))
        packets = [password_packet(user, "wrong")] * self._random.randrange(3)
        return client.raw_job(packets, disconnect=self._text(), code=self._random.choice((11, 11, 2, 4_000_000_000)))

    def _version(self, client: Attacker) -> Job:
        text = self._text()
        banner = self._random.choice(
            (
                b"SSH-2.0-" + text,
                b"SSH-2.0-Probe-" + text,
                b"SSH-2.0-SSH_Version_Mapper " + text,
                b"SSH-1.5-" + text,
                b"SSH-" + text,
                text,
                b"GET /" + text + b" HTTP/1.1",
                text + b"\r\nSSH-2.0-x",
            )
        )
        return client.scan_job([banner + b"\r\n"], wait=0.3)

    def _kex(self, client: Attacker) -> Job:
        offer: list[Text] = [
            "curve25519-sha256",
            "ssh-ed25519",
            *["aes128-ctr"] * 2,
            *["hmac-sha2-256"] * 2,
            *["none"] * 2,
            "",
            "",
        ]
        place = self._random.randrange(8)
        offer[place] = self._text() if self._random.random() < 0.8 else aligned(b"x" * 110, self._random)
        return client.scan_job([b"SSH-2.0-OpenSSH_9.9\r\n", {"kexinit": offer}], wait=0.3)

    def _early_disconnect(self, client: Attacker) -> Job:
        bye = {"disconnect": self._text(), "code": self._random.choice((11, 2))}
        return client.scan_job([b"SSH-2.0-OpenSSH_9.9\r\n", bye], wait=0.3)

    def _key_id(self, client: Attacker) -> Job:
        own = self._random.random() < 0.5
        user = self._random.choice(("alice", "root", "ghost"))
        prefix = (
            f"Failed publickey for {user} from {ATTACKER} port 50000 ssh2: ED25519-CERT SHA256:{'A' * 43} ID ".encode()
        )
        text = aligned(prefix, self._random) if self._random.random() < 0.3 else self._text()
        key_id = text.decode("utf-8", "replace").replace("\0", " ")
        principal = self._random.choice(("alice", self._word()))
        signer = self._authority if own else self._stranger
        more = {"source_address": ["192.0.2.99"]} if self._random.random() < 0.3 else {}
        return client.key_job(user, [certify(signer[0], self._key[0], key_id, [principal], **more)], command="true")

    def _inside(self, client: Attacker) -> Job:
        """A user who may log in, and is hostile: subsystem, forwarding, last words."""
        return client.key_job(
            "alice",
            [self._key[0]],
            subsystem=self._word(),
            forward={"target": self._word(), "origin": self._word()},
            disconnect={"code": 11, "text": self._word()},
        )

    def collect(self, sessions: int) -> FuzzRun:
        """Run `sessions` sessions and return all lines."""
        clients = {kind: Attacker(self._wire.world, ATTACKER, port=port) for kind, port in self._servers().items()}
        makers = (
            self._user,
            self._cut_off,
            self._user,
            self._disconnect,
            self._version,
            self._kex,
            self._early_disconnect,
            self._key_id,
            self._inside,
            self._algorithm,
            self._hostbased,
        )
        jobs: list[Job] = []
        for number in range(sessions):
            # PAM answers a failure after seconds; a few such sessions are enough, for what they write is little.
            kind = ("verbose", "info", "verbose", "headerless")[number % 4]
            kind = {7: "name", 17: "nasty", 27: "pam"}.get(number % 40, kind)
            maker = self._user if kind in ("pam", "name", "nasty") else makers[number % len(makers)]
            jobs.append(maker(clients[kind]))
        for line in _LINES:
            name = b"x\n" + line.encode() + b"\n"
            jobs.append(clients["headerless"].raw_job([password_packet(name, "x")]))
        for kind in ("name", "nasty"):
            jobs.append(clients[kind].password_job("alice", ["wrong"]))
        clients["verbose"].run(jobs, parallel=8, timeout=300)
        # Sessions end a moment after their client.
        time.sleep(1.0)
        lines: list[bytes] = []
        if self._log is not None:
            self._log.close()
            lines = self._log.lines()
        return FuzzRun(lines, self._headerless.read_bytes().splitlines(), sessions, self._seed)


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def collect(
    wire: Wire,
    folder: Path,
    *,
    seed: int = 2,
    sessions: int = 300,
    header: Header = "rfc3164",
    devlog: Path | None = None,
) -> FuzzRun:
    """One bounded run in an existing pair of namespaces (about 20 s for 300 sessions).

    devlog: where the servers log instead of a socket of ours; `lines` is empty then, the owner of it has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Fuzz(wire, folder, seed=seed, header=header, devlog=devlog).collect(sessions)


def main() -> None:
    """`python -m ...sshd_fuzz FILE [SEED [SESSIONS]]`: write one run's lines to FILE."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    sessions = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    with short_folder() as folder, tempfile.TemporaryDirectory() as programs:
        lab = NetLab(Path(programs))
        try:
            lines = collect(lab.wire(), folder, seed=seed, sessions=sessions).lines
        finally:
            lab.close()
    Path(sys.argv[1]).write_bytes(b"".join(line + b"\n" for line in lines))
    print(len(lines), "lines")


if __name__ == "__main__":
    main()

"""Causes every kind of line that users and attackers can cause in a real sshd, one scripted round.
Counterpart: parsers read the lines; sshd_fuzz.py is the hostile sibling."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from .attacker import Attacker, Job, password_packet
from .netns import ATTACKER, ATTACKER6, LEGITIMATE, SERVER, SERVER6, NetLab, Wire
from .processes import run, short_folder
from .sshd import Sshd, User
from .syslogs import Header, SyslogSocket


def new_key(kind: str = "ssh-ed25519", **more: Any) -> tuple[str, str]:
    """A key pair as (private, public) OpenSSH texts."""
    key = asyncssh.generate_private_key(kind, **more)
    return key.export_private_key("openssh").decode(), key.export_public_key("openssh").decode().strip()


def certify(authority: str, private: str, key_id: str, principals: Sequence[str], **more: Any) -> dict[str, str]:
    """A user certificate for `private` signed by `authority`; as a key job takes it."""
    signer, key = asyncssh.import_private_key(authority), asyncssh.import_private_key(private)
    made = signer.generate_user_certificate(key, key_id, principals=list(principals), **more)
    return {"key": private, "certificate": made.export_certificate("openssh").decode()}


class Sessions:
    """The round. `collect` runs all of it (about 20 s) and returns the auth.log lines of all servers, in order."""

    def __init__(self, wire: Wire, folder: Path, header: Header = "rfc3164", level: str = "VERBOSE") -> None:
        self._wire = wire
        self._folder = folder
        self._level = level
        self._count = 0
        self._log = SyslogSocket(folder / "devlog", folder / "auth.log", header=header)
        self.attacker = Attacker(wire.world, ATTACKER)
        self.user = Attacker(wire.world, LEGITIMATE)
        self.ed25519 = new_key()
        self.rsa = new_key("ssh-rsa", key_size=2048)
        self.ecdsa = new_key("ecdsa-sha2-nistp256")
        self.authority = new_key()

    def _server(self, users: Sequence[User], options: Mapping[str, str | Sequence[str]], **more: Any) -> Sshd:
        self._count += 1
        settings = {"LogLevel": self._level, **options}
        return Sshd(
            self._wire.server,
            self._folder / f"sshd{self._count}",
            users,
            devlog=self._log.devlog,
            options=settings,
            **more,
        )

    def collect(self) -> list[bytes]:
        """Run everything; lines without newline."""
        for part in (self.plain, self.scans, self.refusals, self.certificates, self.limits, self.pam):
            part()
        time.sleep(0.3)
        self._log.close()
        return self._log.lines()

    def plain(self) -> None:
        """Logins that work and that do not."""
        public = (self.ed25519[1], self.rsa[1], self.ecdsa[1])
        users = [User("alice", "correct", keys=public), User("bob", None)]
        server = self._server(users, {"Subsystem": "sftp internal-sftp"}, root_password="toor")
        strangers = [new_key()[0] for _ in range(4)]
        jobs: list[Job] = [
            self.user.password_job("alice", ["correct"], command="true"),
            self.user.password_job("alice", ["typo", "correct"], command="true"),
            *(self.user.key_job("alice", [pair[0]], command="true") for pair in (self.ed25519, self.rsa, self.ecdsa)),
            self.user.key_job("alice", [*strangers, self.ed25519[0]], command="true"),
            self.user.key_job("alice", [self.ed25519[0]], disconnect={"code": 11, "text": "disconnected by user"}),
            self.user.password_job("root", ["toor"], command="true"),
            self.attacker.password_job("root", ["a", "b"]),
            self.attacker.password_job("alice", ["a", "b", "c"], per_connection=1),
            self.attacker.password_job("bob", ["a"]),
            self.attacker.password_job("admin", ["a", "b"]),
            self.attacker.password_job("alice", [f"guess{n}" for n in range(8)]),
            self.attacker.password_job("oracle", [f"guess{n}" for n in range(8)]),
            self.attacker.password_job("", ["a"]),
            self.attacker.password_job("two words", ["a"]),
            self.attacker.key_job("alice", [strangers[0]]),
            self.attacker.key_job("nosuchuser", strangers),
            self.attacker.key_job("alice", [new_key()[0] for _ in range(8)]),
            self.attacker.raw_job([{"user": "alice", "method": "none"}], disconnect="Bye Bye"),
            self.attacker.raw_job([{"user": "ghost", "method": "none"}], disconnect="Bye Bye"),
            self.attacker.raw_job([password_packet("alice", "")], disconnect="Normal Shutdown, Thank you for playing"),
            self.attacker.raw_job([{"user": "alice", "method": "hostbased"}]),
            self.attacker.raw_job([{"user": "alice", "method": "none"}, {"user": "root", "method": "none"}]),
            self.attacker.raw_job([{"user": "alice", "service": "ssh-other", "method": "none"}]),
        ]
        self.attacker.run(jobs)
        target6 = Attacker(self._wire.world, ATTACKER6, host=SERVER6)
        target6.run([target6.password_job("alice", ["x", "correct"], command="true"), target6.scan_job()])
        self._channels()
        server.process.signal(signal.SIGHUP)
        time.sleep(0.5)
        server.close()

    def _channels(self) -> None:
        script = (
            "import asyncio, asyncssh, sys\n"
            "async def main():\n"
            "    key = asyncssh.import_private_key(sys.stdin.read())\n"
            f"    async with asyncssh.connect({SERVER!r}, local_addr=({LEGITIMATE!r}, 0), username='alice',\n"
            "            known_hosts=None, agent_path=None, config=None, client_keys=[key]) as c:\n"
            "        await c.run('exit 3')\n"
            "        await c.run('true', term_type='xterm')\n"
            "        async with c.start_sftp_client() as sftp:\n"
            "            await sftp.listdir('/')\n"
            "        for what in (c.open_connection('127.0.0.1', 9), c.create_process(subsystem='nosuch')):\n"
            "            try:\n"
            "                await what\n"
            "            except asyncssh.Error:\n"
            "                pass\n"
            "asyncio.run(main())\n"
        )
        self._wire.world.run([sys.executable, "-c", script], stdin=self.ed25519[0])

    def scans(self) -> None:
        """Connections that never come to authentication."""
        server = self._server([User("alice", "correct")], {})
        good = "SSH-2.0-OpenSSH_9.2p1\r\n"
        offer = ["curve25519-sha256", "ssh-ed25519", *["aes128-ctr"] * 2, *["hmac-sha2-256"] * 2, *["none"] * 2, "", ""]
        scan = self.attacker.scan_job
        jobs = [
            scan(),
            scan(reset=True),
            scan(["GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"], wait=0.5),
            scan([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n"], wait=0.5),
            scan([b"\x03\x00\x00/*\xe0\x00\x00\x00\x00\x00Cookie: mstshash=Administr\r\n"], wait=0.5),
            scan([b"\x00" * 300], wait=0.5),
            scan(["\r\n"], wait=0.5),
            scan(["SSH-1.5-old\r\n"], wait=0.5),
            scan(["SSH-2.0\r\n"], wait=0.5),
            scan(["SSH-9.9-future\r\n"], wait=0.5),
            scan([b"A" * 9000 + b"\r\n"], wait=0.5),
            scan(["line one\r\n" * 30], wait=0.5),
            scan([good], wait=0.3),
            scan([good], reset=True),
            scan([good, b"\xff" * 64], wait=0.5),
            scan([good, {"packet": b"\x15"}], wait=0.5),
            scan([good, {"disconnect": "Bye Bye", "code": 11}], wait=0.5),
            scan([good, {"disconnect": "no more", "code": 2}], wait=0.5),
            *(
                scan([good, {"kexinit": [*offer[:place], "unknown@example.org,other", *offer[place + 1 :]]}], wait=0.5)
                for place in range(8)
            ),
            scan([good, {"kexinit": offer}], wait=0.5),
            scan(
                ["SSH-2.0-libssh_0.9.6\r\n", {"kexinit": offer}, {"packet": b"\x1e" + b"\0\0\0\x20" + b"\1" * 32}],
                wait=0.5,
            ),
        ]
        self.attacker.run(jobs)
        server.close()

    def refusals(self) -> None:
        """Accounts that may not log in, keys that may not be used here."""
        keys = (
            f'from="192.0.2.99" {self.ed25519[1]}',
            f'command="true" {self.rsa[1]}',
            f'expiry-time="20200101" {self.ecdsa[1]}',
        )
        users = [
            User("alice", "correct", keys=keys),
            User("locked", "correct", locked=True),
            User("expired", "correct", expired=True),
            User("noshell", "correct", shell="/nonexistent"),
            User("denied", "correct"),
            User("outsider", "correct"),
        ]
        server = self._server(
            users,
            {
                "PermitRootLogin": "no",
                "DenyUsers": "denied",
                "AllowGroups": "alice locked expired noshell denied root",
                "MaxAuthTries": "2",
            },
            root_password="toor",
        )
        names = ("locked", "expired", "noshell", "denied", "outsider", "root")
        jobs = [self.attacker.password_job(name, ["correct"]) for name in names]
        jobs += [self.user.key_job("alice", [pair[0]], command="true") for pair in (self.ed25519, self.rsa, self.ecdsa)]
        jobs += [self.attacker.password_job("alice", ["1", "2", "3", "4"])]
        self.attacker.run(jobs)
        server.close()
        server = self._server(
            [User("alice", "correct"), User("other", "correct")], {"AllowUsers": f"alice@{LEGITIMATE}"}
        )
        self.attacker.run(
            [self.attacker.password_job(name, ["correct"]) for name in ("alice", "other", "ghost", "root")]
        )
        server.close()

    def certificates(self) -> None:
        """Certificates: right, of the wrong principal, expired, of an unknown authority, from the wrong place."""
        trusted = self._folder / "ca.pub"
        trusted.write_text(self.authority[1] + "\n")
        server = self._server([User("alice", "correct")], {"TrustedUserCAKeys": str(trusted)})
        key, authority = new_key()[0], self.authority[0]
        offers = [
            certify(authority, key, "alice@example.org", ["alice"]),
            certify(authority, key, "bob@example.org", ["bob"]),
            certify(authority, key, "no principals", []),
            certify(authority, key, "old", ["alice"], valid_before=1_000_000_000),
            certify(authority, key, "future", ["alice"], valid_after=4_000_000_000),
            certify(authority, key, "elsewhere", ["alice"], source_address=["192.0.2.99"]),
            certify(authority, key, "forced", ["alice"], force_command="true"),
            certify(new_key()[0], key, "stranger", ["alice"]),
        ]
        self.user.run([self.user.key_job("alice", [offer], command="true") for offer in offers])
        server.close()

    def limits(self) -> None:
        """Time and number of unauthenticated connections."""
        server = self._server([User("alice", "correct")], {"LoginGraceTime": "1", "MaxStartups": "2:100:2"})
        jobs = [self.attacker.scan_job(wait=2.5, half_close=False) for _ in range(2)]
        jobs += [self.attacker.scan_job(["SSH-2.0-slow\r\n"], wait=2.5, half_close=False) for _ in range(3)]
        self.attacker.run(jobs, parallel=5)
        self.attacker.run([self.attacker.raw_job([{"user": "alice", "method": "none"}])])
        server.close()
        server = self._server(
            [User("alice", "correct")], {"PerSourceMaxStartups": "1", "PerSourceNetBlockSize": "24:64"}
        )
        self.attacker.run([self.attacker.scan_job(wait=0.5) for _ in range(3)], parallel=3)
        server.close()

    def pam(self) -> None:
        """The same through PAM, with keyboard-interactive."""
        users = [User("alice", "correct"), User("expired", "correct", expired=True)]
        options = {"UsePAM": "yes", "KbdInteractiveAuthentication": "yes", "MaxAuthTries": "3"}
        server = self._server(users, options, root_password="toor")
        guess = self.attacker.password_job
        jobs = [
            guess("alice", ["correct"], command="true"),
            guess("alice", ["correct"], command="true", interactive=True),
            guess("alice", ["a", "b"]),
            guess("alice", ["a", "b"], interactive=True),
            guess("ghost", ["a"]),
            guess("ghost", ["a"], interactive=True),
            guess("root", ["a"]),
            guess("root", ["toor"], command="true"),
            guess("expired", ["correct"]),
            guess("alice", [f"guess{n}" for n in range(4)]),
        ]
        self.attacker.run(jobs, parallel=10)
        server.close()


def main() -> None:
    """`python -m ...sshd_sessions FILE [LEVEL]`: write one round's lines to FILE."""
    level = sys.argv[2] if len(sys.argv) > 2 else "VERBOSE"
    with short_folder() as folder, tempfile.TemporaryDirectory() as programs:
        lab = NetLab(Path(programs))
        try:
            lines = Sessions(lab.wire(), folder, level=level).collect()
        finally:
            lab.close()
    Path(sys.argv[1]).write_bytes(b"".join(line + b"\n" for line in lines))
    print(run(["wc", "-l", sys.argv[1]]).strip())


if __name__ == "__main__":
    main()

"""Makes the auth.log that the benchmarks replay: the same bytes for the same seed, one line after the other.
Counterpart: `bench.replay` measures programs over it; tests/bench holds its shares and its order."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Part of the cache's file name: count it up whenever the lines change.
VERSION = 1

START = datetime(2026, 11, 20, tzinfo=UTC)
LINES_PER_DAY = 200_000
"""1,000,000 lines are five days; other sizes keep the rate, so that windows hold equally much in all of them."""

ADDRESSES = 2_000
_SKEW = 1.0
_HOST = "bastion"

# Of ten lines six are noise: an exact share, so that every prefix of the file has it too.
_DECK = (True,) * 6 + (False,) * 4
_OPEN_NOISE, _OPEN_ATTACKS = 12, 10

_STAFF = (("deploy", 1001), ("anna", 1002), ("boris", 1003), ("chen", 1004), ("dora", 1005), ("backup", 34))
_KNOWN = ("root", "root", "root", "root", "deploy", "anna", "backup")
_UNKNOWN = (
    *("admin", "test", "oracle", "postgres", "ubuntu", "user", "guest", "ftpuser", "git", "jenkins", "hadoop"),
    *("minecraft", "pi", "support", "nagios", "dev", "www", "mysql", "tomcat", "es", "steam", "weblogic", "zabbix"),
)
_COMMANDS = (
    "/usr/bin/systemctl restart nginx",
    "/usr/bin/apt-get update",
    "/usr/bin/journalctl -u nginx -n 100",
    "/usr/bin/tail -n 50 /var/log/syslog",
    "/usr/local/bin/deploy --stage production",
)
_CRON_USERS = (("root", 0), ("root", 0), ("root", 0), ("www-data", 33), ("backup", 34))


def addresses(dice: random.Random) -> list[str]:
    """The attackers, most active first, out of 198.18.0.0/15, which RFC 2544 sets aside for benchmarks."""
    picked = dice.sample(range(256, 2 * 65536 - 256), ADDRESSES)
    return [f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}" for number in picked]


class _World:
    """What the stories have in common: processes, sessions, who attacks how often."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self._pid = 1000
        self._session = 100
        self._attackers = addresses(self.dice)
        self._weights = []
        total = 0.0
        for rank in range(1, ADDRESSES + 1):
            total += 1 / rank**_SKEW
            self._weights.append(total)
        self._draws: list[str] = []

    def pid(self) -> int:
        self._pid += self.dice.randrange(1, 9)
        if self._pid > 4_000_000:
            self._pid = 1000
        return self._pid

    def session(self) -> int:
        self._session += 1
        return self._session

    def attacker(self) -> str:
        if not self._draws:
            self._draws = self.dice.choices(self._attackers, cum_weights=self._weights, k=4096)
        return self._draws.pop()

    def port(self) -> int:
        return self.dice.randrange(32768, 61000)


def _cron(world: _World) -> list[str]:
    user, uid = world.dice.choice(_CRON_USERS)
    prefix = f"CRON[{world.pid()}]: pam_unix(cron:session): session"
    return [f"{prefix} opened for user {user}(uid={uid}) by (uid=0)", f"{prefix} closed for user {user}"]


def _sudo(world: _World) -> list[str]:
    user, uid = world.dice.choice(_STAFF[:5])
    command = world.dice.choice(_COMMANDS)
    return [
        f"sudo: {user:>8} : TTY=pts/{world.dice.randrange(4)} ; PWD=/home/{user} ; USER=root ; COMMAND={command}",
        f"sudo: pam_unix(sudo:session): session opened for user root(uid=0) by {user}(uid={uid})",
        "sudo: pam_unix(sudo:session): session closed for user root",
    ]


def _login(world: _World) -> list[str]:
    user, uid = world.dice.choice(_STAFF)
    address, port = f"10.20.{world.dice.randrange(4)}.{world.dice.randrange(1, 255)}", world.port()
    pid, session = world.pid(), world.session()
    key = "ED25519 SHA256:" + "".join(world.dice.choices("ABCDEFGHabcdefgh0123456789+/", k=43))
    how = f"publickey for {user} from {address} port {port} ssh2: {key}"
    if world.dice.random() < 0.1:
        how = f"password for {user} from {address} port {port} ssh2"
    return [
        f"sshd[{pid}]: Accepted {how}",
        f"sshd[{pid}]: pam_unix(sshd:session): session opened for user {user}(uid={uid}) by (uid=0)",
        f"systemd-logind[612]: New session {session} of user {user}.",
        f"systemd: pam_unix(systemd-user:session): session opened for user {user}(uid={uid}) by (uid=0)",
        f"sshd[{pid}]: Received disconnect from {address} port {port}:11: disconnected by user",
        f"sshd[{pid}]: Disconnected from user {user} {address} port {port}",
        f"sshd[{pid}]: pam_unix(sshd:session): session closed for user {user}",
        f"systemd-logind[612]: Session {session} logged out. Waiting for processes to exit.",
        f"systemd-logind[612]: Removed session {session}.",
    ]


def _noise(world: _World) -> list[str]:
    kind = world.dice.random()
    return _cron(world) if kind < 0.6 else _sudo(world) if kind < 0.75 else _login(world)


def _guess(world: _World, user: str, known: bool) -> list[str]:
    """One connection of a guesser, as OpenSSH 9.2 with PAM writes it."""
    address, port = world.attacker(), world.port()
    sshd = f"sshd[{world.pid()}]:"
    name = user if known else f"invalid user {user}"
    rhost = f"logname= uid=0 euid=0 tty=ssh ruser= rhost={address} "
    rhost += f" user={user}" if known else ""
    lines = [] if known else [f"{sshd} Invalid user {user} from {address} port {port}"]
    tries = world.dice.choice((1, 1, 1, 1, 2, 3))
    for number in range(tries):
        if not known:
            lines.append(f"{sshd} pam_unix(sshd:auth): check pass; user unknown")
        if number == 0:
            lines.append(f"{sshd} pam_unix(sshd:auth): authentication failure; {rhost}")
        lines.append(f"{sshd} Failed password for {name} from {address} port {port} ssh2")
    whose = name if not known else f"authenticating user {user}"
    if world.dice.random() < 0.55:
        lines.append(f"{sshd} Received disconnect from {address} port {port}:11: Bye Bye [preauth]")
        lines.append(f"{sshd} Disconnected from {whose} {address} port {port} [preauth]")
    else:
        lines.append(f"{sshd} Connection closed by {whose} {address} port {port} [preauth]")
    if tries > 1:
        plural = "s" if tries > 2 else ""
        lines.append(f"{sshd} PAM {tries - 1} more authentication failure{plural}; {rhost}")
    return lines


def _probe(world: _World) -> list[str]:
    """A connection that never offers a password."""
    address, port = world.attacker(), world.port()
    sshd = f"sshd[{world.pid()}]:"
    kind = world.dice.randrange(4)
    if kind == 0:
        return [f"{sshd} Connection closed by {address} port {port} [preauth]"]
    if kind == 1:
        return [f"{sshd} banner exchange: Connection from {address} port {port}: invalid format"]
    if kind == 2:
        return [
            f"{sshd} Unable to negotiate with {address} port {port}: no matching host key type found."
            " Their offer: ssh-rsa,ssh-dss [preauth]"
        ]
    return [
        f"{sshd} error: kex_exchange_identification: Connection closed by remote host",
        f"{sshd} Connection closed by {address} port {port}",
    ]


def _attack(world: _World) -> list[str]:
    kind = world.dice.random()
    if kind < 0.1:
        return _probe(world)
    if kind < 0.6:
        return _guess(world, world.dice.choice(_KNOWN), known=True)
    return _guess(world, world.dice.choice(_UNKNOWN), known=False)


def lines(count: int, *, seed: int = 1) -> Iterator[str]:
    """`count` lines without newline. A shorter file is the beginning of a longer one."""
    for line, _ in labelled(count, seed=seed):
        yield line


def labelled(count: int, *, seed: int = 1) -> Iterator[tuple[str, bool]]:
    """The same, each with whether it is noise."""
    world = _World(seed)
    dice = world.dice
    noise = [deque(_noise(world)) for _ in range(_OPEN_NOISE)]
    attacks = [deque(_attack(world)) for _ in range(_OPEN_ATTACKS)]
    deck = list(_DECK)
    second, stamp = -1, ""
    for number in range(count):
        at = number % len(deck)
        if at == 0:
            dice.shuffle(deck)
        quiet = deck[at]
        stories = noise if quiet else attacks
        which = dice.randrange(len(stories))
        if not stories[which]:
            stories[which] = deque(_noise(world) if quiet else _attack(world))
        now = number * 86_400 // LINES_PER_DAY
        if now != second:
            moment = START + timedelta(seconds=now)
            second, stamp = now, f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S} {_HOST} "
        yield stamp + stories[which].popleft(), quiet


def write(path: Path, count: int, *, seed: int = 1) -> None:
    """Write a file. Its time of change is that of its last line, as a logger would leave it: headers have no year."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="ascii", buffering=1 << 20) as file:
        for line in lines(count, seed=seed):
            file.write(line + "\n")
    end = START.timestamp() + count * 86_400 // LINES_PER_DAY
    os.utime(partial, (end, end))
    partial.replace(path)


def cached(count: int, *, seed: int = 1) -> Path:
    """That file out of the cache folder under the system's folder for temporary files, made where missing."""
    folder = Path(tempfile.gettempdir()) / f"vedette-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"auth-v{VERSION}-{seed}-{count}.log"
    if not path.exists():
        write(path, count, seed=seed)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the benchmark's auth.log and say where it is.")
    parser.add_argument("lines", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(cached(given.lines, seed=given.seed))

"""The real engine over a parser so small that it can be read: enough to run the cases beside our rules.
Counterpart: `vedette.parsers`, whose patterns know every line; this one knows those the cases have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from vedette.model.batch import Batch
from vedette.model.events import Column, Kinds, RecordKind, Table, Value
from vedette.text.addresses import canonical, prefix

HEADER = re.compile(r"(\w{3} [ \d]\d \d\d:\d\d:\d\d) (\S+) ([\w()-]+)(?:\[(\d+)\])?: (.*)")
REPEATED = re.compile(r"message repeated (\d+) times: \[ (.*)\]")
SERVICES = {"sshd-session": "sshd", "useradd": "shadow", "userdel": "shadow", "usermod": "shadow", "passwd": "shadow"}

WHO = r"(?:(?P<invalid>invalid user )?(?P<user>.*))"
FROM = r"from (?P<ip>\S+) port (?P<port>\d+)"
PATTERNS = [
    ("sshd", rf"Failed (?P<method>\S+) for {WHO} {FROM} ssh2(?:: .*)?", {"event.action": "ssh-login-failed"}),
    ("sshd", rf"Accepted (?P<method>\S+) for {WHO} {FROM} ssh2(?:: .*)?", {"event.action": "ssh-login-succeeded"}),
    ("sshd", rf"Invalid user (?P<user>.*) {FROM}", {"event.action": "ssh-user-unknown"}),
    ("sshd", rf"Bad protocol version identification '.*' {FROM}", {"event.action": "ssh-probed"}),
    (
        "sshd",
        r"Connection closed by (?:authenticating user (?P<user>.*) )?(?P<ip>\S+) port (?P<port>\d+) \[preauth\]",
        {"event.action": "ssh-connection-closed", "vedette.ssh.preauth": True},
    ),
    (
        "sudo",
        r" *(?P<user>\S+) : \d incorrect password attempts ; .*",
        {"event.action": "sudo-authentication-failed"},
    ),
    (
        "sudo",
        r" *(?P<user>\S+) : (?:user NOT in sudoers|command not allowed) ; .*",
        {"event.action": "sudo-user-refused"},
    ),
    ("sudo", r" *(?P<user>\S+) : TTY=.*", {"event.action": "sudo-command-run"}),
    ("su", r"FAILED SU \(to \S+\) (?P<user>\S+) on \S+", {"event.action": "su-failed"}),
    ("su", r"\(to \S+\) (?P<user>\S+) on \S+", {"event.action": "su-succeeded"}),
    ("shadow", r"new user: name=(?P<target>[^,]+), UID=(?P<uid>\d+), .*", {"event.action": "user-created"}),
    (
        "shadow",
        r"change user '(?P<target>.*)' UID from '\d+' to '(?P<uid>\d+)'",
        {"event.action": "user-changed"},
    ),
    ("shadow", r"delete user '(?P<target>.*)'", {"event.action": "user-deleted"}),
    ("shadow", r"add '(?P<target>.*)' to group '(?P<group>.*)'", {"event.action": "group-member-added"}),
    ("shadow", r"pam_unix\(.*\): password changed for (?P<target>\S+)", {"event.action": "pam-password-changed"}),
    ("rsyslogd", r"\[origin .*\] exiting on signal \d+\.", {"event.action": "logging-stopped"}),
    ("rsyslogd", r"\[origin .*\] start", {"event.action": "logging-started"}),
    ("systemd-journald", r"Journal stopped", {"event.action": "logging-stopped"}),
    (
        "systemd-journald",
        r"Vacuuming done, freed (?!0B).* of archived journals .*",
        {"event.action": "logging-cleared"},
    ),
    ("systemd-journald", r"Suppressed \d+ messages from .*", {"event.action": "logging-suppressed"}),
]
COMPILED = [(service, re.compile(pattern), fixed) for service, pattern, fixed in PATTERNS]
GROUPS = {
    "user": "user.name",
    "method": "vedette.ssh.method",
    "target": "user.target.name",
    "uid": "user.target.id",
    "group": "group.name",
}


def kinds_of(services: Sequence[str]) -> Kinds:
    """Linux records of these services; those about who may do what are of `auth` too."""
    groups = {
        name: frozenset({name} | ({"auth"} if name in ("sshd", "sudo", "shadow") else set())) for name in services
    }
    return Kinds.from_kinds([RecordKind("linux", services=groups[name]) for name in services])


def fields_of(service: str, message: str, pid: str) -> dict[str, Value]:
    for of, pattern, fixed in COMPILED:
        if of != service or not (match := pattern.fullmatch(message)):
            continue
        groups = {name: text for name, text in match.groupdict().items() if text is not None}
        fields: dict[str, Value] = dict(fixed)
        fields.update({GROUPS[name]: text for name, text in groups.items() if name in GROUPS})
        if service == "sshd" and "user" in groups:
            unknown = "invalid" in groups or fixed["event.action"] == "ssh-user-unknown"
            fields["vedette.ssh.user_known"] = not unknown
        if address := canonical(groups.get("ip", "")):
            fields["source.ip"] = address
            fields["vedette.source.prefix"] = prefix(address, 24, 64)
            fields["vedette.ssh.connection"] = f"web1/{pid}/{groups['port']}"
        return fields
    return {}


class PlainParser:
    """One record at a time, one expression after the other."""

    def parse(self, batch: Batch) -> Table:
        rows: list[dict[str, Value]] = []
        times, services, repeats = [], [], []
        for row in range(len(batch)):
            header = HEADER.fullmatch(batch.raw(row).decode())
            assert header is not None, f"no header this parser knows: {batch.raw(row)!r}"
            stamp, host, program, pid, message = header.groups()
            time = datetime.strptime(f"2026 {stamp}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
            repeat = 1
            if again := REPEATED.fullmatch(message):
                repeat, message = int(again[1]), again[2]
            service = SERVICES.get(program, program)
            times.append(int(time.timestamp()) * 1_000_000)
            services.append(service)
            repeats.append(repeat)
            common: dict[str, Value] = {"host.name": host, "vedette.service": service, "message": message}
            rows.append(common | fields_of(service, message, pid or ""))
        table = Table(
            batch,
            time=np.array(times, dtype=np.int64),
            kinds=kinds_of(services),
            repeat=np.array(repeats, dtype=np.int32),
        )
        for name in {name for row in rows for name in row}:
            table.provide(name, lambda name=name: Column.from_values([row.get(name) for row in rows]))
        return table


class NoCounter:
    def add(self, name: str, reason: object = "", n: int = 1) -> None:
        """Counts nothing."""

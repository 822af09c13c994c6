"""Makes the events that the benchmarks replay: Sysmon in three JSON shapes, Linux audit records; same seed, same bytes.
Counterpart: `bench.authlog` makes syslog lines; tests/bench holds the shares and that no command line comes twice."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

# Part of the cache's file name: count it up whenever the records change.
VERSION = 1

START = datetime(2026, 11, 20, tzinfo=UTC)
SHAPES = ("flat", "winlogbeat", "nested")

_CHANNEL, _PROVIDER = "Microsoft-Windows-Sysmon/Operational", "Microsoft-Windows-Sysmon"
_GUID = "5770385f-c22a-43e0-bf4c-06f5698ffbd9"
_HOSTS = tuple(f"WS{number:03}.corp.example" for number in range(40))
_USERS = (*("NT AUTHORITY\\SYSTEM",) * 4, *(f"CORP\\user{number:02}" for number in range(30)))
_PROGRAMS = (
    # path, description, original name, a command line with a place for what tells it apart
    (
        "C:\\Windows\\System32\\svchost.exe",
        "Host Process for Windows Services",
        "svchost.exe",
        "{0} -k netsvcs -s s{1}",
    ),
    ("C:\\Windows\\System32\\cmd.exe", "Windows Command Processor", "Cmd.Exe", '{0} /c "C:\\ops\\job.cmd" {1}'),
    ("C:\\Windows\\System32\\conhost.exe", "Console Window Host", "CONHOST.EXE", "{0} 0x{1:x} -ForceV1"),
    ("C:\\Windows\\explorer.exe", "Windows Explorer", "EXPLORER.EXE", "{0} /factory,{{{1:032x}}}"),
    ("C:\\Program Files\\Mozilla Firefox\\firefox.exe", "Firefox", "firefox.exe", '"{0}" -contentproc -channel={1}'),
    ("C:\\Program Files\\Microsoft Office\\Root\\Office16\\EXCEL.EXE", "Excel", "Excel.exe", '"{0}" "report-{1}.xlsx"'),
    (
        "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe",
        "PowerShell",
        "PowerShell.EXE",
        "{0} -File {1}.ps1",
    ),
    ("C:\\Windows\\System32\\taskhostw.exe", "Host Process for Tasks", "taskhostw.exe", "{0} {1}"),
    ("C:\\Program Files\\Agent\\agent.exe", "Monitoring Agent", "agent.exe", '"{0}" --job {1}'),
    ("C:\\Windows\\System32\\net.exe", "Net Command", "net.exe", "net use Z: \\\\files\\share{1}"),
)
_LIBRARIES = tuple(
    f"C:\\Windows\\System32\\{name}.dll" for name in ("ntdll", "kernel32", "crypt32", "ws2_32", "dbghelp")
)
_KEYS = (
    "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Explorer\\item{0}",
    "HKU\\S-1-5-21-1-2-3-{1}\\Software\\Vendor\\Product\\value{0}",
    "HKLM\\System\\CurrentControlSet\\Services\\svc{1}\\Parameters\\p{0}",
)
_FOLDERS = ("C:\\Users\\user{1:02}\\AppData\\Local\\Temp\\t{0}.tmp", "C:\\ProgramData\\Agent\\cache\\{0}.dat")
_NAMES = ("www.example.com", "update.example.net", "cdn{1}.example.org", "files.corp.example")

# Shares of event ids, in percent.
MIX = {1: 16, 3: 9, 5: 12, 7: 20, 10: 8, 11: 14, 12: 4, 13: 12, 17: 1, 22: 4}


def _digest(dice: random.Random, bits: int) -> str:
    return f"{dice.getrandbits(bits):0{bits // 4}X}"


class _Sysmon:
    """Events of some hosts, one after the other."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.deck = [event_id for event_id, share in MIX.items() for _ in range(share)]
        self.hashes = {
            path: ",".join(
                f"{name}={_digest(self.dice, bits)}" for name, bits in (("MD5", 128), ("SHA256", 256), ("IMPHASH", 128))
            )
            for path in (*(program[0] for program in _PROGRAMS), *_LIBRARIES)
        }
        self.guids = [f"{{{_digest(self.dice, 128)}}}" for _ in range(400)]

    def data(self, event_id: int, number: int) -> dict[str, Any]:
        """The fields of one event."""
        dice = self.dice
        path, description, original, command = dice.choice(_PROGRAMS)
        parent = dice.choice(_PROGRAMS)
        other = dice.randrange(50)
        own: dict[str, Any] = {
            "ProcessGuid": dice.choice(self.guids),
            "ProcessId": dice.randrange(4, 20_000),
            "Image": path,
        }
        user = {"User": dice.choice(_USERS)}
        about = {
            "FileVersion": "10.0.19041.1 (WinBuild.160101.0800)",
            "Description": description,
            "Product": "Microsoft Windows Operating System",
            "Company": "Microsoft Corporation",
            "OriginalFileName": original,
        }
        if event_id == 1:
            return {
                **own,
                **about,
                "CommandLine": command.format(path, number),
                "CurrentDirectory": "C:\\Windows\\system32\\",
                **user,
                "LogonGuid": dice.choice(self.guids),
                "LogonId": f"0x{dice.randrange(1 << 20):x}",
                "TerminalSessionId": dice.randrange(3),
                "IntegrityLevel": dice.choice(("System", "High", "Medium")),
                "Hashes": self.hashes[path],
                "ParentProcessGuid": dice.choice(self.guids),
                "ParentProcessId": dice.randrange(4, 20_000),
                "ParentImage": parent[0],
                "ParentCommandLine": parent[3].format(parent[0], number % 997),
                "ParentUser": user["User"],
            }
        if event_id == 3:
            ours, theirs = f"10.0.{other}.{number % 250 + 1}", f"198.18.{dice.randrange(256)}.{dice.randrange(256)}"
            return {
                **own,
                **user,
                "Protocol": "tcp",
                "Initiated": "true",
                "SourceIsIpv6": "false",
                "SourceIp": ours,
                "SourceHostname": "-",
                "SourcePort": dice.randrange(49_152, 65_536),
                "SourcePortName": "-",
                "DestinationIsIpv6": "false",
                "DestinationIp": theirs,
                "DestinationHostname": dice.choice(_NAMES).format(number, other),
                "DestinationPort": dice.choice((80, 443, 443, 443, 53, 8080)),
                "DestinationPortName": "-",
            }
        if event_id == 7:
            library = dice.choice(_LIBRARIES)
            return {
                **own,
                "ImageLoaded": library,
                **about,
                "Hashes": self.hashes[library],
                "Signed": "true",
                "Signature": "Microsoft Windows",
                "SignatureStatus": "Valid",
                **user,
            }
        if event_id == 10:
            return {
                "SourceProcessGUID": own["ProcessGuid"],
                "SourceProcessId": own["ProcessId"],
                "SourceThreadId": dice.randrange(9_999),
                "SourceImage": path,
                "TargetProcessGUID": dice.choice(self.guids),
                "TargetProcessId": dice.randrange(20_000),
                "TargetImage": parent[0],
                "GrantedAccess": dice.choice(("0x1000", "0x1400", "0x1f3fff")),
                "CallTrace": "|".join(f"{name}+{dice.randrange(1 << 20):x}" for name in _LIBRARIES),
                "SourceUser": user["User"],
                "TargetUser": "NT AUTHORITY\\SYSTEM",
            }
        if event_id == 11:
            return {
                **own,
                "TargetFilename": dice.choice(_FOLDERS).format(number, other),
                "CreationUtcTime": "-",
                **user,
            }
        if event_id in (12, 13):
            changed: dict[str, Any] = {"EventType": "SetValue" if event_id == 13 else "CreateKey", **own}
            changed["TargetObject"] = dice.choice(_KEYS).format(number, other)
            if event_id == 13:
                changed["Details"] = dice.choice(
                    ("DWORD (0x00000001)", f"C:\\ProgramData\\{number}.bin", "Binary Data")
                )
            return {**changed, **user}
        if event_id == 17:
            return {"EventType": "CreatePipe", **own, "PipeName": f"\\mojo.{number}", **user}
        if event_id == 22:
            name = dice.choice(_NAMES).format(number, other)
            return {**own, "QueryName": name, "QueryStatus": "0", "QueryResults": "198.18.0.1;", **user}
        return {**own, **user}


def _flat(event_id: int, number: int, host: str, time: datetime, data: dict[str, Any]) -> dict[str, Any]:
    stamp = time.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    return {
        "EventID": event_id,
        "Channel": _CHANNEL,
        "Provider_Name": _PROVIDER,
        "Computer": host,
        "EventRecordID": number,
        "RuleName": "-",
        "UtcTime": stamp,
        **data,
    }


def _winlogbeat(event_id: int, number: int, host: str, time: datetime, data: dict[str, Any]) -> dict[str, Any]:
    stamp = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "@timestamp": stamp,
        "event": {"code": str(event_id), "kind": "event", "provider": _PROVIDER},
        "host": {"name": host},
        "log": {"level": "information"},
        "winlog": {
            "channel": _CHANNEL,
            "computer_name": host,
            "event_data": {key: str(value) for key, value in data.items()},
            "event_id": str(event_id),
            "provider_name": _PROVIDER,
            "record_id": number,
        },
    }


def _nested(event_id: int, number: int, host: str, time: datetime, data: dict[str, Any]) -> dict[str, Any]:
    stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    system = {
        "Provider": {"#attributes": {"Name": _PROVIDER, "Guid": _GUID}},
        "EventID": event_id,
        "Version": 5,
        "Level": 4,
        "Task": event_id,
        "Opcode": 0,
        "Keywords": "0x8000000000000000",
        "TimeCreated": {"#attributes": {"SystemTime": stamp}},
        "EventRecordID": number,
        "Channel": _CHANNEL,
        "Computer": host,
    }
    return {"Event": {"System": system, "EventData": {"RuleName": "-", **data}}}


_MAKERS: dict[str, Callable[[int, int, str, datetime, dict[str, Any]], dict[str, Any]]] = {
    "flat": _flat,
    "winlogbeat": _winlogbeat,
    "nested": _nested,
}


def sysmon(count: int, shape: str = "flat", seed: int = 1) -> Iterator[bytes]:
    """`count` Sysmon events as JSON without a line end. No two command lines are equal."""
    made, world = _MAKERS[shape], _Sysmon(seed)
    time = START
    for number in range(count):
        time += timedelta(microseconds=world.dice.randrange(1, 4000) * 1000)
        event_id = world.dice.choice(world.deck)
        host = world.dice.choice(_HOSTS)
        yield orjson.dumps(made(event_id, number, host, time, world.data(event_id, number)))


# ------------------------------------------------------------------------------------------------- audit

_COMMANDS = (
    ("/usr/bin/bash", ("bash", "-c", "/opt/job/run.sh --id {0}")),
    ("/usr/bin/python3.11", ("python3", "/opt/app/worker.py", "--task", "{0}")),
    ("/usr/bin/cat", ("cat", "/proc/{0}/status")),
    ("/usr/bin/systemctl", ("systemctl", "is-active", "svc-{0}.service")),
    ("/usr/bin/find", ("find", "/var/lib/app", "-name", "*{0}*.tmp")),
    ("/usr/bin/id", ("id", "-u", "app{0}")),
)
# Shares of execve, connect, openat, and single records of logins, in percent.
AUDIT_MIX = {"execve": 50, "connect": 15, "openat": 20, "login": 15}


def _argument(text: str) -> str:
    return f'"{text}"' if " " not in text and '"' not in text else text.encode().hex().upper()


def audit(count: int, seed: int = 1) -> Iterator[list[bytes]]:
    """`count` Linux audit events, each a list of its records. No two command lines are equal."""
    dice = random.Random(seed)
    deck = [kind for kind, share in AUDIT_MIX.items() for _ in range(share)]
    time = START.timestamp()
    for number in range(count):
        time += dice.randrange(1, 20) / 1000
        told = f"msg=audit({time:.3f}:{100_000 + number}):"
        kind = dice.choice(deck)
        path, words = dice.choice(_COMMANDS)
        words = tuple(word.format(number) for word in words)
        pid, uid = dice.randrange(300, 30_000), dice.choice((0, 0, 33, 1000, 1001))
        common = (
            f"ppid={pid - 7} pid={pid} auid={uid} uid={uid} gid={uid} euid={uid} suid={uid} fsuid={uid} egid={uid} "
            f'sgid={uid} fsgid={uid} tty=(none) ses={number % 90} comm="{words[0]}" exe="{path}" subj=unconfined'
        )
        inode = f"dev=fd:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 inode={dice.randrange(10**6)}"
        title = f"type=PROCTITLE {told} proctitle={chr(0).join(words).encode().hex().upper()}"
        if kind == "execve":
            arguments = " ".join(f"a{place}={_argument(word)}" for place, word in enumerate(words))
            records = [
                f"type=SYSCALL {told} arch=c000003e syscall=59 success=yes exit=0 a0=55d0c8 a1=55d0d0 a2=55d0e0 a3=8 "
                f'items=2 {common} key="exec"',
                f"type=EXECVE {told} argc={len(words)} {arguments}",
                f'type=CWD {told} cwd="/var/lib/app"',
                f'type=PATH {told} item=0 name="{path}" {inode} nametype=NORMAL cap_fp=0 cap_fi=0 cap_fe=0',
                title,
            ]
        elif kind == "connect":
            address = f"0200{dice.choice((443, 53, 8080)):04X}C612{dice.randrange(1 << 16):04X}0000000000000000"
            records = [
                f"type=SYSCALL {told} arch=c000003e syscall=42 success=yes exit=0 a0=3 a1=7ffd a2=10 a3=0 items=0 "
                f'{common} key="net"',
                f"type=SOCKADDR {told} saddr={address}",
                title,
            ]
        elif kind == "openat":
            records = [
                f"type=SYSCALL {told} arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7ffd a2=241 a3=1b6 "
                f'items=2 {common} key="files"',
                f'type=CWD {told} cwd="/var/lib/app"',
                f'type=PATH {told} item=0 name="/var/lib/app/" {inode} nametype=PARENT cap_fp=0',
                f'type=PATH {told} item=1 name="/var/lib/app/out-{number}.tmp" {inode} nametype=CREATE cap_fp=0',
                title,
            ]
        else:
            records = [
                f"type=USER_LOGIN {told} pid={pid} uid=0 auid={uid} ses={number % 90} subj=unconfined "
                f'msg=\'op=login id={uid} exe="/usr/sbin/sshd" hostname=198.18.0.{number % 250} '
                f"addr=198.18.0.{number % 250} terminal=ssh res={dice.choice(('success', 'failed'))}'"
            ]
        yield [record.encode() for record in records]


def blob(kind: str, count: int, seed: int = 1) -> bytes:
    """`count` events of `flat`, `winlogbeat`, `nested` or `audit` as the bytes of a file."""
    if kind == "audit":
        return b"".join(record + b"\n" for records in audit(count, seed) for record in records)
    return b"".join(record + b"\n" for record in sysmon(count, kind, seed))


def cached(kind: str, count: int, seed: int = 1) -> Path:
    """The file of these events, made when it is not there."""
    folder = Path(tempfile.gettempdir()) / f"vedette-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"events-{kind}-v{VERSION}-{count}-{seed}.log"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(blob(kind, count, seed))
        part.rename(path)
    return path


def main() -> None:
    """`python -m bench.events KIND COUNT`: print where the file is."""
    parser = argparse.ArgumentParser(prog="python -m bench.events")
    parser.add_argument("kind", choices=(*SHAPES, "audit"))
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(cached(given.kind, given.count, given.seed))


if __name__ == "__main__":
    main()

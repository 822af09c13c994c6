"""What scenarios of the whole program share: its settings, lines as sshd and rsyslog write them, what the kernel says.
Counterpart: vedette.py starts the program; test_main_job.py and test_lasting.py tell the stories."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .attacker import Assault
from .certificates import Authority
from .netns import LEGITIMATE, Namespace
from .nft import Table, read_table
from .pagerduty import ROUTING_KEY, PagerDuty
from .processes import wait_until
from .smtp import SmtpServer
from .vedette import Vedette

RULE = "ssh-brute-force-address"
BREAK_IN = "ssh-success-after-failures"
PATIENCE = 60.0

ROUTES = {
    "receiver": "",
    "group_wait": "0s",
    "group_interval": "1s",
    "routes": [
        {"matchers": ["level=~high|critical"], "receiver": "pager"},
        {"matchers": ["level=medium"], "receiver": "mail"},
    ],
}

# Stored and told to nobody: shows that everything before it has been judged.
MARKER = """\
title: Marker
id: test-marker
status: test
description: Somebody offered a key in vain.
level: informational
logsource: {product: linux, service: sshd}
detection:
  offered:
    event.action: ssh-login-failed
    vedette.ssh.method: publickey
  condition: offered
"""

# A rule of the operator's own, with a lease short enough to see it end.
SHORT_LEASE = """\
title: Three guesses
id: three-guesses
status: test
description: For the test of a lease that ends.
level: medium
correlation:
  type: event_count
  rules: [ssh-guess]
  group-by: [source.ip]
  timespan: 1m
  condition: {gte: 3}
vedette:
  response: {target: source.ip, lease: 3s}
"""


def receivers(smtp: SmtpServer, pagerduty: PagerDuty, authority: Authority, scratch: Path) -> dict[str, Any]:
    """`notify.receivers` for both servers; secrets in files as an operator would keep them."""
    for name, secret in (("mail-secret", "mail secret"), ("routing-key", ROUTING_KEY)):
        (scratch / name).write_text(secret + "\n")
        (scratch / name).chmod(0o600)
    trust = {"ca_file": authority.ca_file}
    return {
        "mail": {
            "type": "email",
            "host": "localhost",
            "port": smtp.port,
            "security": "starttls",
            "username": "vedette",
            "password": {"file": scratch / "mail-secret"},
            "from": "Vedette <vedette@example.org>",
            "to": ["ops@example.org"],
            "trust": trust,
        },
        "pager": {
            "type": "pagerduty",
            "routing_key": {"file": scratch / "routing-key"},
            "url": pagerduty.enqueue_url,
            "trust": trust,
        },
    }


def file_source(path: Path, *, accept: bool) -> dict[str, Any]:
    """`sources` with one file."""
    return {"file": [{"paths": [path], "accept_forgeable": accept}]}


def table(server: Namespace) -> Table:
    """The kernel's table, empty where there is none."""
    found = read_table(server, "inet", "vedette")
    return found or Table()


def blocked(server: Namespace) -> set[str]:
    """Addresses in the kernel's sets."""
    return {one.value for elements in table(server).sets.values() for one in elements}


def wait_for_block(vedette: Vedette, server: Namespace, address: str) -> None:
    wait_until(f"{address} blocked; {vedette.log}", lambda: address in blocked(server), PATIENCE)


def guesses(count: int) -> list[str]:
    """So many passwords, none of them right."""
    return [f"guess {number}" for number in range(count)]


def lines_of(assault: Assault) -> int:
    """Lines a stream job has read."""
    return sum(one.outcome == "line" for one in assault.attempts())


def write_failures(log: Path, address: str, count: int, *, user: str = "root") -> None:
    """Append lines as sshd and rsyslog would."""
    with log.open("a") as file:
        for port in range(count):
            stamp = datetime.now(UTC).isoformat(timespec="microseconds")
            line = f"Failed password for {user} from {address} port {40000 + port} ssh2"
            file.write(f"{stamp} bastion sshd[812]: {line}\n")


def write_login(log: Path, address: str, user: str) -> None:
    """Append the line of a login by password."""
    with log.open("a") as file:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        file.write(f"{stamp} bastion sshd[900]: Accepted password for {user} from {address} port 50000 ssh2\n")


def write_marker(log: Path) -> None:
    """Append a line that `MARKER` finds."""
    with log.open("a") as file:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        file.write(f"{stamp} bastion sshd[900]: Failed publickey for alice from {LEGITIMATE} port 50000 ssh2\n")


def prepare_marked(scratch: Path) -> tuple[Path, dict[str, Any]]:
    """An empty log, and settings that read it with `MARKER` and block."""
    log = scratch / "auth.log"
    log.touch()
    (scratch / "marker.yml").write_text(MARKER)
    return log, {
        "sources": file_source(log, accept=True),
        "rules": {"paths": [scratch / "marker.yml"]},
        "respond": {RULE: "enforce"},
    }

"""A command line, a state with alerts in it, and text as hostile as logs have it.
Counterpart: the tests of this folder, which say what a person typed and read what came."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import run as run_program
from typing import Any

from typer.testing import CliRunner

from vedette.alerts import lifecycle
from vedette.alerts.routing import Router
from vedette.app.counters import Counters
from vedette.app.host import STATE_FILE
from vedette.app.receivers import receiver_kinds
from vedette.cli.commands import app
from vedette.config.load import load_settings
from vedette.model.alerts import Alert
from vedette.model.clock import MINUTE, SystemClock
from vedette.model.findings import Evidence, Finding, finding_id
from vedette.model.levels import Level
from vedette.model.reasons import BlameReason
from vedette.model.rules import Rule, RuleKind
from vedette.store.state import State

HOSTILE = "eve\x1b[2J\x9b31m\r\nAccepted \u202efor root\u2028\U0010ff9b"
"""ESC, C1, line breaks, a bidirectional override, a line separator, and a byte that is no UTF-8."""
HARMFUL = "\x1b\x9b\r\u202e\u2028\U0010ff9b\x07\x00"

RULES = {
    rule.id: rule
    for rule in (
        Rule("ssh-guess-much", "Many guesses", Level.MEDIUM, key=("source.ip",), advice="Look at it.\nThen decide."),
        Rule("ssh-got-in", "Somebody got in", Level.HIGH, key=("user.name",)),
        Rule("port-open", "A port is open", Level.LOW, kind=RuleKind.CONDITION, key=("source.ip",)),
    )
}


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def vedette(*words: object, stdin: bytes = b"") -> Ran:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, prog_name="vedette")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def program(*words: object, before: str = "") -> Ran:
    """Run a command in a process of its own; before: Python that runs first."""
    code = f"{before}\nimport sys\nfrom vedette.cli import main\nsys.argv[0] = 'vedette'\nmain()"
    done = run_program(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


class Place:
    """A configuration and its data folder. Its one enforcer is a hosts.deny in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.hosts_deny = folder / "hosts.deny"
        self.config = folder / "vedette.yml"
        self.configure("")

    def configure(self, more: str) -> None:
        self.config.write_text(
            f"version: 1\ndata: {self.data}\n"
            f"blocking: {{enforcers: [hosts_deny], hosts_deny: {{path: {self.hosts_deny}}}, "
            "allowlist: [{network: 198.51.100.0/24, comment: office}]}\n" + more
        )

    def run(self, *words: object) -> Ran:
        return vedette(*words, "--config", self.config)

    def state(self) -> State:
        self.data.mkdir(exist_ok=True)
        return State(self.data / STATE_FILE)

    def fire(self, *fired: tuple[str, dict[str, str]]) -> list[Alert]:
        """Findings of `RULES` become alerts, as in a running `up`."""
        settings = load_settings(self.config)
        router = Router(settings.alerts, receiver_kinds(settings.notify), Counters())
        now = SystemClock().now()
        findings = [finding(rule_id, key, now - MINUTE + number) for number, (rule_id, key) in enumerate(fired)]
        state = self.state()
        with state.transaction() as tx:
            changes = lifecycle.apply(findings, [], tx, now, RULES, Counters(), host_id="h1")
            router.plan(changes, tx, now)
        state.close()
        return [change.alert for change in changes]


def finding(rule_id: str, key: dict[str, str], time: int) -> Finding:
    rule = RULES[rule_id]
    return Finding(
        id=finding_id(rule_id, dict(key), time, b"raw", 0),
        rule_id=rule_id,
        rule_name=rule.name,
        level=rule.level,
        time=time,
        key=dict(key),
        host_id="h1",
        host_name="web01",
        source_ip=key.get("source.ip", ""),
        user_name=key.get("user.name", ""),
        count=7,
        records=tuple(Evidence(f"h1/file:/var/log/auth.log/0:{number}", time) for number in range(12)),
        blame=BlameReason.ALLOWED,
        sample="Failed password",
    )

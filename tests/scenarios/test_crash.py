"""`kill -9` at random points of it all: what a person, a pager and the state know in the end is as if nothing happened.
Counterpart: `app.pipeline`, whose one transaction this rests on; tests/store/test_crash.py kills the store alone."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.forked import ForkedVedette
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty
from tests.scenarios.parts.processes import Processes, run, wait_until
from tests.scenarios.parts.smtp import SmtpServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RULE, ENFORCED = "ssh-brute-force-address", "ssh-unknown-users"
CONDITION, BREAK_IN = "logging-stopped", "ssh-success-after-failures"
KILLS = 25
ADDRESSES = 40
LAST = "192.0.2.250"
PATIENCE = 60.0

ROUTES = {
    "receiver": "",
    "group_wait": "0s",
    "group_interval": "1s",
    "routes": [
        {"matchers": [f"rule.id={CONDITION}"], "receiver": "pager"},
        {"matchers": ["level=~high|critical"], "receiver": "pager"},
        {"matchers": ["level=~low|medium"], "receiver": "mail"},
    ],
}


def settings_for(log: Path, *, begin: str = "end", **more: Any) -> dict[str, Any]:
    """Blocks are decided and carried out by nobody, so that this runs without root and harms no host."""
    return {
        "sources": {"file": [{"paths": [log], "begin": begin, "accept_forgeable": True}]},
        "respond": {RULE: "simulate", ENFORCED: "enforce"},
        "blocking": {"enforcers": []},
        **more,
    }


def telling(smtp: SmtpServer, pagerduty: PagerDuty, authority: Authority, scratch: Path) -> dict[str, Any]:
    for name, secret in (("mail-secret", "mail secret"), ("routing-key", ROUTING_KEY)):
        (scratch / name).write_text(secret)
        (scratch / name).chmod(0o600)
    trust = {"ca_file": authority.ca_file}
    often = {"per_minute": 6000, "burst": 1000}
    mail = {
        "type": "email",
        "host": "localhost",
        "port": smtp.port,
        "security": "starttls",
        "username": "vedette",
        "password": {"file": scratch / "mail-secret"},
        # It waits for the end of its hour, and here everything planned is to be told in seconds.
        "ledger_head": "never",
        "to": ["ops@example.org"],
        "trust": trust,
        "rate": often,
    }
    pager = {
        "type": "pagerduty",
        "routing_key": {"file": scratch / "routing-key"},
        "url": pagerduty.enqueue_url,
        "trust": trust,
        "rate": often,
    }
    return {"alerts": {"route": ROUTES}, "notify": {"receivers": {"mail": mail, "pager": pager}}}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def replay(log: Path) -> list[dict[str, Any]]:
    program = str(Path(sys.executable).with_name("vedette"))
    return [json.loads(line) for line in run([program, "replay", str(log), "--output", "json"]).splitlines()]


class Writer:
    """Writes an auth.log as attackers, users and a logger make it, until it is told to end; rotates it now and then.

    lines: all that was written, in order. Lines may be written in two halves, and a rotated file gets some more.
    """

    def __init__(self, log: Path, seed: int) -> None:
        self.lines: list[str] = []
        self._log = log
        self._choose = random.Random(seed)
        self._file = log.open("a")
        log.chmod(0o644)
        self._end = threading.Event()
        self._rotated = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write no more; the attack that comes last has then been written whole."""
        self._end.set()
        self._thread.join(30)
        self._logger("exiting on signal 15.")
        for _ in range(5):
            self._write(f"Failed password for root from {LAST} port {len(self.lines)} ssh2")
        self._file.close()

    def _run(self) -> None:
        while not self._end.wait(self._choose.choice([0.001, 0.005, 0.02])):
            for _ in range(self._choose.choice([1, 1, 2, 5])):
                self._some_line()
            if len(self.lines) > 700 * (self._rotated + 1):
                self._rotate()

    def _some_line(self) -> None:
        choose = self._choose
        address = f"198.51.{choose.randrange(ADDRESSES)}.7"
        dice = choose.random()
        if dice < 0.006:
            self._logger(choose.choice(["exiting on signal 15.", "start"]))
        elif dice < 0.016:
            self._write(f"Accepted password for bob from {address} port {len(self.lines) % 60000} ssh2")
        elif dice < 0.3:
            who = choose.choice(
                ["root", "alice", "invalid user x from 203.0.113.9", f"invalid user u{choose.randrange(9)}"]
            )
            self._write(f"Failed password for {who} from {address} port {len(self.lines) % 60000} ssh2")
        else:
            self._write(f"pam_unix(sshd:session): session closed for user u{len(self.lines)}")

    def _logger(self, says: str) -> None:
        who = f'swVersion="8.2302.0" x-pid="{len(self.lines)}" x-info="https://www.rsyslog.com"'
        self._write(f'[origin software="rsyslogd" {who}] {says}', "rsyslogd")

    def _write(self, message: str, program: str = "sshd[812]") -> None:
        line = f"{now()} bastion {program}: {message}"
        self.lines.append(line)
        cut = self._choose.randrange(len(line)) if self._choose.random() < 0.05 else 0
        if cut:
            self._file.write(line[:cut])
            self._file.flush()
            self._end.wait(self._choose.choice([0.0, 0.01, 0.1]))
        self._file.write(line[cut:] + "\n")
        self._file.flush()

    def _rotate(self) -> None:
        self._rotated += 1
        for number in range(self._rotated, 0, -1):
            older = self._log.with_name(f"{self._log.name}.{number}")
            newer = self._log.with_name(f"{self._log.name}.{number - 1}") if number > 1 else self._log
            newer.rename(older)
        # Who writes still holds the old file for a while.
        for _ in range(self._choose.randrange(4)):
            self._some_line()
        self._file.close()
        self._file = self._log.open("a")
        self._log.chmod(0o644)


@pytest.fixture
def begin(processes: Processes, scratch: Path) -> Callable[..., ForkedVedette]:
    def make(name: str, settings: Mapping[str, Any]) -> ForkedVedette:
        return ForkedVedette(processes, scratch / name, settings)

    return make


def wait_for_finding(vedette: ForkedVedette, address: str) -> None:
    asked = "select count(*) from findings where rule_id = ? and body like ?"
    wait_until(
        f"a finding about {address}; {vedette.log}",
        lambda: vedette.query(asked, [RULE, f"%{address}%"])[0][0] > 0,
        PATIENCE,
    )


def told(vedette: ForkedVedette) -> bool:
    """Whether everything planned has been told."""
    soon = datetime.now(UTC).timestamp() * 1e6 + 10e6
    (pending,) = vedette.query("select count(*) from outbox where state = 'pending'")[0]
    (due,) = vedette.query("select count(*) from alert_groups where due_at > 0 and due_at < ?", [soon])[0]
    return not pending and not due


def bodies(vedette: ForkedVedette, table: str) -> list[dict[str, Any]]:
    return [json.loads(body) for (body,) in vedette.query(f"select body from {table}")]


def known(vedette: ForkedVedette) -> dict[str, Any]:
    """What must not depend on crashes: ids and times that are made anew each time are left out."""
    (host,) = {one["host_id"] for one in bodies(vedette, "findings")}
    return {
        "findings": {one["id"]: (one["rule_id"], one["count"]) for one in bodies(vedette, "findings")},
        "alerts": sorted(
            (one["key"].replace(host, "HOST"), one["state"], one["count"], one["finding_ids"])
            for one in bodies(vedette, "alerts")
        ),
        "decisions": sorted(
            (one["target"]["value"], one["state"], one["owner"], one["finding_id"])
            for one in bodies(vedette, "decisions")
        ),
    }


def check_mails(vedette: ForkedVedette, smtp: SmtpServer) -> None:
    """Each mail at least once, each repetition the same mail under the same Message-ID, and no others."""
    items = [one for one in bodies(vedette, "outbox") if one["notification"]["receiver"] == "mail"]
    assert {one["state"] for one in items} == {"delivered"}
    by_id: dict[str, set[str]] = {}
    for mail in smtp.mails:
        by_id.setdefault(mail.message_id, set()).add(mail.text())
    assert len(by_id) == len(items)
    assert {len(texts) for texts in by_id.values()} == {1}


def check_incidents(vedette: ForkedVedette, pagerduty: PagerDuty) -> None:
    """No incident twice, none left open whose alerts are over, none missing whose alerts are not."""
    opened = Counter(incident.dedup_key for incident in pagerduty.incidents)
    assert set(opened.values()) == {1}
    triggers = [one for one in bodies(vedette, "outbox") if one["notification"]["kind"] == "trigger"]
    pages = [one for one in triggers if one["notification"]["receiver"] == "pager"]
    rules = {one["notification"]["dedup_key"]: one["notification"]["group_labels"]["rule.id"] for one in pages}
    delivered = {one["notification"]["dedup_key"] for one in pages if one["state"] == "delivered"}
    # A page that was delivered, not yet noted at the kill, and over by then is superseded: its end follows it.
    assert delivered <= opened.keys() <= rules.keys()
    unresolved = {one["rule_id"] for one in bodies(vedette, "alerts") if one["state"] != "resolved"}
    still = [rules[incident.dedup_key] for incident in pagerduty.open_incidents()]
    assert sorted(still) == sorted(unresolved & {CONDITION, BREAK_IN}) == sorted({CONDITION, BREAK_IN})


def check_everybody_was_told(vedette: ForkedVedette) -> None:
    """Of every alert somebody was told, unless its condition was over before."""
    named = {member["id"] for one in bodies(vedette, "outbox") for member in one["notification"]["members"]}
    silent = [one for one in bodies(vedette, "alerts") if one["id"] not in named]
    assert [one for one in silent if one["kind"] != "condition" or one["state"] != "resolved"] == []


def test_dozens_of_kills_change_nothing(
    begin: Callable[..., ForkedVedette],
    scratch: Path,
    smtp: SmtpServer,
    pagerduty: PagerDuty,
    authority: Authority,
):
    choose = random.Random(20261124)
    folder = scratch / "logs"
    folder.mkdir(mode=0o755)
    log = folder / "auth.log"
    log.write_text(f"{now()} bastion sshd[812]: Server listening on 0.0.0.0 port 22.\n")
    log.chmod(0o644)
    vedette = begin("killed", settings_for(log, **telling(smtp, pagerduty, authority, scratch)))
    # What is rotated away before it was ever looked at is nobody's to read.
    vedette.start()
    vedette.wait_until_up()
    wait_until("a cursor", lambda: bool(vedette.query("select * from cursors")), PATIENCE)
    vedette.kill()
    writer = Writer(log, 7)
    for number in range(KILLS):
        if number % 7 == 3:
            smtp.cut(stored=choose.random() < 0.7)
            pagerduty.plan(Answer("cut", applied=choose.random() < 0.7))
        vedette.start()
        if number % 3:
            vedette.wait_until_up()
        threading.Event().wait(choose.uniform(0, 0.5))
        vedette.kill()
    writer.end()
    vedette.start()
    wait_for_finding(vedette, LAST)
    wait_until(f"all told; {vedette.log}", lambda: told(vedette), PATIENCE)
    assert vedette.stop() == 0
    assert vedette.query("pragma integrity_check") == [("ok",)]
    assert "Traceback" not in vedette.log

    whole = scratch / "whole.log"
    whole.write_text("".join(line + "\n" for line in writer.lines))
    whole.chmod(0o644)
    replayed = replay(whole)
    plain = begin("plain", settings_for(whole, begin="beginning"))
    plain.start()
    plain.wait_until_up()
    wait_for_finding(plain, LAST)
    assert plain.stop() == 0

    found = known(vedette)
    assert found["findings"] == {one["finding.id"]: (one["rule.id"], one["count"]) for one in replayed}
    assert found == known(plain)
    # Or the comparison would say nothing.
    assert {rule for rule, _ in found["findings"].values()} >= {RULE, ENFORCED, CONDITION, BREAK_IN}
    check_mails(vedette, smtp)
    check_incidents(vedette, pagerduty)
    check_everybody_was_told(vedette)


@pytest.mark.parametrize("before", [1, 4])
def test_a_window_goes_on_after_a_kill(begin: Callable[..., ForkedVedette], scratch: Path, before: int):
    log = scratch / "auth.log"
    vedette = begin("vedette", settings_for(log, begin="beginning"))

    def fail(ports: range) -> None:
        with log.open("a") as file:
            for port in ports:
                file.write(f"{now()} bastion sshd[812]: Failed password for root from {LAST} port {port} ssh2\n")

    fail(range(before))
    log.chmod(0o644)
    vedette.start()
    kept = "select count(*) from correlation where rule_id = ?"
    vedette.wait_until_up()
    wait_until("the window is stored", lambda: vedette.query(kept, [RULE])[0][0] == 1, PATIENCE)
    vedette.kill()
    fail(range(before, 5))
    vedette.start()
    wait_for_finding(vedette, LAST)
    assert vedette.stop() == 0
    (finding,) = [one for one in bodies(vedette, "findings") if one["rule_id"] == RULE]
    assert finding["count"] == 5
    assert len({record["record_id"] for record in finding["records"]}) == 5

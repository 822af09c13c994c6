"""The main job, whole: a real sshd is attacked, people are told, the attacker's packets are dropped, nobody else's.
Counterpart: src/vedette/app/up.py, and every part in tests/scenarios/parts."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import ALICE, StartSshd, StartVedette
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Assault, Attacker, password_packet
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, LEGITIMATE, VICTIM, Namespace, Wire
from tests.scenarios.parts.nft import PublishedPort, Table, greeting, read_table
from tests.scenarios.parts.pagerduty import ROUTING_KEY, PagerDuty, post, send_webhook, signature
from tests.scenarios.parts.processes import run, wait_until
from tests.scenarios.parts.smtp import SmtpServer
from tests.scenarios.parts.sshd import User
from tests.scenarios.parts.sshd_sessions import new_key
from tests.scenarios.parts.syslogs import Journald, Rsyslog, log_as
from tests.scenarios.parts.vedette import Vedette

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

RULE = "ssh-brute-force-address"
BREAK_IN = "ssh-success-after-failures"
WEBHOOK_SECRET = "webhook secret"
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
    return {"file": [{"paths": [path], "accept_forgeable": accept}]}


def table(server: Namespace) -> Table:
    found = read_table(server, "inet", "vedette")
    return found or Table()


def blocked(server: Namespace) -> set[str]:
    """Addresses in the kernel's sets."""
    return {one.value for elements in table(server).sets.values() for one in elements}


def wait_for_block(vedette: Vedette, server: Namespace, address: str) -> None:
    wait_until(f"{address} blocked; {vedette.log}", lambda: address in blocked(server), PATIENCE)


def guesses(count: int) -> list[str]:
    return [f"guess {number}" for number in range(count)]


def lines_of(assault: Assault) -> int:
    return sum(one.outcome == "line" for one in assault.attempts())


def has_control_characters(text: str) -> bool:
    return any(ord(one) < 32 and one != "\n" or 127 <= ord(one) < 160 for one in text)


def test_attack_alert_mail_page_and_block(
    wire: Wire,
    start_sshd: StartSshd,
    start_rsyslog: Callable[..., Rsyslog],
    start_vedette: StartVedette,
    smtp_inside: SmtpServer,
    pagerduty_inside: PagerDuty,
    authority: Authority,
    published: PublishedPort,
    attacker: Attacker,
    legitimate: Attacker,
    scratch: Path,
):
    keys = [new_key() for _ in range(6)]
    log = scratch / "auth.log"
    rsyslog = start_rsyslog(log)
    bob = User("bob", "battery staple", keys=(keys[-1][1],))
    # A sixth key must still be looked at; sshd's own limit is another test's matter.
    start_sshd([ALICE, bob], devlog=rsyslog.devlog, options={"MaxAuthTries": "8"})
    tester = Attacker(wire.world, ATTACKERS[0])
    log.touch()
    vedette = start_vedette(
        {
            "sources": file_source(log, accept=True),
            "alerts": {"route": ROUTES},
            "notify": {"receivers": receivers(smtp_inside, pagerduty_inside, authority, scratch)},
            "respond": {RULE: "enforce"},
            "blocking": {"allowlist": [{"network": tester.source, "comment": "penetration tester"}]},
        }
    )
    assert "risk: file:" in vedette.life
    assert greeting(wire.world, ATTACKER, netns.SERVER, published.port) == ATTACKER
    assert not blocked(wire.server)

    # Connections that are there before anybody misbehaves.
    attackers_own = attacker.start([attacker.stream_job("alice", password=ALICE.password, count=100_000, timeout=5.0)])
    users_own = legitimate.start([legitimate.stream_job("alice", password=ALICE.password, count=100_000)])
    wait_until("both streams", lambda: min(lines_of(attackers_own), lines_of(users_own)) > 3)

    # The attack; the name carries what would move a terminal's cursor and begin a header line in a mail.
    hostile = "root\x1b[2J\r\nBcc: all@example.org"
    attacker.run([attacker.raw_job([password_packet(hostile, one) for one in guesses(5)], timeout=2.0)])
    attempts = attacker.guess("alice", guesses(200), timeout=2.0)
    wait_for_block(vedette, wire.server, ATTACKER)
    assert attempts[-1].outcome == "unreachable"
    assert len([one for one in attempts if one.secret is not None]) < 200

    # Dropped: new connections, the established one, the published port; and the kernel counted it.
    before = table(wire.server).counters["dropped"]
    assert not attacker.login("alice", password=ALICE.password)
    assert greeting(wire.world, ATTACKER, netns.SERVER, published.port) == "timeout"
    after = table(wire.server).counters["dropped"]
    assert after > before
    (element,) = table(wire.server).find(ATTACKER)
    assert element.packets is not None
    assert element.packets > 0
    assert element.timeout is not None
    assert 0 < element.timeout <= 3600
    wait_until("the attacker's session is ended", lambda: not attackers_own.running(), PATIENCE)
    assert attackers_own.attempts()[-1].outcome == "lost"

    # Nobody else is harmed: the old connection, a password, five wrong keys and then the right one.
    reached = lines_of(users_own)
    wait_until("the user's session goes on", lambda: lines_of(users_own) > reached)
    assert legitimate.login("alice", password=ALICE.password)
    assert legitimate.run([legitimate.key_job("bob", [key for key, _ in keys], command="true")])[-1].outcome == "exit 0"
    assert greeting(wire.world, LEGITIMATE, netns.SERVER, published.port) == LEGITIMATE

    # The alert, and the mail about it.
    alert = vedette.wait_for_alert(RULE, source__ip=ATTACKER)
    assert (alert["alert.state"], alert["level"], alert["host.name"]) == ("open", "medium", socket.gethostname())
    assert alert["count"] >= 5
    mail = smtp_inside.wait_for(1, PATIENCE)[0]
    assert (mail.tls, mail.login, mail.recipients) == (True, "vedette", ("ops@example.org",))
    assert str(mail.message["Subject"]).startswith("[MEDIUM] SSH password guessing from one address")
    assert ATTACKER in str(mail.message["Subject"])
    assert mail.message["Bcc"] is None
    for subtype in ("plain", "html"):
        text = mail.text(subtype)
        for word in (RULE, ATTACKER, socket.gethostname(), "Failed password for invalid user root", "Block", "Alert"):
            assert word in text or word.lower() in text
        assert not has_control_characters(text)
    assert f"{alert['advice']}".split(".")[0] in " ".join(mail.text().split())
    assert alert["alert.id"] in mail.text()
    assert not pagerduty_inside.requests

    # A guesser that gets in pages. This one is let through by the allowlist, and noticed all the same.
    attempts = tester.guess("bob", [*guesses(10), "battery staple"], command="true")
    assert attempts[-1].outcome == "exit 0"
    high = vedette.wait_for_alert(BREAK_IN, source__ip=tester.source)
    assert high["level"] == "high"
    assert "Accepted password for bob" in high["sample"]
    (request,) = pagerduty_inside.wait_for(1, PATIENCE)
    assert request.errors == ()
    body = request.body
    assert (body["event_action"], body["routing_key"], body["payload"]["severity"]) == ("trigger", ROUTING_KEY, "error")
    assert body["payload"]["source"] == socket.gethostname()
    assert body["payload"]["class"] == BREAK_IN
    assert tester.source in body["payload"]["summary"]
    details = body["payload"]["custom_details"]
    assert [one["alert_id"] for one in details["alerts"]] == [high["alert.id"]]
    assert details["alerts"][0]["key"]["source.ip"] == tester.source
    assert details["alerts"][0]["sample"].endswith("ssh2")
    assert "Accepted password for bob" in details["alerts"][0]["sample"]
    # The pager's key is ours to compute again: it names the group, and so ties later events to this incident.
    assert vedette.query("select count(*) from alerts where rule_id = ?", [BREAK_IN]) == [(1,)]
    assert len(body["dedup_key"]) == 32

    # What another process says, the kernel and the program agree on; the tester was never blocked.
    assert vedette.blocked() == {ATTACKER} == blocked(wire.server)
    (decision,) = [one for one in vedette.decisions() if one["decision.state"] == "active"]
    assert (decision["reason"], decision["owner"]) == (RULE, f"rule:{RULE}")
    assert decision["alert.id"] == alert["alert.id"]
    assert len(decision["evidence"]) == 5
    assert not {one["source.ip"] for one in vedette.alerts()} & {LEGITIMATE, VICTIM}

    # Resolving it ends the incident at the pager, under the same key.
    vedette.command("alerts", "resolve", high["alert.id"], "--disposition", "benign", "--note", "the tester")
    wait_until("resolved at the pager", lambda: not pagerduty_inside.open_incidents(), PATIENCE)
    assert [one.triggers for one in pagerduty_inside.incidents] == [1]

    # Lifted by a person, the attacker reaches the server again; the program ends in order.
    vedette.command("block", "remove", ATTACKER)
    wait_until("lifted", lambda: ATTACKER not in blocked(wire.server), PATIENCE)
    assert greeting(wire.world, ATTACKER, netns.SERVER, published.port) == ATTACKER
    assert users_own.running()
    assert vedette.stop() == 0
    assert "Traceback" not in vedette.log


def test_a_lease_ends(
    wire: Wire,
    start_sshd: StartSshd,
    start_rsyslog: Callable[..., Rsyslog],
    start_vedette: StartVedette,
    attacker: Attacker,
    scratch: Path,
):
    log = scratch / "auth.log"
    rsyslog = start_rsyslog(log)
    start_sshd(devlog=rsyslog.devlog)
    (scratch / "short.yml").write_text(SHORT_LEASE)
    vedette = start_vedette(
        {
            "sources": file_source(log, accept=True),
            "rules": {"paths": [scratch / "short.yml"]},
            "respond": {"three-guesses": "enforce"},
        }
    )
    attacker.guess("alice", guesses(3))
    wait_for_block(vedette, wire.server, ATTACKER)
    wait_until("the kernel lets go", lambda: ATTACKER not in blocked(wire.server), PATIENCE)
    assert attacker.login("alice", password=ALICE.password)
    assert not vedette.blocked()

    vedette.command("block", "add", ATTACKER, "--for", "3s", "--reason", "by hand")
    wait_for_block(vedette, wire.server, ATTACKER)
    wait_until("the kernel lets go", lambda: ATTACKER not in blocked(wire.server), PATIENCE)
    assert attacker.login("alice", password=ALICE.password)
    assert {one["reason"] for one in vedette.decisions()} == {"three-guesses", "by hand"}

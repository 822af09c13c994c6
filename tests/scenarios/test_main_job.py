"""The main job, whole: a real sshd is attacked, people are told, the attacker's packets are dropped, nobody else's.
Counterpart: src/vedette/app/up.py, and every part in tests/scenarios/parts."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenarios.conftest import ALICE, StartSshd, StartVedette
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker, password_packet
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.job import (
    BREAK_IN,
    PATIENCE,
    ROUTES,
    RULE,
    SHORT_LEASE,
    blocked,
    file_source,
    guesses,
    lines_of,
    receivers,
    table,
    wait_for_block,
)
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, LEGITIMATE, VICTIM, Wire
from tests.scenarios.parts.nft import PublishedPort, greeting
from tests.scenarios.parts.pagerduty import ROUTING_KEY, PagerDuty
from tests.scenarios.parts.processes import run, wait_until
from tests.scenarios.parts.smtp import SmtpServer
from tests.scenarios.parts.sshd import User
from tests.scenarios.parts.sshd_sessions import new_key
from tests.scenarios.parts.syslogs import Journald, Rsyslog, log_as

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]


def has_control_characters(text: str) -> bool:
    return any((ord(one) < 32 and one != "\n") or 127 <= ord(one) < 160 for one in text)


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
    assert alert["advice"].startswith("Look whether this address ever logged in.")
    said = (
        RULE,
        ATTACKER,
        socket.gethostname(),
        "Failed password for invalid user root",
        alert["advice"].split(".")[0],
    )
    for subtype in ("plain", "html"):
        text = mail.text(subtype)
        assert [word for word in said if word not in text] == []
        assert not has_control_characters(text)
    assert alert["alert.id"] in mail.text()
    assert re.search(r"Events: +[5-9], ", mail.text())
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


def test_the_journal_attests_and_nobody_else_does(
    wire: Wire,
    start_sshd: StartSshd,
    start_journald: Callable[..., Journald],
    start_vedette: StartVedette,
    attacker: Attacker,
    legitimate: Attacker,
    scratch: Path,
):
    journal = start_journald(scratch / "journal")
    start_sshd(devlog=journal.devlog)
    vedette = start_vedette(
        {
            "sources": {"journal": {"folder": scratch / "journal", "begin": "beginning"}},
            "respond": {RULE: "enforce"},
        }
    )
    # Any local user can say this, and even root with `logger` is not sshd.
    forged = f"Failed password for root from {VICTIM} port 1 ssh2"
    for _ in range(10):
        log_as(journal.devlog, forged)
        run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *logger(journal.devlog, forged)])
    assert legitimate.login("alice", password=ALICE.password)
    attacker.guess("alice", guesses(200), timeout=2.0)
    wait_for_block(vedette, wire.server, ATTACKER)

    # What the attacker caused came after it: the forged lines have been judged.
    assert vedette.wait_for_alert(RULE, source__ip=VICTIM)["count"] >= 5
    assert blocked(wire.server) == {ATTACKER} == vedette.blocked()
    assert {(one["target"], one["decision.state"]) for one in vedette.decisions()} == {
        (ATTACKER, "active"),
        (VICTIM, "simulated"),
    }
    assert vedette.query("select count(*) from refusals where reason = 'source-forgeable'") != [(0,)]
    assert legitimate.login("alice", password=ALICE.password)


def logger(devlog: Path, message: str) -> list[str]:
    return ["logger", "--socket-errors=on", "-u", str(devlog), "-t", "sshd", "-p", "auth.info", "--", message]


def test_a_file_only_simulates_unless_the_operator_says_so(
    wire: Wire,
    start_sshd: StartSshd,
    start_rsyslog: Callable[..., Rsyslog],
    start_vedette: StartVedette,
    attacker: Attacker,
    scratch: Path,
):
    log = scratch / "auth.log"
    log.touch()
    rsyslog = start_rsyslog(log, header="rfc3164")
    start_sshd(devlog=rsyslog.devlog)
    vedette = start_vedette({"sources": file_source(log, accept=False), "respond": {RULE: "enforce"}})
    attempts = attacker.guess("alice", [*guesses(12), ALICE.password], command="true")
    assert attempts[-1].outcome == "exit 0"
    assert vedette.wait_for_alert(RULE, source__ip=ATTACKER)["level"] == "medium"
    assert vedette.wait_for_alert(BREAK_IN, source__ip=ATTACKER)["level"] == "high"
    assert [(one["target"], one["decision.state"]) for one in vedette.decisions()] == [(ATTACKER, "simulated")]
    assert not vedette.blocked()
    assert not blocked(wire.server)


def test_she_who_logged_in_lately_may_slip_more_often(
    wire: Wire,
    start_sshd: StartSshd,
    start_journald: Callable[..., Journald],
    start_vedette: StartVedette,
    attacker: Attacker,
    legitimate: Attacker,
    scratch: Path,
):
    journal = start_journald(scratch / "journal")
    start_sshd([ALICE, User("bob", "battery staple")], devlog=journal.devlog)
    settings = {"sources": {"journal": {"folder": scratch / "journal"}}, "respond": {RULE: "enforce"}}
    vedette = start_vedette(settings)
    assert legitimate.login("alice", password=ALICE.password)
    legitimate.guess("alice", guesses(7))
    # People are told as ever; the address goes on.
    vedette.wait_for_alert(RULE, source__ip=LEGITIMATE)
    assert legitimate.login("alice", password=ALICE.password)
    assert blocked(wire.server) == set()
    assert "known-login" in vedette.command("block", "stats")

    # Killed and started again, it has not forgotten her.
    vedette.kill()
    vedette.start()
    legitimate.guess("alice", guesses(4))
    assert legitimate.login("alice", password=ALICE.password)
    assert blocked(wire.server) == set()

    # There is an end to it: fifteen of hers, or fewer with somebody else's among them.
    legitimate.guess("bob", guesses(200), timeout=2.0)
    wait_for_block(vedette, wire.server, LEGITIMATE)
    judged = vedette.wait_for_alert(RULE, source__ip=LEGITIMATE)["count"]
    assert 12 <= judged < 15
    # Who never logged in is blocked at five.
    attacker.guess("alice", guesses(200), timeout=2.0)
    wait_for_block(vedette, wire.server, ATTACKER)

"""The main job, whole: a real sshd is attacked, people are told, the attacker's packets are dropped, nobody else's.
Counterpart: src/vedette/app/up.py, and every part in tests/scenarios/parts."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import ALICE, StartSshd, StartVedette
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Assault, Attacker, password_packet
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, LEGITIMATE, VICTIM, Namespace, Wire
from tests.scenarios.parts.nft import PublishedPort, Table, greeting, read_table
from tests.scenarios.parts.pagerduty import ROUTING_KEY, PagerDuty, post, send_webhook
from tests.scenarios.parts.processes import run, wait_until
from tests.scenarios.parts.smtp import SmtpServer
from tests.scenarios.parts.sshd import User
from tests.scenarios.parts.sshd_sessions import new_key
from tests.scenarios.parts.syslogs import Journald, Rsyslog, log_as
from tests.scenarios.parts.vedette import Vedette

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

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


def write_failures(log: Path, address: str, count: int, *, user: str = "root") -> None:
    """Append lines as sshd and rsyslog would."""
    with log.open("a") as file:
        for port in range(count):
            stamp = datetime.now(UTC).isoformat(timespec="microseconds")
            line = f"Failed password for {user} from {address} port {40000 + port} ssh2"
            file.write(f"{stamp} bastion sshd[812]: {line}\n")


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


def test_what_people_do_in_the_pager_comes_back(
    wire: Wire,
    start_vedette: StartVedette,
    smtp_inside: SmtpServer,
    pagerduty_inside: PagerDuty,
    authority: Authority,
    scratch: Path,
):
    log = scratch / "auth.log"
    log.touch()
    (scratch / "webhook-secret").write_text(WEBHOOK_SECRET)
    vedette = start_vedette(
        {
            "sources": file_source(log, accept=False),
            "alerts": {"route": ROUTES},
            "notify": {
                "receivers": receivers(smtp_inside, pagerduty_inside, authority, scratch),
                "pagerduty_webhook": {"port": 8470, "secrets": [{"file": scratch / "webhook-secret"}]},
            },
        }
    )
    url = "http://127.0.0.1:8470/pagerduty"
    write_login(log, ATTACKER, "root")
    opened = vedette.wait_for_alert("ssh-root-login", source__ip=ATTACKER)
    pagerduty_inside.wait_for(1, PATIENCE)
    (incident,) = pagerduty_inside.incidents

    def send(body: bytes, *secrets: str) -> int:
        return wire.server.inside(lambda: send_webhook(url, body, *secrets))

    pagerduty_inside.person_does(incident, "acknowledged")
    acknowledged = pagerduty_inside.webhook(incident, "incident.acknowledged")
    assert send(acknowledged, "not the secret") == 401
    assert wire.server.inside(lambda: post(url, acknowledged, {})) == 401
    assert send(acknowledged.replace(b"acknowledged", b"resolved"), "not the secret") == 401
    assert [one["alert.state"] for one in vedette.alerts("ssh-root-login")] == ["open"]

    assert send(acknowledged, "an older secret", WEBHOOK_SECRET) == 202
    held = vedette.wait_for_alert("ssh-root-login", alert__state="acknowledged")
    assert (held["alert.id"], held["acknowledged_by"]) == (opened["alert.id"], "Someone on call")
    assert send(acknowledged, WEBHOOK_SECRET) == 202

    # More of the same joins the acknowledged alert and does not wake anybody again.
    write_login(log, ATTACKER, "root")
    joined = vedette.wait_for_alert("ssh-root-login", findings__count=2)
    assert (joined["alert.id"], joined["alert.state"]) == (opened["alert.id"], "acknowledged")

    pagerduty_inside.person_does(incident, "resolved")
    assert send(pagerduty_inside.webhook(incident, "incident.resolved"), WEBHOOK_SECRET) == 202
    over = vedette.wait_for_alert("ssh-root-login", alert__state="resolved")
    assert (over["alert.id"], over["resolve_reason"]) == (opened["alert.id"], "pager")
    assert over["resolved_by"] == "Someone on call"

    # After that it is a new alert and a new incident, with a key of its own.
    write_login(log, ATTACKER, "root")
    wait_until("a second incident", lambda: len(pagerduty_inside.incidents) == 2, PATIENCE)
    first, second = pagerduty_inside.incidents
    assert first.dedup_key != second.dedup_key
    assert (first.triggers, second.triggers) == (1, 1)
    assert [one["alert.state"] for one in vedette.alerts("ssh-root-login")] == ["open", "resolved"]


def write_login(log: Path, address: str, user: str) -> None:
    with log.open("a") as file:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        file.write(f"{stamp} bastion sshd[900]: Accepted password for {user} from {address} port 50000 ssh2\n")


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = scratch / "small"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(place)])
    yield place
    run(["umount", "--lazy", str(place)])


def test_a_full_disk_is_said_once_and_nothing_is_lost(
    wire: Wire,
    small_disk: Path,
    start_vedette: StartVedette,
    smtp_inside: SmtpServer,
    pagerduty_inside: PagerDuty,
    authority: Authority,
    scratch: Path,
):
    log = scratch / "auth.log"
    log.touch()
    vedette = start_vedette(
        {
            "sources": file_source(log, accept=True),
            "alerts": {"route": ROUTES},
            "notify": {"receivers": receivers(smtp_inside, pagerduty_inside, authority, scratch)},
            "respond": {RULE: "enforce"},
        },
        data=small_disk / "data",
    )
    write_failures(log, ATTACKERS[0], 5)
    wait_for_block(vedette, wire.server, ATTACKERS[0])
    smtp_inside.wait_for(1, PATIENCE)

    filler = small_disk / "filler"
    fill(filler)
    write_failures(log, ATTACKERS[1], 5)
    vedette.wait_for("STATE CANNOT BE WRITTEN", timeout=PATIENCE)
    for address in ATTACKERS[2:5]:
        write_failures(log, address, 5)
    before = vedette.bytes_read()
    with log.open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat()} bastion cron[1]: {'x' * 1000}\n" * 1000)
    wait_until("it reads on", lambda: vedette.bytes_read() - before > 1_000_000, PATIENCE)
    # Gone from the file before anything could be stored: only what was judged meanwhile can still be told.
    with log.open("r+") as file:
        file.truncate(0)
    assert vedette.process.poll() is None
    # Committed before it is enforced, so nothing new is enforced.
    assert blocked(wire.server) == {ATTACKERS[0]}

    filler.unlink()
    vedette.wait_for("state is written again", timeout=PATIENCE)
    for address in ATTACKERS[:5]:
        wait_for_block(vedette, wire.server, address)
    assert vedette.life.count("STATE CANNOT BE WRITTEN") == 1
    assert vedette.life.count("state is written again") == 1
    found = vedette.alerts(RULE)
    assert sorted((one["source.ip"], one["count"], one["findings.count"]) for one in found) == [
        (address, 5, 1) for address in ATTACKERS[:5]
    ]
    assert vedette.blocked() == set(ATTACKERS[:5])
    wait_until(
        f"all told of: {vedette.life}",
        lambda: all(any(address in mail.text() for mail in smtp_inside.mails) for address in ATTACKERS[:5]),
        PATIENCE,
    )
    assert len({mail.message_id for mail in smtp_inside.mails}) == len(smtp_inside.mails)
    assert vedette.query("pragma integrity_check") == [("ok",)]
    assert vedette.stop() == 0
    assert "Traceback" not in vedette.log
    assert vedette.query("pragma integrity_check") == [("ok",)]


def fill(path: Path) -> None:
    """Take every byte that is left there."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


ENDINGS = ["reload", "stop", "kill"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_windows_survive(wire: Wire, start_vedette: StartVedette, scratch: Path, ending: str):
    log, settings = prepare_marked(scratch)
    vedette = start_vedette(settings)
    write_failures(log, ATTACKER, 4)
    write_marker(log)
    vedette.wait_for_finding("test-marker")
    if ending == "reload":
        vedette.configure(settings)
        vedette.reload()
        wait_until(f"up again; {vedette.log}", lambda: vedette.is_up(2), PATIENCE)
    else:
        vedette.stop() if ending == "stop" else vedette.kill()
        vedette.start()
    write_failures(log, ATTACKER, 1)
    alert = vedette.wait_for_alert(RULE, source__ip=ATTACKER)
    assert alert["count"] == 5
    # Nothing was read twice: not one finding more than the lines are good for.
    assert vedette.query("select rule_id from findings order by 1") == [(RULE,), ("test-marker",)]
    wait_for_block(vedette, wire.server, ATTACKER)


def prepare_marked(scratch: Path) -> tuple[Path, dict[str, Any]]:
    log = scratch / "auth.log"
    log.touch()
    (scratch / "marker.yml").write_text(MARKER)
    return log, {
        "sources": file_source(log, accept=True),
        "rules": {"paths": [scratch / "marker.yml"]},
        "respond": {RULE: "enforce"},
    }


def write_marker(log: Path) -> None:
    with log.open("a") as file:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        file.write(f"{stamp} bastion sshd[900]: Failed publickey for alice from {LEGITIMATE} port 50000 ssh2\n")


BROKEN = {
    "a typo": ("version: 1\nsourcs: {}\n", "vedette.yml:2:1"),
    "no yaml": ("version: 1\nrules: [\n", "vedette.yml:"),
    "a missing rule file": ("version: 1\nrules: {paths: [/nowhere/rules.yml]}\n", "/nowhere/rules.yml"),
    "no such receiver": ("version: 1\nalerts: {route: {receiver: nobody}}\n", "nobody"),
}


def test_a_reload_is_all_or_nothing(wire: Wire, start_vedette: StartVedette, scratch: Path):
    log, settings = prepare_marked(scratch)
    vedette = start_vedette(settings)
    write_failures(log, ATTACKER, 2)
    for number, (name, (text, said)) in enumerate(BROKEN.items(), 1):
        vedette.configure(text)
        vedette.reload()
        vedette.wait_for("reload refused", number)
        assert said in vedette.life.rpartition("reload refused")[2], name
    (scratch / "broken.yml").write_text(MARKER.replace("publickey", "[").replace("level: informational", "level: hi"))
    vedette.configure({**settings, "rules": {"paths": [scratch / "broken.yml"]}})
    vedette.reload()
    vedette.wait_for("reload refused", len(BROKEN) + 1)
    assert "broken.yml:" in vedette.life.rpartition("reload refused")[2]
    # It runs on as it was.
    assert vedette.is_up()
    assert not vedette.is_up(2)
    write_failures(log, ATTACKERS[0], 5)
    wait_for_block(vedette, wire.server, ATTACKERS[0])
    assert not vedette.alerts("three-guesses")

    # A good one takes effect: the new rule is active, and counts from here on; the block stays.
    (scratch / "short.yml").write_text(SHORT_LEASE)
    vedette.configure({**settings, "rules": {"paths": [scratch / "marker.yml", scratch / "short.yml"]}})
    vedette.reload()
    wait_until(f"up again; {vedette.log}", lambda: vedette.is_up(2), PATIENCE)
    assert "configuration reloaded" in vedette.life
    assert ATTACKERS[0] in blocked(wire.server)
    write_failures(log, ATTACKERS[1], 3)
    vedette.wait_for_alert("three-guesses", source__ip=ATTACKERS[1])
    # Two before the reloads, three after them.
    write_failures(log, ATTACKER, 3)
    assert vedette.wait_for_alert(RULE, source__ip=ATTACKER)["count"] == 5
    assert vedette.stop() == 0
    assert "Traceback" not in vedette.log


def test_who_is_allowed_is_let_go_and_stays_free(wire: Wire, start_vedette: StartVedette, scratch: Path):
    log, settings = prepare_marked(scratch)
    vedette = start_vedette(settings)
    customer, colleague = ATTACKERS[:2]
    write_failures(log, customer, 5)
    wait_for_block(vedette, wire.server, customer)
    vedette.command("block", "allow", customer, "--comment", "a customer with a new telephone")
    wait_until("let go", lambda: customer not in blocked(wire.server), PATIENCE)
    # One that was never blocked: nothing but the file tells the running program.
    vedette.command("block", "allow", colleague, "--comment", "a colleague")
    write_failures(log, colleague, 5)
    write_failures(log, ATTACKER, 5)
    wait_for_block(vedette, wire.server, ATTACKER)
    assert vedette.wait_for_alert(RULE, source__ip=colleague)["count"] == 5
    # By hand edited, without any command.
    with (vedette.data / "allowlist").open("a") as file:
        file.write(f"{ATTACKER} # it was a test\n")
    wait_until("let go", lambda: not blocked(wire.server), PATIENCE)
    assert not vedette.blocked()

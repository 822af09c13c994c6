"""What lasts while the program is reloaded, killed, its disk is full, or people answer elsewhere.
Counterpart: src/vedette/app/up.py; test_main_job.py is the usual day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.job import (
    MARKER,
    PATIENCE,
    ROUTES,
    RULE,
    SHORT_LEASE,
    blocked,
    file_source,
    prepare_marked,
    receivers,
    wait_for_block,
    write_failures,
    write_login,
    write_marker,
)
from tests.scenarios.parts.netns import ATTACKER, ATTACKERS, Wire
from tests.scenarios.parts.pagerduty import PagerDuty, post, send_webhook
from tests.scenarios.parts.processes import run, wait_until
from tests.scenarios.parts.smtp import SmtpServer

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

WEBHOOK_SECRET = "webhook secret"


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

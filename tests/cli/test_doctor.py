"""The doctor names what is wrong and what would mend it, in words and as data, and changes nothing.
Counterpart: vedette.cli.doctor and vedette.app.diagnosis."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from tests.cli.parts import HOSTILE, Place

from vedette.app import diagnosis
from vedette.app.host import STATE_FILE, Lock
from vedette.model.clock import MINUTE, SystemClock
from vedette.model.decisions import Refusal
from vedette.model.levels import Level
from vedette.model.notifications import Notification, NotificationKind, OutboxItem, OutboxState
from vedette.model.reasons import DeliveryReason, RefusalReason
from vedette.system.exec import Finished


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "auth.log"
    path.write_text("")
    return path


def checks(place: Place) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    ran = place.run("doctor", "--output", "json")
    found: dict[str, list[dict[str, Any]]] = {}
    for record in ran.records:
        found.setdefault(record["check"], []).append(record)
    return ran.code, found


def test_a_host_where_all_is_well_is_exit_0(place: Place, log: Path, monkeypatch: pytest.MonkeyPatch):
    place.configure(
        f"sources: {{file: [{{paths: [{log}]}}]}}\n"
        "notify:\n  receivers: {mail: {type: email, to: [ops@example.org]}}\n"
        "  heartbeat: {url: 'https://beat.example.org/x'}\n"
    )
    place.state().close()
    place.data.chmod(0o700)
    place.hosts_deny.parent.chmod(0o757)
    monkeypatch.setattr(diagnosis, "synchronised", lambda: True)
    monkeypatch.setattr(diagnosis.os, "geteuid", lambda: 0)
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 << 30))
    lock = Lock(place.data)
    lock.take()
    try:
        ran = place.run("doctor")
    finally:
        lock.close()
    assert ran.code == 0, ran.out
    assert "0 problems, 0 warnings" in ran.err
    for name in ("runs-as", "install", "up", "rules", "data-folder", "clock", "sources", "ladder", "enforcers"):
        assert f"ok       {name}" in ran.out
    assert "ssh-brute-force-address observes" in ran.out
    assert "nothing_" not in ran.out


def test_syslog_of_others_and_who_of_them_may_block(place: Place, tmp_path: Path):
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    place.configure(
        "sources:\n  syslog:\n    listen: [{udp: '192.0.2.1:514'}, {tls: '[::1]:6514'}]\n    accept_forgeable: true\n"
        f"    certificate: {tmp_path}/server.pem\n    key: {tmp_path}/server.pem\n    client_ca: {tmp_path}/ca.pem\n"
    )
    _, found = checks(place)
    (sources,) = found["sources"]
    assert (sources["verdict"], sources["message"]) == (
        "ok",
        "others may send syslog to udp 192.0.2.1 port 514, tls ::1 port 6514",
    )
    assert "whoever holds a client's certificate" in found["forgeable"][0]["message"]
    assert "stranger" not in found["forgeable"][0]["message"]
    (tmp_path / "ca.pem").unlink()
    code, found = checks(place)
    assert code == 2
    (wrong,) = [one for one in found["sources"] if one["verdict"] == "problem"]
    assert f"{tmp_path}/ca.pem" in wrong["message"]
    assert wrong["line"] > 0


def test_each_thing_that_is_wrong_has_a_sentence_and_a_hint(place: Place, log: Path, monkeypatch: pytest.MonkeyPatch):
    place.configure(
        f"sources: {{file: [{{paths: [{log}, {log}.none], accept_forgeable: true}}]}}\n"
        "respond: {ssh-brute-force-address: enforce, ssh-nonsense: enforce}\n"
        "notify: {receivers: {pager: {type: pagerduty, routing_key: {env: VEDETTE_TEST_KEY}}}}\n"
    )
    monkeypatch.setenv("VEDETTE_TEST_KEY", "too-short")
    monkeypatch.setattr(diagnosis, "synchronised", lambda: False)
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    code, found = checks(place)
    assert code == 2
    for name, verdict, words in (
        ("up", "warning", "no `vedette up` runs"),
        ("data-folder", "problem", "1 MiB free"),
        ("clock", "warning", "clock"),
        ("sources", "warning", "there is no such file yet"),
        ("forgeable", "warning", "any stranger where it is an error log of nginx"),
        ("respond", "problem", "ssh-nonsense"),
        ("receivers", "warning", "9 characters"),
        ("heartbeat", "warning", "nobody notices"),
        ("state", "warning", "no state"),
    ):
        (one,) = [each for each in found[name] if words in each["message"]]
        assert one["verdict"] == verdict
        assert one["hint"]
    assert [one["line"] for one in found["respond"]] == [5]
    assert "ssh-brute-force-address enforces" in [one["message"] for one in found["ladder"]]
    assert not place.data.exists()


@pytest.mark.parametrize(
    ("receiver", "floor", "said"),
    [
        ("{type: email, to: [ops@example.org], host: 192.0.2.25}", "[]", "192.0.2.25 is not on the hard floor"),
        ("{type: email, to: [ops@example.org], host: 192.0.2.25}", "[192.0.2.26]", "192.0.2.25 is not on"),
        ("{type: email, to: [ops@example.org], host: '[2001:db8::25]'}", "[192.0.2.26]", "2001:db8::25 is not on"),
        ("{type: email, to: [ops@example.org], host: mail.example.org}", "[]", "names are never resolved"),
        ("{type: pagerduty, routing_key: {env: KEY}}", "[]", "events.pagerduty.com is told by its name"),
        ("{type: webhook, url: 'https://192.0.2.25/x'}", "[]", "192.0.2.25 is not on the hard floor"),
        ("{type: email, to: [ops@example.org], host: 192.0.2.25}", "[192.0.2.0/24]", ""),
        ("{type: email, to: [ops@example.org], host: mail.example.org}", "[192.0.2.25]", ""),
        ("{type: email, to: [ops@example.org]}", "[]", ""),
        ("{type: webhook, url: {env: KEY}}", "[]", ""),
    ],
)
def test_servers_through_which_people_are_told_belong_on_the_floor(place: Place, receiver: str, floor: str, said: str):
    place.configure(f"notify: {{receivers: {{told: {receiver}}}}}\n")
    text = place.config.read_text()
    place.config.write_text(text.replace("blocking: {", f"blocking: {{floor: {floor}, "))
    _, found = checks(place)
    assert [one["verdict"] for one in found.get("floor", [])] == ["warning"] * bool(said)
    for one in found.get("floor", []):
        assert one["message"].startswith("told: ")
        assert said in one["message"]
        assert "blocking.floor" in one["hint"]


def test_what_waits_and_what_failed_is_said_of_each_receiver(place: Place):
    now = SystemClock().now()

    def item(ident: str, receiver: str, state: OutboxState, reason: DeliveryReason | None) -> OutboxItem:
        told = Notification(
            NotificationKind.TRIGGER, receiver, "g", {}, 1, "d", Level.HIGH, [], 0, created_at=now - 3 * MINUTE
        )
        return OutboxItem(
            ident, told, ident, 1, state, created_at=now - 3 * MINUTE, last_reason=reason, last_detail=HOSTILE
        )

    state = place.state()
    with state.transaction() as tx:
        tx.enqueue(item("1", "mail", OutboxState.PENDING, DeliveryReason.NETWORK_ERROR))
        tx.enqueue(item("2", "pager", OutboxState.FAILED, DeliveryReason.REFUSED))
        tx.enqueue(item("3", "pager", OutboxState.FAILED, DeliveryReason.EXPIRED))
        tx.save_refusals([Refusal("r", "t", RefusalReason.HARD_FLOOR)] * 3, now)
    state.close()
    place.fire(("ssh-got-in", {"user.name": "bob"}), ("port-open", {"source.ip": "203.0.113.7"}))
    code, found = checks(place)
    assert code >= 1
    waiting, failed = found["deliveries"]
    assert waiting["message"].startswith("1 notifications wait, the oldest since 3m")
    assert "mail network-error" in waiting["message"]
    assert failed["message"].startswith("pager: a delivery failed for good: expired")
    assert "1 high, 1 low; 1 of them high or critical and open" in found["alerts"][0]["message"]
    assert found["alerts"][0]["verdict"] == "warning"
    assert [one["message"] for one in found["blocks"]] == ["0 in force", "not blocked in 4w2d: 3 hard-floor"]
    text = place.run("doctor").out
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert len(text.splitlines()) == len([line for line in text.split("\n") if line])


def test_a_state_of_another_version_or_damaged_is_a_problem(place: Place):
    place.state().close()
    with sqlite3.connect(place.data / STATE_FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    code, found = checks(place)
    assert code == 2
    assert found["state"][0]["verdict"] == "problem"
    assert "newer" in found["state"][0]["message"] + found["state"][0]["hint"]


def test_the_table_in_the_kernel_is_looked_for(place: Place, monkeypatch: pytest.MonkeyPatch):
    answers = {
        "without": Finished(1, b"", b"No such file or directory"),
        "with": Finished(0, b"table inet vedette { chain prerouting { type filter hook prerouting", b""),
    }
    monkeypatch.setattr(diagnosis, "_may_change_the_kernel", lambda: True)
    place.data.mkdir()

    def verdict(answer: str, respond: str = "") -> str:
        place.config.write_text(f"version: 1\ndata: {place.data}\n{respond}")
        monkeypatch.setattr(diagnosis, "run", lambda _: answers[answer])
        _, found = checks(place)
        (one,) = found["enforcers"]
        return one["verdict"]

    enforce = "respond: {ssh-brute-force-address: enforce}\n"
    assert verdict("without") == "ok"  # nobody runs: `up` makes it
    lock = Lock(place.data)
    lock.take()
    try:
        assert verdict("with") == verdict("with", enforce) == "ok"
        assert verdict("without") == "warning"
        assert verdict("without", enforce) == "problem"
    finally:
        lock.close()


def test_whether_hosts_deny_can_be_written_is_asked_for_the_user_the_engine_becomes(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(diagnosis.os, "geteuid", lambda: 0)
    place.hosts_deny.parent.chmod(0o755)
    _, found = checks(place)
    assert found["enforcers"][0]["verdict"] == "warning"
    place.hosts_deny.parent.chmod(0o757)
    _, found = checks(place)
    assert found["enforcers"][0]["verdict"] == "ok"
    place.hosts_deny.touch(0o644)
    _, found = checks(place)
    assert found["enforcers"][0]["verdict"] == "warning"


def test_what_is_lacking_by_itself_is_said_where_nothing_is_configured(place: Place, monkeypatch: pytest.MonkeyPatch):
    found = diagnosis.discover(place.data.parent / "empty-root")
    monkeypatch.setattr(diagnosis, "discover", lambda: found)
    _, said = checks(place)
    messages = [one["message"] for one in said["sources"]]
    assert any("there is no journal" in one for one in messages)
    assert "there is nothing to read" in messages
    assert all(one["hint"] for one in said["sources"])


def test_every_lack_has_words():
    assert set(diagnosis._LACKING) == set(diagnosis.Lack)

"""Alerts from the command line: what is shown, what each verb changes, and that nothing of a log acts on a terminal.
Counterpart: vedette.cli.alerts and vedette.app.operating."""

from __future__ import annotations

import json
import os
import pwd

import pytest
from tests.cli.parts import HARMFUL, HOSTILE, Place

from vedette.app.host import Lock
from vedette.model.alerts import AlertState, Disposition
from vedette.model.notifications import NotificationKind, OutboxState

ADDRESS, OTHER = {"source.ip": "203.0.113.7"}, {"source.ip": "203.0.113.8"}
ME = pwd.getpwuid(os.getuid()).pw_name

MAIL = """
notify: {receivers: {mail: {type: email, to: [ops@example.org]}}}
alerts: {route: {receiver: mail, group_wait: 0s}}
"""


@pytest.fixture(autouse=True)
def _no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)


def test_the_list_has_what_is_not_resolved_newest_first_and_narrows(place: Place):
    guess, got_in, port = place.fire(
        ("ssh-guess-much", ADDRESS), ("ssh-got-in", {"user.name": "bob"}), ("port-open", OTHER)
    )
    assert place.run("alerts", "resolve", port.id).code == 0
    rows = place.run("alerts", "list", "--output", "json").records
    assert {row["alert.id"] for row in rows} == {guess.id, got_in.id}
    first = next(row for row in rows if row["alert.id"] == guess.id)
    assert first["rule.id"] == "ssh-guess-much"
    assert (first["level"], first["alert.state"], first["count"]) == ("medium", "open", 7)
    assert (first["source.ip"], first["host.name"], first["acknowledged_at"]) == ("203.0.113.7", "web01", None)
    for words, ids in (
        (("--level", "high"), {got_in.id}),
        (("--rule", "ssh-guess-much"), {guess.id}),
        (("--state", "resolved"), {port.id}),
        (("--state", "all"), {guess.id, got_in.id, port.id}),
        (("--state", "acknowledged"), set()),
    ):
        found = place.run("alerts", "list", *words, "--output", "json").records
        assert {row["alert.id"] for row in found} == ids
    limited = place.run("alerts", "list", "--limit", 1)
    assert len(limited.out.splitlines()) == 2
    assert "more than 1" in limited.err


def test_show_has_labels_counts_findings_with_evidence_history_and_advice(place: Place):
    (alert,) = place.fire(("ssh-guess-much", ADDRESS))
    place.run("alerts", "ack", alert.id, "--note", "on it")
    text = place.run("alerts", "show", alert.id).out
    assert "label     source.ip = 203.0.113.7" in text
    assert "count     7 events in 1 findings" in text
    assert f"acknowledged by {ME}" in text
    assert "note      on it" in text
    assert "h1/file:/var/log/auth.log/0:9" in text
    assert "h1/file:/var/log/auth.log/0:10" not in text
    assert "and 2 more records" in text
    assert "advice    Look at it. Then decide." in text
    (record,) = place.run("alerts", "show", alert.id, "--output", "json").records
    assert [len(one["records"]) for one in record["findings"]] == [12]
    assert record["acknowledged_by"] == ME
    assert record["decisions"] == []


def test_the_beginning_of_an_id_names_an_alert_where_it_is_long_enough_and_the_only_one(place: Place):
    one, other = place.fire(("ssh-guess-much", ADDRESS), ("ssh-guess-much", OTHER))
    common = one.id[: next(at for at in range(36) if one.id[at] != other.id[at])]
    assert len(common) >= 4
    assert place.run("alerts", "show", one.id[: len(common) + 1]).code == 0
    for named, words in ((common, "more than one"), (one.id[:3], "too short"), ("ffffffff", "no alert")):
        ran = place.run("alerts", "show", named)
        assert ran.code == 2
        assert words in ran.err
        assert ran.out == ""


def test_acknowledging_once_more_changes_nothing(place: Place):
    (alert,) = place.fire(("ssh-guess-much", ADDRESS))
    assert f"acknowledged: {alert.id}" in place.run("alerts", "ack", alert.id).out
    assert "nothing to change" in place.run("alerts", "ack", alert.id).out


def test_an_event_is_resolved_with_a_disposition_only_and_all_or_none(place: Place):
    one, other = place.fire(("ssh-guess-much", ADDRESS), ("port-open", OTHER))
    ran = place.run("alerts", "resolve", other.id, one.id)
    assert ran.code == 2
    assert "disposition" in ran.err
    state = place.state()
    assert [state.alert(alert.id).state for alert in (one, other)] == [AlertState.OPEN, AlertState.OPEN]
    done = place.run(
        "alerts", "resolve", one.id, other.id, "--disposition", "false-positive", "--note", "a scan of ours"
    )
    assert done.code == 0
    closed = state.alert(one.id)
    assert (closed.state, closed.disposition) == (AlertState.RESOLVED, Disposition.FALSE_POSITIVE)
    assert (closed.resolved_by, closed.note) == (ME, "a scan of ours")
    state.close()
    assert place.run("alerts", "ack", one.id).code == 2
    assert "--disposition" in place.run("alerts", "resolve", one.id, "--disposition", "nonsense").err


def test_who_came_through_sudo_is_named(place: Place, monkeypatch: pytest.MonkeyPatch):
    (alert,) = place.fire(("ssh-guess-much", ADDRESS))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "alice")
    place.run("alerts", "ack", alert.id)
    state = place.state()
    assert state.alert(alert.id).acknowledged_by == "alice"
    state.close()


def test_receivers_are_told_by_the_same_transaction_and_a_person_learns_when(place: Place):
    place.configure(MAIL)
    one, other = place.fire(("ssh-got-in", {"user.name": "bob"}), ("ssh-got-in", {"user.name": "eve"}))
    ran = place.run("alerts", "ack", one.id)
    assert "receivers are told when one does" in ran.err
    state = place.state()
    (item,) = state.outbox([OutboxState.PENDING])
    state.close()
    assert item.notification.kind is NotificationKind.TRIGGER
    assert {member.id: member.state for member in item.notification.members} == {
        one.id: "acknowledged",
        other.id: "open",
    }
    lock = Lock(place.data)
    lock.take()
    try:
        ran = place.run("alerts", "resolve", one.id, "--disposition", "true-positive")
    finally:
        lock.close()
    assert ran.err == ""


def test_a_running_up_notices_what_was_done(place: Place):
    (alert,) = place.fire(("ssh-guess-much", ADDRESS))
    state = place.state()
    before = state.foreign_version()
    place.run("alerts", "list")
    assert state.foreign_version() == before
    place.run("alerts", "ack", alert.id)
    assert state.foreign_version() != before
    state.close()


# ---------------------------------------------------------------------------------------------------- silences
def test_a_silence_is_made_with_and_without_the_word_add_listed_and_ended(place: Place):
    place.fire(("ssh-guess-much", ADDRESS), ("ssh-got-in", {"user.name": "bob"}))
    made = place.run("alerts", "silence", "rule.id=ssh-guess-*", "--for", "2h", "--comment", "a scan of ours")
    assert made.code == 0, made.err
    assert "1 alerts that are not resolved match now" in made.err
    again = place.run(
        "alerts", "silence", "--for", "30m", "--comment", "x", "level!=high", "user.name=bob", "--output", "json"
    )
    assert again.records[0]["matchers"] == ['level!="high"', 'user.name="bob"']
    place.run("alerts", "silence", "add", "user.name=eve", "--comment", "as the settings say")
    rows = place.run("alerts", "silence", "list", "--output", "json").records
    assert [row["comment"] for row in rows] == ["a scan of ours", "x", "as the settings say"]
    assert rows[0]["created_by"] == ME
    assert place.run("alerts", "silence", "expire", rows[0]["silence.id"]).code == 0
    left = place.run("alerts", "silence", "list").out
    assert rows[0]["silence.id"] not in left
    assert rows[1]["silence.id"] in left
    assert "ended" in place.run("alerts", "silence", "list", "--ended").out
    assert place.run("alerts", "silence", "expire", rows[0]["silence.id"]).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rule.id=x",), "--comment"),
        (("rule.id=x", "--comment", " "), "--comment"),
        (("level=~.*", "--comment", "x"), "mute every alert"),
        (("nonsense", "--comment", "x"), "is not a matcher"),
        (("rule.id=~(", "--comment", "x"), "not a regular expression"),
        (("rule.id=x", "--comment", "x", "--for", "soon"), "--for"),
        (("rule.id=x", "--comment", "x", "--for", "0s"), "--for"),
        (("rule.id=x", "--comment", "x", "--for", "1000d"), "silences.longest"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused(place: Place, words: tuple[str, ...], said: str):
    ran = place.run("alerts", "silence", *words)
    assert ran.code == 2
    assert said in ran.err


# ---------------------------------------------------------------------------------------------------- hostile text
def test_nothing_of_a_log_acts_on_a_terminal(place: Place):
    (alert,) = place.fire(("ssh-got-in", {"user.name": HOSTILE}))
    place.run("alerts", "ack", alert.id, "--note", HOSTILE.replace("\n", " ").replace("\U0010ff9b", ""))
    shown = []
    for words in (("list",), ("show", alert.id), ("silence", "list")):
        for output in ("text", "json"):
            ran = place.run("alerts", *words, "--output", output)
            assert ran.code == 0
            assert not [one for one in HARMFUL if one in ran.out]
            shown.append(ran.out)
    listed, listed_json, whole, whole_json = shown[:4]
    assert len(listed.splitlines()) == 2
    assert r"eve\x1b[2J\x9b31m\x0d\x0aAccepted \u{202e}for root\u{2028}\x9b" in listed
    assert r"label     user.name = eve\x1b[2J" in whole
    assert len(listed_json.splitlines()) == len(whole_json.splitlines()) == 1
    record = json.loads(listed_json)
    assert record["user.name"] == HOSTILE.replace("\U0010ff9b", "\ufffd")
    assert record["labels"]["user.name_b64"] == record["user.name_b64"]


# ---------------------------------------------------------------------------------------------------- where it cannot
def test_where_no_up_has_run_that_is_said_and_nothing_is_made(place: Place):
    for words in (("alerts", "list"), ("alerts", "silence", "list"), ("block", "list")):
        ran = place.run(*words)
        assert ran.code == 2
        assert f"there is no state in {place.data}" in ran.err
    assert not place.data.exists()

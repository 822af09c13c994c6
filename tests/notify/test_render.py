from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notify.examples import HOSTILE, member, notification

from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind
from vedette.notify.render import clean, digest_text, digest_title, plain_text, view, web_url

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def test_the_title_names_level_rule_host_and_key():
    assert view(notification()).title == "[HIGH] SSH brute force by one address: web01, source.ip=198.51.100.7"
    assert view(notification(kind=NotificationKind.RESOLVE)).title.startswith("[RESOLVED HIGH] SSH brute")
    assert view(notification(kind=NotificationKind.ACKNOWLEDGE)).title.startswith("[ACKNOWLEDGED HIGH] SSH brute")


def test_the_worst_of_several_speaks_for_them():
    members = [
        member(level=Level.LOW, rule_name="Noise"),
        member(level=Level.CRITICAL, rule_name="Root login", labels={"host.name": "db01", "user.name": "root"}),
    ]
    shown = view(notification(level=Level.CRITICAL, members=members, total=2_000))
    assert shown.title == "[CRITICAL] Root login and other rules: db01, user.name=root (+1999 more)"
    assert shown.left_out == 1998
    assert "and 1998 more alerts" in plain_text(shown)


def test_a_group_without_members_still_has_a_title():
    assert view(notification(members=[], total=0)).title == "[HIGH] ssh-brute-force-address"


def test_plain_text_has_what_a_person_needs():
    text = plain_text(view(notification(external_url="https://vedette.example.org/alerts")))
    for part in (
        "web01",
        "source.ip=198.51.100.7",
        "Failed password for root",
        "5, 2026-11-24T00:00:00.000000Z to",
        "https://vedette.example.org/alerts",
        "Block the address",
    ):
        assert part in text


def test_a_digest_says_how_many_of_what():
    low = notification(level=Level.LOW, members=[member(rule_name="User unknown")], total=3)
    shown = [view(low), view(notification(level=Level.MEDIUM))]
    assert digest_title(shown) == (
        "[DIGEST MEDIUM] 4 alerts in 2 notifications: User unknown, SSH brute force by one address"
    )
    assert digest_text(shown).count("Group: rule.id=") == 2


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://vedette.example.org/alerts?a=1", True),
        ("http://10.0.0.1:8471/", True),
        ("javascript:alert(1)", False),
        ("https://x/'onmouseover=alert(1)", False),
        ("https://x/\r\n", False),
        ("https://x/" + "a" * 2000, False),
    ],
)
def test_only_plain_web_addresses_become_links(url: str, kept: bool):
    assert bool(web_url(url)) is kept


@given(st.text(alphabet=st.characters(), max_size=2000), st.integers(1, 300))
def test_clean_text_is_one_short_line(text: str, limit: int):
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert not CONTROL.search(cleaned)
    assert "\n" not in cleaned


@given(st.text(alphabet=st.characters(), max_size=300))
def test_no_text_of_a_log_adds_a_line(text: str):
    hostile = member(
        rule_name=text, summary=text, advice=text, sample=text, state=text, labels={"host.name": text, text: text}
    )
    shown = view(notification(members=[hostile], group_labels={text: text}))
    body = plain_text(shown)
    assert not CONTROL.search(body)
    # 3 of the head, an empty one, the member's title and at most 9 facts.
    assert body.count("\n") <= 14


def test_hostile_text_is_written_out():
    text = plain_text(view(notification(members=[member(sample=HOSTILE)])))
    assert "x\\x0d\\x0aBcc: victim@example.org" in text
    assert "\\x1b[31m\\u{202e}gnp\\x00\\x9b" in text

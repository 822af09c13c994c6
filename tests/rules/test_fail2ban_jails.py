"""Jails as rules: what is enabled, what a jail says over its filter, times, and what is refused with its place.
Counterpart: `tests/detections/test_gate.py` runs such rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.errors import RuleError
from vedette.rules.fail2ban_jails import LONGEST_LEASE, read_fail2ban, seconds_of
from vedette.rules.loading import load
from vedette.rules.problems import Problem

SECOND = 1_000_000


def installation(tmp_path: Path, jails: str) -> Path:
    (tmp_path / "filter.d").mkdir()
    (tmp_path / "filter.d" / "demo.conf").write_text(
        "[Definition]\nfailregex = ^ <word> <ADDR>$\nword = denied\nmode = normal\n"
    )
    (tmp_path / "jail.conf").write_text(
        "[DEFAULT]\nbantime = 10m\nfindtime = 10m\nmaxretry = 5\nenabled = false\nmode = normal\n"
        "filter = %(__name__)s[mode=%(mode)s]\naction = %(action_)s\n\n[demo]\nlogpath = /var/log/demo.log\n"
    )
    (tmp_path / "jail.local").write_text(jails)
    return tmp_path


def test_an_enabled_jail_is_two_rules(tmp_path: Path) -> None:
    jails = "[demo]\nenabled = true\nmaxretry = 3\nfindtime = 1h\nbantime = 1d12h\nbantime.increment = true\n"
    folder = installation(tmp_path, jails + "bantime.maxtime = 5w\n")
    rules = load([folder]).rules
    assert [rule.id for rule in rules] == ["fail2ban-demo-line", "fail2ban-demo"]
    line, count = rules
    assert line.silent
    assert line.lines is not None
    assert count.correlate is not None
    assert count.correlate.timespan == 3600 * SECOND
    assert count.correlate.threshold[0].value == 3
    assert count.response is not None
    response = count.response
    assert (response.lease, response.factor, response.longest) == (
        36 * 3600 * SECOND,
        2,
        35 * 86_400 * SECOND,
    )
    assert count.origin.file.endswith("jail.local")
    assert count.origin.line == 2


def test_what_a_jail_says_of_its_filter(tmp_path: Path) -> None:
    jails = (
        '[demo]\nenabled = yes\nbantime = -1\n[other]\nenabled = yes\nfilter = demo[word="refused"]\n'
        "failregex = %(known/failregex)s\n            ^ more <ADDR>$\n"
    )
    rules = load([installation(tmp_path, jails)]).rules
    assert [rule.id for rule in rules if not rule.silent] == ["fail2ban-demo", "fail2ban-other"]
    assert rules[2].lines is not None
    assert [one.text.split()[1] for one in rules[2].lines.failures] == ["refused", "more"]
    assert rules[1].response is not None
    assert rules[1].response.lease == LONGEST_LEASE


@pytest.mark.parametrize(
    ("jails", "words"),
    [
        ("[demo]\nenabled = true\nfindtime = soon\n", "jail.local:3: findtime: 'soon' is no time"),
        ("[demo]\nenabled = true\nmaxretry = 0\n", "jail.local:3: maxretry"),
        ("[demo]\nenabled = true\nfilter = missing\n", "no filter 'missing'"),
        ("[demo]\nenabled = true\nfilter = demo[word\n", "jail.local:3: "),
        ("[demo]\nenabled = false\n", "no jail is enabled"),
        ("[demo\nenabled = false\n", "jail.local:1"),
    ],
)
def test_what_cannot_be_used_has_a_place(tmp_path: Path, jails: str, words: str) -> None:
    problems: list[Problem] = []
    assert read_fail2ban([installation(tmp_path, jails)], problems) == []
    assert len(problems) == 1
    assert words in str(problems[0].as_error())


def test_a_broken_jail_leaves_the_others(tmp_path: Path) -> None:
    folder = installation(tmp_path, "[bad]\nenabled = true\n[demo]\nenabled = true\n")
    with pytest.raises(RuleError, match="no filter 'bad'"):
        load([folder])
    result = load([folder], keep_going=True)
    assert [rule.id for rule in result.rules] == ["fail2ban-demo-line", "fail2ban-demo"]


def test_a_filter_by_itself_counts_as_jails_do(tmp_path: Path) -> None:
    folder = installation(tmp_path, "")
    for path in (folder / "filter.d", folder / "filter.d" / "demo.conf"):
        rules = load([path]).rules
        assert [rule.id for rule in rules] == ["fail2ban-demo-line", "fail2ban-demo"]
        assert rules[1].correlate is not None
        assert rules[1].correlate.threshold[0].value == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("600", 600), ("10m", 600), ("1d12h30m", 131_400), ("-1", -1), ("1 week", 604_800), ("2 hours", 7200)],
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10q", "m"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        seconds_of(text)

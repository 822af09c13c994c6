"""What is counted of findings before a rule's alerts may go further.
Counterpart: vedette.rules.promotion."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from vedette.model.findings import Finding
from vedette.model.levels import Level
from vedette.rules.promotion import SHOWN, Report, Tally


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def finding(at: str, rule_id: str = "r", host: str = "web1") -> Finding:
    return Finding(at, rule_id, "R", Level.HIGH, moment(at), {}, "h", host, "", "", 1, ())


def report(
    *found: tuple[str, str], zone: str = "UTC", begin: str = "2026-03-01 00:00", end: str = "2026-03-04 12:00"
) -> Report:
    """Of findings as (time, key)."""
    tally = Tally("r", ZoneInfo(zone))
    for at, key in found:
        tally.add(finding(at), key, f"source.ip={key}")
    return tally.report(files=1, records=100, begin=moment(begin), end=moment(end), zone=zone)


def test_findings_of_one_key_are_one_alert_until_it_was_quiet_for_a_day():
    found = report(
        ("2026-03-01 10:00", "a"),
        ("2026-03-01 10:05", "a"),
        ("2026-03-02 10:05", "a"),  # a day to the second: still the same
        ("2026-03-03 10:06", "a"),
        ("2026-03-03 11:00", "b"),
    )
    assert (found.findings, found.alerts, found.days) == (5, 3, 4)
    assert found.alerts_a_day == 0.75
    assert [(day.date, day.findings, day.alerts) for day in found.by_day] == [
        ("2026-03-01", 2, 1),
        ("2026-03-02", 1, 0),
        ("2026-03-03", 2, 2),
    ]
    assert found.busiest is not None
    assert found.busiest.date == "2026-03-03"
    assert found.sentence() == "3 alerts (5 findings) in 4 days of 100 records, at most 2 a day"
    assert (found.first, found.last) == (moment("2026-03-01 10:00"), moment("2026-03-03 11:00"))


def test_days_and_nights_are_those_of_the_zone():
    at = ("2026-03-01 21:30", "a")
    assert report(at).night == 0
    berlin = report(at, ("2026-03-02 05:30", "a"), zone="Europe/Berlin")
    assert (berlin.night, berlin.zone) == (1, "Europe/Berlin")
    late = report(("2026-03-01 23:30", "a"), zone="Europe/Berlin", begin="2026-03-01 23:30", end="2026-03-01 23:40")
    assert [day.date for day in late.by_day] == ["2026-03-02"]
    assert late.days == 1


def test_findings_of_other_rules_are_not_counted():
    tally = Tally("r")
    tally.add(finding("2026-03-01 10:00", "other"), "a", "a")
    assert tally.report(files=1, records=9, begin=0, end=0).findings == 0


def test_nothing_looked_at_and_nothing_found():
    nothing = Tally("r").report(files=1, records=0, begin=0, end=0)
    assert (nothing.days, nothing.alerts_a_day, nothing.busiest) == (0, 0.0, None)
    assert nothing.sentence() == "no records looked at"
    assert report().sentence() == "0 alerts (0 findings) in 4 days of 100 records"


def test_the_loudest_come_first_and_the_others_are_told():
    many = [("2026-03-01 10:00", f"k{number:02}") for number in range(SHOWN + 5)]
    found = report(*many, ("2026-03-01 11:00", "k14"))
    assert found.keys[0] == ("source.ip=k14", 2)
    assert found.keys[1] == ("source.ip=k00", 1)
    assert (len(found.keys), found.keys_total) == (SHOWN, SHOWN + 5)
    assert found.hosts == (("web1", SHOWN + 6),)

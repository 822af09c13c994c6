"""`vedette rules promote|demote`: the report, what is refused, what is written.
Counterpart: vedette.cli.rules.promoting."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.parts import HARMFUL, Ran, vedette

RULE = """title: Root was guessed
id: 7fcc54cb-f27d-4684-84b7-436af096f858
status: test
level: high
logsource: {product: linux, service: sshd}
detection:
  guess:
    event.action: ssh-login-failed
    user.name: root
  condition: guess
"""
ID = "7fcc54cb-f27d-4684-84b7-436af096f858"
LINES = "".join(
    f"Mar {day:2d} 23:00:0{n} web1 sshd[1]: Failed password for root from 203.0.113.{n} port 5 ssh2\n"
    for day in (1, 2)
    for n in range(4)
)


class House:
    """A configuration with one rule of other people, and a log."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "vedette.yml"
        self.log = folder / "auth.log"
        (folder / "rule.yml").write_text(RULE)
        self.config.write_text(
            f"version: 1\ndata: {folder / 'data'}\nrules: {{packs: false, paths: [{folder / 'rule.yml'}]}}\n"
        )
        self.log.write_text(LINES)

    def run(self, *words: object) -> Ran:
        return vedette("rules", *words, "--config", self.config)

    @property
    def step(self) -> str:
        (rule,) = self.run("list", "--output", "json").records
        return str(rule["step"])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_rule_of_others_rises_step_by_step_with_its_report(house: House):
    assert house.step == "store"
    ran = house.run("promote", ID, "--over", house.log, "--year", 2026)
    assert ran.code == 0, ran.err
    assert "looked at  8 records of 1 file, 2026-03-01T23:00:00Z to 2026-03-02T23:00:03Z" in ran.out
    assert "fired      8 times" in ran.out
    assert "alerts     4, findings of one key joined: 2.0 a day over 2 days, at most 4 (2026-03-01)" in ran.out
    assert "at night   8 of 8 findings (100 %)" in ran.out
    assert "source.ip=203.0.113.0  2" in ran.out
    assert f"{ID}: store -> digest, written to " in ran.out
    assert house.step == "digest"
    assert house.run("demote", ID, "--reason", "too loud").code == 0
    assert house.step == "store"


def test_what_is_refused_leaves_everything_as_it_was(house: House):
    for words, why in (
        (("promote", ID), "nothing was replayed"),
        (("promote", ID, "--to", "page", "--over", house.log), "3 steps at once"),
        (("promote", ID, "--to", "store", "--yes"), "at store already"),
        (("demote", ID), "at store already"),
        (("promote", "no-such-rule", "--yes"), "there is no rule"),
        (("promote", ID, "--over", house.log.with_name("none")), "no such file"),
        (("promote", ID, "--over", house.log, "--timezone", "Nowhere/Town"), "no such time zone"),
    ):
        ran = house.run(*words)
        assert ran.code == 2, words
        assert why in ran.err, words
    assert house.step == "store"
    assert not (house.config.parent / "conf.d").exists()


def test_a_dry_run_writes_nothing_and_json_has_it_all(house: House):
    ran = house.run("promote", ID, "--to", "page", "--over", house.log, "--year", 2026, "--dry-run", "--output", "json")
    assert ran.code == 0
    (record,) = ran.records
    assert (record["from"], record["to"], record["written"]) == ("store", "page", None)
    report = record["report"]
    assert (report["findings"], report["alerts"], report["days"], report["night"]) == (8, 4, 2, 8)
    assert report["by_day"][0] == {"date": "2026-03-01", "findings": 4, "alerts": 4}
    assert report["hosts"] == [{"host.name": "web1", "findings": 8}]
    assert house.step == "store"


def test_keys_an_attacker_chose_do_not_act_on_a_terminal(house: House):
    house.config.with_name("rule.yml").write_text(
        RULE.replace("    user.name: root\n", "") + "vedette: {key: [user.name]}\n"
    )
    hostile = b"eve\x1b[2J\xe2\x80\xaex"
    house.log.write_bytes(
        b"Mar  1 23:00:00 web1 sshd[1]: Failed password for " + hostile + b" from 203.0.113.1 port 5 ssh2\n"
    )
    ran = house.run("promote", ID, "--over", house.log, "--year", 2026, "--dry-run")
    assert r"user.name=eve\x1b[2J" in ran.out
    assert not [one for one in HARMFUL if one in ran.out]

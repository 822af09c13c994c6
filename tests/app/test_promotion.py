"""The report over real files, and the step in the configuration: whole or not at all.
Counterpart: vedette.app.promotion."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vedette.app.host import AUDIT_FILE
from vedette.app.promotion import STEPS_FILE, check_climb, check_fall, move, needed, next_step, would_have_fired
from vedette.config.load import load_settings
from vedette.model.errors import ConfigError, StateError, VedetteError
from vedette.model.levels import Level
from vedette.model.rules import NotifyStep, Rule
from vedette.rules.loading import load_packs
from vedette.rules.promotion import Tally

STORE, DIGEST, MAIL, PAGE = NotifyStep
RULE = Rule("my-rule", "Mine", Level.HIGH, step=STORE)
NOW = 1_774_000_000_000_000
LINE = "Mar {day:2d} {clock} web1 sshd[1]: Failed password for root from {ip} port 5 ssh2\n"
REPORT = Tally("my-rule").report(files=1, records=1, begin=0, end=0)


# ---------------------------------------------------------------------------------------------- the report
@pytest.fixture(scope="module")
def rules() -> list[Rule]:
    return load_packs()


def test_a_correlation_is_replayed_with_what_it_counts(rules: list[Rule], tmp_path: Path):
    rule = next(rule for rule in rules if rule.id == "ssh-brute-force-address")
    assert [one.id for one in needed(rules, rule)] == ["ssh-guess", "ssh-brute-force-address"]
    text = "".join(
        LINE.format(day=day, clock=f"{hour:02}:00:{second:02}", ip=ip)
        for day, hour, ip in ((1, 1, "203.0.113.7"), (1, 5, "203.0.113.8"), (3, 12, "203.0.113.7"))
        for second in range(6)
    )
    text += "Mar  5 10:00:00 web1 sshd[1]: Server listening on :: port 22.\n"
    plain, packed = tmp_path / "auth.log", tmp_path / "auth.log.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (plain, packed):
        report = would_have_fired(rules, rule, [path], year=2026)
        assert (report.records, report.findings, report.alerts, report.days) == (19, 3, 3, 5)
        assert (report.night, report.hosts) == (2, (("web1", 3),))
        assert report.keys == (("source.ip=203.0.113.7", 2), ("source.ip=203.0.113.8", 1))
        assert [(day.date, day.alerts) for day in report.by_day] == [("2026-03-01", 2), ("2026-03-03", 1)]


def test_nothing_in_a_file(rules: list[Rule], tmp_path: Path):
    (tmp_path / "empty").write_bytes(b"")
    report = would_have_fired(rules, rules[0], [tmp_path / "empty"])
    assert (report.records, report.findings) == (0, 0)
    with pytest.raises(VedetteError, match="no such file"):
        would_have_fired(rules, rules[0], [tmp_path / "none"])


def test_of_a_tree_all_rules_are_needed():
    child = replace(RULE, id="child", parents=("my-rule",))
    other = replace(RULE, id="other")
    assert needed([RULE, child, other], RULE) == [RULE, child, other]
    assert needed([RULE, child, other], child) == [RULE, child, other]
    assert needed([RULE, child, other], other) == [other]


# ---------------------------------------------------------------------------------------------- what is allowed
@pytest.mark.parametrize(
    ("before", "to", "seen", "sure", "refused"),
    [
        (STORE, DIGEST, True, False, ""),
        (STORE, DIGEST, False, True, ""),
        (STORE, DIGEST, False, False, "nothing was replayed"),
        (STORE, MAIL, True, True, ""),
        (STORE, MAIL, False, True, "nothing was replayed"),
        (STORE, PAGE, True, False, "3 steps at once"),
        (PAGE, PAGE, True, True, "at page already"),
        (PAGE, MAIL, True, True, "at page already"),
    ],
)
def test_what_a_step_up_needs(before: NotifyStep, to: NotifyStep, seen: bool, sure: bool, refused: str):
    rule = replace(RULE, step=before)
    if not refused:
        check_climb(rule, to, REPORT if seen else None, sure=sure)
        return
    with pytest.raises(VedetteError, match=refused):
        check_climb(rule, to, REPORT if seen else None, sure=sure)


def test_a_rule_that_makes_no_findings_has_no_steps():
    with pytest.raises(VedetteError, match="no findings of its own"):
        check_climb(replace(RULE, silent=True), DIGEST, REPORT, sure=True)


def test_down_needs_nothing_but_that_it_is_down():
    check_fall(replace(RULE, step=PAGE), STORE)
    with pytest.raises(VedetteError, match="at store already"):
        check_fall(RULE, STORE)


def test_the_next_step():
    assert [next_step(step) for step in NotifyStep] == [DIGEST, MAIL, PAGE, PAGE]


# ---------------------------------------------------------------------------------------------- what is written
@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "vedette.yml"
    path.write_text(f"version: 1\ndata: {tmp_path / 'data'}\n")
    return path


def moved(config: Path, to: NotifyStep, why: str = "", rule: Rule = RULE) -> None:
    move(config, load_settings(config), rule, to, who="alice", why=why, now=NOW)


def test_the_step_stands_in_the_configuration_and_in_the_audit(config: Path):
    moved(config, DIGEST, "quiet for a week")
    assert load_settings(config).rules.steps == {"my-rule": DIGEST}
    assert STEPS_FILE.beside(config).read_text().splitlines()[-1] == (
        "    my-rule: digest # 2026-03-20 alice, from store: quiet for a week"
    )
    assert STEPS_FILE.beside(config).stat().st_mode & 0o777 == 0o644
    (line,) = (config.parent / "data" / AUDIT_FILE).read_text().splitlines()
    assert json.loads(line) == {
        "message": "alice: my-rule from store to digest",
        "@timestamp": "2026-03-20T09:46:40.000000Z",
        "event": {
            "kind": "event",
            "category": ["configuration"],
            "action": "rule-promoted",
            "outcome": "success",
            "dataset": "vedette.audit",
        },
        "user": {"name": "alice"},
        "vedette": {
            "audit": {"rule": "my-rule", "before": "store", "after": "digest", "reason": "quiet for a week"},
        },
    }


def test_what_others_wrote_there_stays(config: Path):
    steps = STEPS_FILE.beside(config)
    steps.parent.mkdir()
    steps.write_text("# ours\nrules:\n  paths: []  # none yet\n  steps: {other-rule: page}\n")
    moved(config, DIGEST)
    moved(config, MAIL, "again", replace(RULE, step=DIGEST))
    assert load_settings(config).rules.steps == {"other-rule": PAGE, "my-rule": MAIL}
    text = steps.read_text()
    assert text.startswith("# ours\n")
    assert "# none yet" in text
    assert "from digest: again" in text
    assert "from store" not in text
    assert len((config.parent / "data" / AUDIT_FILE).read_text().splitlines()) == 2


def test_reasons_cannot_write_configuration(config: Path):
    moved(config, DIGEST, "fine\nrespond: {x: enforce}\x1b[2J")
    assert load_settings(config).respond == {}
    assert "\x1b" not in STEPS_FILE.beside(config).read_text()
    assert "fine respond: {x: enforce}\\x1b[2J" in STEPS_FILE.beside(config).read_text()


def test_a_step_set_elsewhere_is_left_to_who_set_it(config: Path):
    config.write_text(config.read_text() + "rules:\n  steps: {my-rule: mail}\n")
    with pytest.raises(ConfigError, match="is set here") as told:
        moved(config, PAGE)
    assert told.value.location is not None
    assert (told.value.location.file, told.value.location.line) == (str(config), 4)
    assert not STEPS_FILE.beside(config).exists()


def test_without_a_configuration_there_is_nowhere_to_write(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no configuration"):
        STEPS_FILE.beside(tmp_path / "none.yml")


def test_half_a_change_is_taken_back(config: Path, monkeypatch: pytest.MonkeyPatch):
    moved(config, DIGEST)
    before = STEPS_FILE.beside(config).read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vedette.app.audit.os.write", full)
    with pytest.raises(ConfigError, match="No space left"):
        moved(config, MAIL, rule=replace(RULE, step=DIGEST))
    assert STEPS_FILE.beside(config).read_bytes() == before


def test_a_broken_file_is_not_touched(config: Path):
    steps = STEPS_FILE.beside(config)
    steps.parent.mkdir()
    steps.write_text("rules: [\n")
    with pytest.raises(ConfigError):
        moved(config, DIGEST)
    assert steps.read_text() == "rules: [\n"


def test_an_audit_that_leads_elsewhere_is_refused(config: Path):
    (config.parent / "data").mkdir(mode=0o700)
    (config.parent / "data" / AUDIT_FILE).symlink_to(config)
    with pytest.raises(StateError, match="audit"):
        moved(config, DIGEST)
    assert not STEPS_FILE.beside(config).exists()

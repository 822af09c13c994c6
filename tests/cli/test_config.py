"""Checking a configuration: every problem with its place, and no secret shown.
Counterpart: vedette.cli.config, vedette.app.soundness and vedette.config.load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.parts import Place, vedette

BROKEN = """version: 1
respond:
  ssh-brute-force-adress: enforce
  ssh-root-login: simulate
alerts:
  route:
    receiver: mail
    routes:
      - {receiver: nobody, matchers: [level=high]}
notify:
  receivers:
    mail:
      type: email
      to: [ops@example.org]
      username: x
      password: {file: NOWHERE}
    pager: {type: pagerduty, routing_key: {env: VEDETTE_TEST_NO_SUCH}}
    hook: {type: webhook, url: "https://user:word@hook.example.org/T0/secret?x=1", trust: {ca_file: NOWHERE}}
  heartbeat: {url: "https://beat.example.org/secret"}
sources:
  file:
    - paths: [NOWHERE]
rules:
  paths: [RULES]
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "title: x\nid: x-y\nlevel: high\nlogsource: {product: linux}\ndetection:\n  a: {no.such.field: 1}\n"
    )
    config = tmp_path / "broken.yml"
    config.write_text(BROKEN.replace("NOWHERE", str(tmp_path / "nowhere")).replace("RULES", str(rules)))
    return config


def test_every_problem_is_said_with_file_line_and_column(broken: Path):
    ran = vedette("config", "check", broken)
    assert ran.code == 2
    found = {line.split(": ")[0]: line for line in ran.out.splitlines()}
    for line, column, words in (
        (3, 3, "did you mean 'ssh-brute-force-address'"),
        (4, 3, "asks for no block"),
        (9, 10, "there is no receiver 'nobody'"),
        (16, 7, "notify.receivers.mail.password: cannot read the secret"),
        (17, 30, "warning: notify.receivers.pager.routing_key: environment variable VEDETTE_TEST_NO_SUCH"),
        (18, 92, "trust.ca_file"),
        (22, 15, "warning: "),
    ):
        assert words in found[f"{broken}:{line}:{column}"]
    assert any(line.startswith(f"{broken.parent}/rules.yml:") for line in ran.out.splitlines())
    same = vedette("config", "check", "--config", broken, "--output", "json").records
    assert len(same) == len(ran.out.splitlines())
    assert {(one["file"], one["line"]) for one in same if one["check"] == "respond"} == {
        (str(broken), 3),
        (str(broken), 4),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nnotifi: {}\n", ":2:1: notifi: is not a setting (hint: did you mean notify?)"),
        ("version: 1\nversion: 1\n", ":2:1"),
        ("respond: {}\n", "version is missing"),
        ("version: 1\nrules: [\n", ":3:1"),
        ("version: 1\nuser: \x1b[2J\n", ""),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_place(tmp_path: Path, text: str, said: str):
    config = tmp_path / "c.yml"
    config.write_text(text)
    ran = vedette("config", "check", config)
    assert ran.code == 2
    assert str(config) in ran.err
    assert said in ran.err
    assert "\x1b" not in ran.err


def test_warnings_alone_are_exit_1_and_nothing_wrong_is_0(tmp_path: Path, place: Place):
    fine = place.run("config", "check")
    assert (fine.code, fine.out) == (0, "")
    assert "fine" in fine.err
    place.configure(f"sources: {{file: [{{paths: [{tmp_path}/none.log]}}]}}\n")
    assert place.run("config", "check").code == 1
    (tmp_path / "none.log").write_text("")
    assert place.run("config", "check").code == 0


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    assert vedette("config", "check", tmp_path / "none.yml").code == 2


def test_show_has_defaults_filled_in_and_no_secret(broken: Path, tmp_path: Path):
    for output in ("text", "json"):
        ran = vedette("config", "show", "--config", broken, "--data", tmp_path / "here", "--output", output)
        assert ran.code == 0
        assert "secret?" not in ran.out
        assert "T0" not in ran.out
        assert "word" not in ran.out.replace("password", "")
        assert "https://hook.example.org/…" in ran.out
        assert "https://beat.example.org/…" in ran.out
    tree = json.loads(ran.out)
    assert tree["data"] == str(tmp_path / "here")
    assert tree["respond"]["ssh-brute-force-adress"] == "enforce"
    assert tree["alerts"]["silences"]["usual"] == "2h"
    assert tree["notify"]["receivers"]["mail"]["password"] == {"env": "", "file": str(broken.parent / "nowhere")}


def test_the_url_of_the_state_is_shown_without_its_password(place: Place):
    place.configure("state_url: postgresql+psycopg://vedette:hunter2@db.example.org/vedette\n")
    assert "hunter2" not in place.run("config", "show").out


def test_what_show_prints_is_a_configuration(place: Place, tmp_path: Path):
    again = tmp_path / "again.yml"
    again.write_text(place.run("config", "show").out)
    assert vedette("config", "check", again).code == 0
    assert vedette("config", "show", "--config", again).out == again.read_text()


def test_the_schema_is_one_and_knows_every_part():
    schema = json.loads(vedette("config", "schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"sources", "rules", "alerts", "notify", "respond", "blocking"} <= set(schema["properties"])

"""Attack files against a real shop with the real programs: what is so passes, what is not fails, and a dead target
never passes.
Counterpart: src/vedette/sources/attacks; tests/scenarios/parts/shop.py is what is attacked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.netns import SERVER, Wire
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.shop import names, open_shop

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

NOBODY = "203.0.113.99"
"""On the wire, and no host has it."""

Run = Callable[..., "Outcomes"]


class Outcomes:
    """What a run of attack files came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.err = err
        self.records: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]

    @property
    def verdicts(self) -> dict[str, tuple[str, str]]:
        """Verdict and reason by scenario."""
        return {one["scenario"]: (one["verdict"], one["reason"]) for one in self.records}


@pytest.fixture
def shop(wire: Wire) -> Iterator[Wire]:
    """The server is a shop at port 80; the names of the examples lead to it."""
    open_shop(wire.server, SERVER, 80)
    with names(wire.world, {"localhost": "127.0.0.1", "scanme.nmap.org": SERVER, "google.com": SERVER, "gone": NOBODY}):
        yield wire


@pytest.fixture
def run(shop: Wire, scratch: Path) -> Run:
    def attack(*files: Path, tags: str = "", **environment: str) -> Outcomes:
        words = [sys.executable, "-m", "vedette", "attack", "run", *map(str, files), "--output", "json"]
        done = subprocess.run(
            shop.world.argv([*words, "--timeout", "60", *(["--tags", tags] if tags else [])]),
            capture_output=True,
            check=False,
            timeout=200,
            env={"PATH": os.environ["PATH"], **environment},
        )
        return Outcomes(done.returncode, done.stdout.decode(), done.stderr.decode())

    return attack


def written(scratch: Path, *scenarios: tuple[str, str, str, str]) -> Path:
    """A file of scenarios: name, adapter, command, expectation."""
    text = "Feature: shop\n"
    for name, adapter, command, step in scenarios:
        text += (
            f'  Scenario: {name}\n    When I launch a "{adapter}" attack with:\n      """\n      {command}\n      """\n'
        )
        text += f"    Then {step}\n"
    file = scratch / "shop.attack"
    file.write_text(text)
    return file


@pytest.mark.corpus
def test_the_examples_run_unchanged(run: Run, shop: Wire, corpus: Path) -> None:
    examples = corpus / "gauntlt" / "examples"
    open_shop(shop.world, "127.0.0.1", 8008)
    files = [examples / name for name in ("simplest.attack", "nmap/nmap.attack", "nmap/simple.attack")]
    files += [examples / "nmap" / name for name in ("simple-env-var.attack", "os_detection.attack")]
    files += [examples / "curl" / name for name in ("simple.attack", "verbs.attack")] + [
        examples / "dirb" / "dirb.attack"
    ]
    ran = run(*files, TEST_HOSTNAME="scanme.nmap.org")
    assert {one["verdict"] for one in ran.records} == {"passed"}, [
        one for one in ran.records if one["verdict"] != "passed"
    ]
    assert ran.code == 0
    assert len(ran.records) == 15


@pytest.mark.corpus
def test_no_example_passes_against_a_target_that_is_gone(run: Run, shop: Wire, corpus: Path) -> None:
    shop.world.ip("link", "set", shop.world_device, "down")
    shop.world.ip("link", "set", shop.world_device, "up")
    shop.server.ip("link", "set", shop.server_device, "down")
    examples = corpus / "gauntlt" / "examples"
    ran = run(
        *(
            examples / one
            for one in ("nmap/nmap.attack", "nmap/simple.attack", "curl/simple.attack", "dirb/dirb.attack")
        )
    )
    assert ran.code == 1
    assert {one["verdict"] for one in ran.records} == {"failed", "vacuous"}
    assert ran.verdicts["Verify that there are no unexpected ports open"] == ("vacuous", "target-down")
    wordlists = next(name for name in ran.verdicts if "dirb" in name)
    assert ran.verdicts[wordlists] == ("vacuous", "target-down")


def test_what_nmap_sees(run: Run, shop: Wire, scratch: Path) -> None:
    shop.server.run(
        ["nft", "-f", "-"],
        stdin=("table inet filter { chain input { type filter hook input priority 0; tcp dport 8443 drop; }; }"),
    )
    not_open = r"the output should not match /{}.tcp\s+open/"
    file = written(
        scratch,
        ("open", "nmap", f"nmap -p 80 {SERVER}", r"the output should match /80.tcp\s+open/"),
        ("open without ping", "nmap", f"nmap -Pn -sT -p 80 {SERVER}", r"the output should match /80.tcp\s+open/"),
        ("open against", "nmap", f"nmap -p 80 {SERVER}", not_open.format(80)),
        ("closed", "nmap", f"nmap -p 81 {SERVER}", not_open.format(81)),
        ("closed without ping", "nmap", f"nmap -Pn -p 81 {SERVER}", not_open.format(81)),
        ("filtered", "nmap", f"nmap -p 8443 {SERVER}", not_open.format(8443)),
        ("not asked", "nmap", f"nmap -p 81 {SERVER}", not_open.format(82)),
        ("down", "nmap", f"nmap -p 81 {NOBODY}", not_open.format(81)),
        ("down without ping", "nmap", f"nmap -Pn -n -sT --max-retries 0 -p 81 {NOBODY}", not_open.format(81)),
        ("one is down", "nmap", f"nmap -p 81 {SERVER} {NOBODY}", not_open.format(81)),
        ("a network", "nmap", f"nmap -n -p 81 {SERVER}/31", not_open.format(81)),
        ("no name", "nmap", "nmap -p 81 no.such.example", not_open.format(81)),
        ("no option", "nmap", f"nmap --nosuch {SERVER}", not_open.format(81)),
        ("to its output", "nmap", f"nmap -oX - -p 81 {NOBODY}", 'the output should not contain "open"'),
    )  # fmt: skip
    ran = run(file)
    assert ran.verdicts == {
        "open": ("passed", "as-expected"),
        "open without ping": ("passed", "as-expected"),
        "open against": ("failed", "not-as-expected"),
        "closed": ("passed", "as-expected"),
        "closed without ping": ("passed", "as-expected"),
        "filtered": ("passed", "as-expected"),
        "not asked": ("vacuous", "not-looked-at"),
        "down": ("vacuous", "target-down"),
        "down without ping": ("vacuous", "target-down"),
        "one is down": ("vacuous", "target-down"),
        "a network": ("passed", "as-expected"),
        "no name": ("vacuous", "target-down"),
        "no option": ("vacuous", "program-failed"),
        "to its output": ("vacuous", "target-down"),
    }
    assert ran.code == 1


def test_what_curl_sees(run: Run, scratch: Path) -> None:
    code = 'curl --silent --max-time 5 --output /dev/null --write-out "%{http_code}"'
    cookies = (
        "the following cookies should be received:\n      | name | secure | httponly |\n      | sid | true | true |"
    )
    ran = run(
        written(
            scratch,
            ("up", "curl", f"{code} {SERVER}", "the output should match /30\\d/"),
            ("up and not", "curl", f"{code} {SERVER}", 'the output should not contain "200"'),
            ("cookies", "curl", f"curl -I {SERVER}", cookies),
            ("refused", "curl", f"{code} {SERVER}:81", 'the output should not contain "200"'),
            ("gone", "curl", f"{code} http://{NOBODY}/", 'the output should not contain "200"'),
            ("000", "curl", f"{code} http://{NOBODY}/", 'the output should contain "000"'),
            ("first gone", "curl", f"{code} http://{NOBODY}/ http://{SERVER}/", 'the output should not contain "200"'),
            ("no name", "curl", f"{code} http://no.such.example/", 'the output should not contain "200"'),
            ("no tls", "curl", f"curl -sS https://{SERVER}:80/", "the exit status should be 35"),
        )
    )
    assert ran.verdicts == {
        "up": ("passed", "as-expected"),
        "up and not": ("passed", "as-expected"),
        "cookies": ("passed", "as-expected"),
        "refused": ("vacuous", "target-down"),
        "gone": ("vacuous", "target-down"),
        "000": ("vacuous", "target-down"),
        "first gone": ("vacuous", "target-down"),
        "no name": ("vacuous", "target-down"),
        "no tls": ("passed", "as-expected"),
    }


def test_what_dirb_and_sqlmap_see(run: Run, shop: Wire, scratch: Path) -> None:
    open_shop(shop.server, SERVER, 9292, injectable=True)
    words = scratch / "words.txt"
    words.write_text("admin\nsecret\n")
    words.chmod(0o644)
    none_found, not_injectable = (
        'the output should contain "FOUND: 0"',
        'the output should not contain "injection point"',
    )
    sqlmap = "python <sqlmap_path> --dbms sqlite --batch -v 0 --technique=BU -u"
    ran = run(
        written(
            scratch,
            ("none", "dirb", f"dirb http://{SERVER}/shop/ {words} -S", none_found),
            ("down", "dirb", f"dirb http://{SERVER}:81/ {words} -S", none_found),
            (
                "no words",
                "dirb",
                f"dirb http://{SERVER}/shop/ {scratch}/nosuch.txt -S",
                'the output should not contain "FOUND: 1"',
            ),
            ("safe", "sqlmap", f"{sqlmap} http://{SERVER}/?number_id=1", not_injectable),
            ("injectable", "sqlmap", f"{sqlmap} http://{SERVER}:9292/?number_id=1", not_injectable),
            ("gone", "sqlmap", f"{sqlmap} http://{SERVER}:81/?number_id=1", not_injectable),
        )
    )
    assert ran.verdicts == {
        "none": ("passed", "as-expected"),
        "down": ("vacuous", "target-down"),
        "no words": ("vacuous", "nothing-tested"),
        "safe": ("passed", "as-expected"),
        "injectable": ("failed", "not-as-expected"),
        "gone": ("vacuous", "target-down"),
    }, ran.records


SCHEDULED = """\
Feature: scheduled
  Scenario: without our capabilities
    When I launch a "generic" attack with:
      \"\"\"
      cat /proc/self/status
      \"\"\"
    Then the output should match /CapEff:\\s+0000000000000000/
  Scenario: the shop says that all is well
    When I launch a "generic" attack with:
      \"\"\"
      cat {mark}
      \"\"\"
    Then the output should contain "all is well"
"""


def test_on_schedule_a_check_that_fails_is_an_alert_and_ends_with_the_first_pass(
    start_vedette: StartVedette, scratch: Path
):
    mark, file, log = scratch / "mark", scratch / "shop.attack", scratch / "auth.log"
    mark.write_text("all is well\n")
    file.write_text(SCHEDULED.format(mark=mark))
    log.touch()
    attacks = {"files": [file], "every": "1s", "confirm_after": "100ms"}
    vedette = start_vedette({"sources": {"file": [{"paths": [log]}], "attacks": attacks}})
    assert "attacks: 2 scenarios of 1 files" in vedette.life
    # The file, and both of its scenarios: the program it started could read nothing that we can.
    vedette.wait_for_finding("attacks-failed-over", 3)
    assert vedette.alerts() == []
    mark.write_text("trouble\n")
    alert = vedette.wait_for_alert("attacks-failed")
    assert (alert["level"], alert["labels"]["vedette.attacks.scenario"]) == ("high", "the shop says that all is well")
    assert str(file) in alert["sample"]
    mark.write_text("all is well\n")
    wait_until("it passes", lambda: vedette.alerts(state="open") == [], 60)
    assert vedette.stop() == 0
    assert "Traceback" not in vedette.log

"""Attack files on schedule: run whole, within own networks, and what is wrong with a file is an outcome.
Counterpart: src/vedette/app/attack_watch.py and src/vedette/sources/attacks/source.py."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from tests.sources.collecting import Counts, running

from vedette.app.attack_watch import AttackRun
from vedette.model.batch import Batch, Trust
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.sources.attacks.outcomes import Verdict
from vedette.sources.attacks.source import AttacksSource
from vedette.sources.settings import AttacksSettings

FILE = """\
Feature: files
  Scenario: the mark is there
    When I launch a "generic" attack with:
      \"\"\"
      cat {mark}
      \"\"\"
    Then the output should contain "all is well"
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def file(tmp_path: Path, mark: Path) -> Path:
    made = tmp_path / "files.attack"
    made.write_text(FILE.format(mark=mark))
    return made


def run_of(file: Path, policy: Path | None = None) -> AttackRun:
    return AttackRun(settings(file), SystemClock(), policy)


def settings(file: Path) -> AttacksSettings:
    return AttacksSettings.model_validate({"files": [str(file)], "every": "20ms", "confirm_after": "1ms"})


def verdicts(run: AttackRun) -> list[tuple[str, Verdict]]:
    return [(one.scenario, one.verdict) for one in run(None, threading.Event())]


def test_every_scenario_and_the_file_itself_have_an_outcome(file: Path, mark: Path) -> None:
    run = run_of(file)
    assert run.check() == 1
    mark.write_text("all is well\n")
    assert verdicts(run) == [("", Verdict.PASSED), ("the mark is there", Verdict.PASSED)]
    mark.write_text("trouble\n")
    assert verdicts(run) == [("", Verdict.PASSED), ("the mark is there", Verdict.FAILED)]
    assert [one.scenario for one in run(frozenset({(str(file), "files", "the mark is there")}), threading.Event())] == [
        "the mark is there"
    ]


def test_a_file_that_breaks_is_said_and_so_is_that_it_was_mended(file: Path, mark: Path) -> None:
    mark.write_text("all is well\n")
    run = run_of(file)
    good = file.read_text()
    file.write_text(good.replace("should contain", "shuld contain"))
    with pytest.raises(VedetteError, match=r"files\.attack:7"):
        run.check()
    [broken] = run(None, threading.Event())
    assert (broken.scenario, broken.verdict) == ("", Verdict.COULD_NOT_TELL)
    file.write_text(good)
    assert verdicts(run)[0] == ("", Verdict.PASSED)


def test_without_a_policy_that_can_be_read_nothing_is_run(file: Path, tmp_path: Path) -> None:
    [outcome] = run_of(file, tmp_path / "gone.yml")(None, threading.Event())
    assert outcome.verdict is Verdict.COULD_NOT_TELL
    assert "gone.yml" in outcome.detail


def test_a_run_that_is_ended_says_nothing_of_anybody(file: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert [one.scenario for one in run_of(file)(None, stop)] == [""]


async def test_a_scenario_that_fails_once_is_run_again_before_it_is_said(file: Path, mark: Path) -> None:
    run, fails = run_of(file), [True, False]

    def shaky(wanted: frozenset[tuple[str, str, str]] | None, stop: threading.Event) -> object:
        mark.write_text("trouble\n" if fails and fails.pop(0) else "all is well\n")
        return run(wanted, stop)

    counts = Counts()
    source = AttacksSource(settings(file), shaky, host_id="h", clock=SystemClock(), counter=counts, cursor="40")  # type: ignore[arg-type]
    async with running(source) as got:
        await got.count(4)
    records = [json.loads(one) for one in got.records]
    assert {one["event"]["action"] for one in records} == {"attack-passed"}
    began = got.ids[0].split("/")[2].split(":")[0]
    assert got.ids[:2] == [f"h/attacks/{began}:40", f"h/attacks/{began}:41"]
    assert (got.batches[0].trust, json.loads(got.batches[0].cursor)) == (Trust.ATTESTED, {"position": 42, "wrong": []})
    assert got.records[0].startswith(b'{"message":"')
    assert counts.seen["attacks_run", "passed"] >= 4


def first_batch(file: Path, cursor: str = "") -> Batch:
    async def read() -> Batch:
        counts, run = Counts(), run_of(file)
        source = AttacksSource(settings(file), run, host_id="h", clock=SystemClock(), counter=counts, cursor=cursor)
        async with running(source) as got:
            await got.until(lambda got: len(got.batches) > 0)
        return got.batches[0]

    return asyncio.run(read())


def test_what_failed_and_is_there_no_more_is_said_after_a_restart_too(file: Path, mark: Path) -> None:
    mark.write_text("trouble\n")
    cursor = first_batch(file).cursor
    good = file.read_text()

    def said(file: Path) -> list[tuple[str, str]]:
        batch = first_batch(file, cursor)
        records = [json.loads(batch.raw(row)) for row in range(len(batch))]
        return [(one["event"]["action"], one["vedette"]["attacks"]["scenario"]) for one in records]

    # While the file cannot be read nothing is known of what is in it.
    file.write_text(good.replace("should contain", "shuld contain"))
    assert said(file) == [("attack-failed", "")]
    file.write_text(good.replace("the mark is there", "renamed"))
    removed = ("attack-removed", "the mark is there")
    assert said(file) == [("attack-passed", ""), ("attack-failed", "renamed"), removed]
    other = file.with_name("other.attack")
    other.write_text(good)
    assert removed in said(other)
    file.write_text(good)
    mark.write_text("all is well\n")
    assert json.loads(first_batch(file, cursor).cursor) == {"position": 4, "wrong": []}

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.scenarios.parts.processes import wait_until

from vedette.app import holding
from vedette.app import up as module
from vedette.app.host import STATE_FILE, is_running
from vedette.app.keeping import LakeKeeping
from vedette.app.pipeline import Pipeline
from vedette.app.up import Up, check
from vedette.config.settings import Settings
from vedette.model.batch import Batch, Origin, split_lines
from vedette.model.clock import SystemClock
from vedette.model.errors import ConfigError, EnforcementError, RuleError, StateError, VedetteError
from vedette.model.findings import Finding
from vedette.model.reasons import BlameReason
from vedette.store.state import State

RULE = "ssh-brute-force-address"
ATTACKER = "198.51.100.7"
FAILURE = "Failed password for root from {address} port {port} ssh2"


@pytest.fixture(autouse=True)
def same_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process does not become somebody else."""
    monkeypatch.setattr(holding, "drop_privileges", lambda folder, user: "running as who we are")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "auth.log"
    path.write_text("Mar  1 10:00:00 web1 sshd[812]: Server listening on 0.0.0.0 port 22.\n")
    return path


def settings_for(log: Path, **more: Any) -> Settings:
    values: dict[str, Any] = {
        "data": log.parent / "data",
        "sources": {"file": [{"paths": [str(log)], "accept_forgeable": True}]},
        "blocking": {"enforcers": []},
        **more,
    }
    return Settings.model_validate(values)


class Life:
    """`Up` in a task; `said` is what a person reads."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stop = asyncio.Event()
        self._heard = asyncio.Event()
        self.up = Up(clock=SystemClock(), say=self._say)
        self.task: asyncio.Task[None] | None = None

    def _say(self, line: str) -> None:
        self.said.append(line)
        self._heard.set()

    async def start(self, settings: Settings) -> None:
        self.said.clear()
        self.stop.clear()
        self.task = asyncio.create_task(self.up.run(settings, self.stop))
        while "up" not in self.said and not self.task.done():
            self._heard.clear()
            heard = asyncio.ensure_future(self._heard.wait())
            await asyncio.wait([heard, self.task], return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
        if self.task.done():
            await self.task

    async def end(self) -> None:
        assert self.task is not None
        self.stop.set()
        await self.task


@pytest.fixture
async def life() -> Iterator[Life]:
    made = Life()
    yield made
    if made.task is not None and not made.task.done():
        await made.end()
    made.up.close()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def fail(log: Path, count: int = 5, address: str = ATTACKER) -> None:
    with log.open("a") as file:
        for port in range(count):
            file.write(f"{now()} web1 sshd[812]: {FAILURE.format(address=address, port=port)}\n")


def findings(settings: Settings) -> list[Finding]:
    with closing(State(settings.data_folder() / STATE_FILE)) as state:
        return [one for one in state.recent_findings() if one.rule_id == RULE]


async def until_found(settings: Settings, count: int = 1) -> None:
    await asyncio.to_thread(wait_until, "findings", lambda: len(findings(settings)) >= count)


async def test_it_says_what_it_does_then_that_it_is_up_and_judges_what_comes(log: Path, life: Life):
    settings = settings_for(log, respond={RULE: "simulate", "no-such-rule": "enforce"})
    fail(log)
    await life.start(settings)
    assert life.said[-1] == "up"
    for line in (
        "running as who we are",
        f"reads: {log}",
        f"blocks: {RULE} simulates",
        "lacks: rule no-such-rule, which `respond:` names",
        "tells: nobody (no receiver is set; alerts are kept)",
    ):
        assert life.said.count(line) == 1
    fail(log, address="203.0.113.80")
    await until_found(settings)
    await life.end()
    assert [one.key for one in findings(settings)] == [{"source.ip": "203.0.113.80"}]


async def test_what_was_read_before_the_end_is_stored(log: Path, life: Life):
    settings = settings_for(log)
    await life.start(settings)
    fail(log, 4)
    await asyncio.to_thread(wait_until, "all read", lambda: life.up.counters.value("records") >= 4)
    await life.end()
    fail(log, 1)
    await life.start(settings)
    await until_found(settings)
    (found,) = findings(settings)
    assert found.count == 5


async def test_without_a_rule_that_enforces_it_says_that_only_people_block(log: Path, life: Life):
    await life.start(settings_for(log))
    assert [line for line in life.said if line.startswith("blocks:")] == [
        "blocks: only what a person says; `respond: {RULE-ID: enforce}` lets a rule"
    ]


async def test_only_one_runs_on_a_data_folder_over_reloads_until_it_is_closed(log: Path, life: Life):
    settings = settings_for(log)
    await life.start(settings)
    await life.end()
    assert is_running(settings.data_folder())
    other = Up(clock=SystemClock(), say=lambda _: None)
    with pytest.raises(StateError, match="another vedette"):
        await other.run(settings, asyncio.Event())
    other.close()
    # Again with other settings: what a reload does.
    await life.start(settings_for(log, respond={RULE: "simulate"}))
    assert f"blocks: {RULE} simulates" in life.said
    fail(log)
    await until_found(settings)
    await life.end()
    life.up.close()
    assert not is_running(settings.data_folder())


async def test_what_a_cancelled_source_still_put_is_not_judged_twice_after_a_reload(log: Path, life: Life):
    settings = settings_for(log)
    await life.start(settings)
    await life.end()
    lines = "".join(f"{now()} web1 sshd[812]: {FAILURE.format(address=ATTACKER, port=port)}\n" for port in range(5))
    block = lines.encode()
    starts, ends = split_lines(block)
    life.up._queue.put(Batch(Origin("host", "file"), 0, block, starts, ends, starts, SystemClock().now()))
    await life.start(settings)
    fail(log, address="203.0.113.80")
    await until_found(settings)
    await life.end()
    assert [one.key for one in findings(settings)] == [{"source.ip": "203.0.113.80"}]


async def test_an_enforcer_that_cannot_start_is_lacking_and_the_rest_goes_on(
    log: Path, life: Life, monkeypatch: pytest.MonkeyPatch
):
    def cannot(_: object) -> None:
        raise EnforcementError("no permission", hint="run as root")

    monkeypatch.setattr(holding, "make_enforcers", cannot)
    settings = settings_for(log)
    await life.start(settings)
    assert any(line.startswith("lacks: enforcement") and "run as root" in line for line in life.said)
    fail(log)
    await until_found(settings)


async def test_an_engine_that_breaks_ends_the_program_loudly(log: Path, life: Life, monkeypatch: pytest.MonkeyPatch):
    def broken(self: object, batch: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Pipeline, "take", broken)

    async def live() -> None:
        # It may break before it is up: where its source stands is a batch too.
        await life.start(settings_for(log))
        fail(log)
        assert life.task is not None
        await life.task

    with capture_logs() as logs:
        with pytest.raises(ZeroDivisionError):
            await live()
    assert "ENGINE STOPPED" in [one["event"] for one in logs]


async def test_a_source_that_cannot_go_on_does_not_stop_the_others(
    log: Path, life: Life, monkeypatch: pytest.MonkeyPatch
):
    broken = log.parent / "broken.log"
    real = module.plan_sources

    def plan(*arguments: Any, **named: Any):
        made = real(*arguments, **named)

        async def run(_emit: object) -> None:
            raise OSError("gone for good")

        monkeypatch.setattr(made.sources[0], "run", run)
        return made

    monkeypatch.setattr(module, "plan_sources", plan)
    settings = settings_for(log, sources={"file": [{"paths": [str(broken)]}, {"paths": [str(log)]}]})
    with capture_logs() as logs:
        await life.start(settings)
        fail(log)
        await until_found(settings)
        await life.end()
    assert [one["source"] for one in logs if one["event"] == "SOURCE STOPPED"] == [f"file:{broken}"]
    assert life.up.counters.value("sources_failed", f"file:{broken}") == 1


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"alerts": {"route": {"receiver": "nobody"}}}, ConfigError),
        ({"rules": {"paths": ["/no/such/rules"]}}, RuleError),
        ({"blocking": {"allowlist_files": ["BROKEN"]}}, ConfigError),
    ],
)
def test_settings_a_run_would_refuse_are_refused_before_anything_is_touched(
    log: Path, more: dict[str, Any], error: type[VedetteError], monkeypatch: pytest.MonkeyPatch
):
    (log.parent / "BROKEN").write_text("names.are.never.resolved.example\n")
    monkeypatch.chdir(log.parent)
    settings = settings_for(log, **more)
    with pytest.raises(error):
        check(settings)
    assert not settings.data_folder().exists()


def test_settings_that_would_run_pass(log: Path):
    settings = settings_for(log, respond={RULE: "enforce"})
    check(settings)
    assert not settings.data_folder().exists()


async def test_syslog_that_others_send_is_judged_and_its_place_outlives_a_reload(log: Path, life: Life):
    settings = settings_for(log, sources={"syslog": {"listen": [{"udp": "127.0.0.1:0"}]}})
    await life.start(settings)
    (said,) = [line for line in life.said if line.startswith("listens: ")]
    port = int(said.removesuffix(" (syslog)").rpartition(":")[2])

    def send(address: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(5):
                line = f"<86>1 {now()} web1 sshd 812 - - {FAILURE.format(address=address, port=number)}"
                sender.sendto(line.encode(), ("127.0.0.1", port))

    send(ATTACKER)
    await until_found(settings)
    await life.end()
    # What comes while nobody reads waits in the kernel.
    send("198.51.100.8")
    await life.start(settings)
    assert said in life.said
    await until_found(settings, 2)
    (first, second) = sorted(findings(settings), key=lambda one: str(one.key["source.ip"]))
    assert (first.key["source.ip"], second.key["source.ip"]) == (ATTACKER, "198.51.100.8")
    assert {first.blame, second.blame} == {BlameReason.SOURCE_NETWORK}


async def test_failures_of_hours_read_at_once_after_a_pause_are_no_attack(log: Path, life: Life):
    """A customer who failed once an hour while nobody looked must not look like five failures in a moment."""
    settings = settings_for(log)
    await life.start(settings)
    fail(log, 1, address="203.0.113.81")
    await asyncio.to_thread(wait_until, "read", lambda: life.up.counters.value("records") >= 1)
    await life.end()
    with log.open("a") as file:
        for hours in range(6, 0, -1):
            at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="microseconds")
            file.write(f"{at} web1 sshd[812]: {FAILURE.format(address=ATTACKER, port=hours)}\n")
    await life.start(settings)
    await asyncio.to_thread(wait_until, "read", lambda: life.up.counters.value("records") >= 7)
    await life.end()
    assert findings(settings) == []


async def test_a_start_that_fails_leaves_no_lake_in_the_way_of_the_next(
    log: Path, life: Life, monkeypatch: pytest.MonkeyPatch
):
    settings = settings_for(log)
    with monkeypatch.context() as broken:
        broken.setattr(module, "plan_sources", fail_with(VedetteError("no sources")))
        with pytest.raises(VedetteError, match="no sources"):
            await life.start(settings)
    assert "lake" not in {thread.name for thread in threading.enumerate()}
    await life.start(settings)
    assert any(line.startswith("keeps:") for line in life.said)


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_given: Any, **_more: Any) -> Any:
        raise error

    return fail


async def test_what_breaks_beside_is_tried_again_and_ends_no_detection(
    log: Path, life: Life, monkeypatch: pytest.MonkeyPatch
):
    tried: list[int] = []

    async def run(_self: object, _state: State) -> None:
        tried.append(1)
        raise ExceptionGroup("tasks", [VedetteError("the broker does not come up")])

    monkeypatch.setattr(LakeKeeping, "run", run)
    monkeypatch.setattr(module, "CARRY_AGAIN", (0.01, 0.01))
    settings = settings_for(log)
    await life.start(settings)
    fail(log)
    await until_found(settings)
    await asyncio.to_thread(wait_until, "it is tried again", lambda: len(tried) > 1)
    await life.end()
    assert life.up.counters.value("keeping_failed") == len(tried)


async def test_a_cancellation_that_gets_lost_beside_keeps_nobody(
    log: Path, life: Life, monkeypatch: pytest.MonkeyPatch
):
    lost: list[int] = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost.append(1)
                if len(lost) > 1:
                    raise

    async def run(_self: object, _state: State) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(deaf())

    monkeypatch.setattr(LakeKeeping, "run", run)
    monkeypatch.setattr(module, "CANCEL_AGAIN", (0.05, 0.05))
    await life.start(settings_for(log))
    await life.end()
    assert len(lost) == 2
    assert life.up.counters.value("cancelled_again") >= 1

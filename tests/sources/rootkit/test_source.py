"""What is told of looks over time, and what a restart knows.
Counterpart: sources/rootkit/source.py; test_checks.py has what a look finds."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import orjson
import pytest
from tests.sources.collecting import Counts, running

from vedette.model.errors import StateError
from vedette.model.levels import Level
from vedette.sources.rootkit.files import Known
from vedette.sources.rootkit.look import look_around
from vedette.sources.rootkit.source import RootkitSource, Telling
from vedette.sources.rootkit.traces import Blind, Check, Look, StoppedError, TraceKind
from vedette.sources.settings import RootkitSettings
from vedette.testing.clock import FakeClock

HIDDEN = (TraceKind.HIDDEN_PROCESS, "pid 7", Level.CRITICAL, "it hides")
WRITABLE = (TraceKind.WORLD_WRITABLE, "/etc/x", Level.MEDIUM, "open")
KEY = (TraceKind.AUTHORISED_KEY, "/root/.ssh/authorized_keys SHA256:x", Level.HIGH, "new")


def look(*traces: Any, blind: tuple[Check, Blind] | None = None) -> Look:
    made = Look()
    for one in traces:
        made.found(*one)
    if blind is not None:
        made.missed(*blind)
    return made


def told(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (one["event"]["action"], one["vedette"]["rootkit"].get("subject") or one["vedette"]["rootkit"]["check"])
        for one in records
    ]


def test_what_is_found_is_told_once_and_when_it_is_gone() -> None:
    telling = Telling()
    assert told(telling.tell(look(HIDDEN), 1, files=True)) == [("trace-found", "pid 7")]
    assert telling.tell(look(HIDDEN), 2, files=True) == []
    again = Telling(telling.cursor())
    assert again.tell(look(HIDDEN), 3, files=True) == []
    (gone,) = again.tell(look(), 4, files=True)
    assert told([gone]) == [("trace-gone", "pid 7")]
    assert gone["vedette"]["rootkit"]["since"] == "1970-01-01T00:00:00.000001Z"
    assert told(again.tell(look(HIDDEN), 5, files=True)) == [("trace-found", "pid 7")]


def test_another_level_is_told_anew() -> None:
    telling = Telling()
    telling.tell(look(WRITABLE), 1, files=True)
    worse = (*WRITABLE[:2], Level.HIGH, "open")
    assert told(telling.tell(look(worse), 2, files=True)) == [("trace-found", "/etc/x")]


def test_files_are_gone_only_when_they_were_looked_at_and_the_check_worked() -> None:
    telling = Telling()
    telling.tell(look(WRITABLE, HIDDEN), 1, files=True)
    assert told(telling.tell(look(), 2, files=False)) == [("trace-gone", "pid 7")]
    broken = look(blind=(Check.FILES, Blind.FAILED))
    assert told(telling.tell(broken, 3, files=True)) == [("check-missing", "files")]
    assert told(telling.tell(look(), 4, files=True)) == [("trace-gone", "/etc/x"), ("check-resumed", "files")]


def test_what_is_new_against_the_look_before_is_an_event_and_has_no_end() -> None:
    telling = Telling()
    assert told(telling.tell(look(KEY), 1, files=True)) == [("trace-found", KEY[1])]
    assert telling.tell(look(), 2, files=True) == []
    assert told(telling.tell(look(KEY), 3, files=True)) == [("trace-found", KEY[1])]


def test_what_cannot_be_checked_is_told_once() -> None:
    telling = Telling()
    blind = look(blind=(Check.PROCESSES, Blind.HIDEPID))
    assert told(telling.tell(blind, 1, files=True)) == [("check-missing", "processes")]
    assert telling.tell(blind, 2, files=True) == []
    assert told(telling.tell(look(), 3, files=False)) == [("check-resumed", "processes")]


@pytest.mark.parametrize("cursor", ["{", '{"name":"vedette-rootkit","version":9}'])
def test_a_cursor_that_cannot_be_read_is_refused(cursor: str) -> None:
    with pytest.raises(StateError):
        Telling(cursor)


def test_a_cursor_of_a_newer_version_is_refused() -> None:
    newer = Telling().cursor().replace('"version":1', '"version":2')
    with pytest.raises(StateError, match="version 2"):
        Telling(newer)


def test_a_check_that_breaks_is_said_and_the_others_go_on(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("vedette.sources.rootkit.look.modules", broken)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/x").touch()
    (tmp_path / "etc/x").chmod(0o666)
    (tmp_path / "proc").mkdir()
    known = Known()
    found = look_around(RootkitSettings(), known, files=True, root=tmp_path)
    assert found.blind == {(Check.MODULES, Blind.FAILED): 1}
    assert [one.subject for one in found.traces] == ["/etc/x"]
    assert known.learned


async def test_the_source_tells_and_goes_on_where_it_stood() -> None:
    asked: list[bool] = []

    def around(settings: RootkitSettings, known: Known, files: bool, stop: threading.Event) -> Look:
        asked.append(files)
        known.learned = True
        return look(HIDDEN) if len(asked) < 3 else look()

    clock, counts = FakeClock(), Counts()
    settings = RootkitSettings(every="1ms")
    source = RootkitSource(settings, host_id="h", clock=clock, counter=counts, look=around)
    async with running(source) as got:
        records = await got.count(8)
    actions = [orjson.loads(one)["event"]["action"] for one in records]
    assert actions == ["trace-found", *["facts-told"] * 6, "trace-gone"]
    assert asked[:3] == [True, False, False]
    assert counts.seen["rootkit_traces", "hidden-process"] >= 2
    cursor = got.batches[0].cursor
    after = RootkitSource(
        settings, host_id="h", clock=clock, counter=counts, cursor=cursor, look=lambda *_: look(HIDDEN)
    )
    async with running(after) as more:
        await more.until(lambda seen: len(seen.batches) >= 2)
    # What was told is not told again; what is there is, whenever the file trees were walked.
    assert {orjson.loads(one)["event"]["action"] for one in more.records} == {"facts-told"}


async def test_a_look_that_runs_when_it_is_over_is_ended() -> None:
    started = threading.Event()

    def around(settings: RootkitSettings, known: Known, files: bool, stop: threading.Event) -> Look:
        started.set()
        assert stop.wait(30)
        raise StoppedError

    source = RootkitSource(RootkitSettings(), host_id="h", clock=FakeClock(), counter=Counts(), look=around)
    async with running(source) as got:
        await asyncio.to_thread(started.wait, 30)
    assert got.batches == []


def test_a_look_is_ended_in_the_middle(tmp_path: Any) -> None:
    (tmp_path / "proc").mkdir()
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        look_around(RootkitSettings(trees=("/proc",)), Known(), files=True, stop=stop, root=tmp_path)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from vedette.app.audit import Action, Audit
from vedette.app.counters import Counters
from vedette.app.host import AUDIT_FILE
from vedette.model.batch import Batch, RecordFormat, Trust
from vedette.sources.audit import AuditSource
from vedette.testing.clock import FakeClock


def write(folder: Path, *messages: str) -> None:
    with Audit(folder) as audit:
        for message in messages:
            audit.write(Action("command-run", "alice", message), 0)


def read(
    folder: Path, until: Callable[[list[str]], bool], *acts: Callable[[], None], cursors: dict[str, str] | None = None
) -> tuple[list[Batch], list[str]]:
    """Run the source; each act happens once the one before was read. Batches, and their actions with messages."""
    batches: list[Batch] = []
    said: list[str] = []
    waiting = list(acts)

    async def main() -> None:
        counter, clock = Counters(), FakeClock()
        path = folder / AUDIT_FILE
        source = AuditSource(path, host_id="h1", clock=clock, counter=counter, cursors=cursors, every=0.005)
        seen = asyncio.Event()

        async def emit(batch: Batch) -> None:
            batches.append(batch)
            records = [orjson.loads(batch.block[a:b]) for a, b in zip(batch.starts, batch.ends, strict=True)]
            said.extend(f"{one['event']['action']}: {one['message']}" for one in records)
            if records and waiting:
                waiting.pop(0)()
            if not waiting and until(said):
                seen.set()

        task = asyncio.create_task(source.run(emit))
        await source.begun.wait()
        if waiting and not said:
            await asyncio.sleep(0.02)
            if not said:
                waiting.pop(0)()
        await asyncio.wait_for(seen.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    return batches, said


def test_what_people_did_is_attested_and_read_from_the_beginning(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    batches, said = read(tmp_path, lambda said: len(said) == 2)
    assert said == ["command-run: one", "command-run: two"]
    for batch in batches:
        assert (batch.origin.source, batch.origin.host_id) == ("audit", "h1")
        assert batch.trust is Trust.ATTESTED
        assert batch.format is RecordFormat.JSON


def test_a_file_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    _, said = read(tmp_path, lambda said: len(said) == 1, lambda: write(tmp_path, "first"))
    assert said == ["command-run: first"]


def test_a_shorter_file_is_told_while_it_is_watched(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    length = (tmp_path / AUDIT_FILE).stat().st_size

    def empty() -> None:
        (tmp_path / AUDIT_FILE).write_bytes(b"")

    _, said = read(tmp_path, lambda said: len(said) == 3, empty)
    assert said[2] == f"audit-shrunk: audit.log is 0 bytes long and was {length}"


def test_another_file_is_told_though_it_is_longer(tmp_path: Path) -> None:
    write(tmp_path, "one")

    def exchange() -> None:
        write(tmp_path / "other", "one", "another", "more")
        (tmp_path / "other" / AUDIT_FILE).replace(tmp_path / AUDIT_FILE)

    _, said = read(tmp_path, lambda said: any("another file" in one for one in said), exchange)
    assert sum(one.startswith("audit-shrunk") for one in said) == 1


@pytest.mark.parametrize("left", ["shorter", "gone"])
def test_what_happened_while_nobody_looked_is_told_at_the_start(tmp_path: Path, left: str) -> None:
    write(tmp_path, "one", "two")
    batches, _ = read(tmp_path, lambda said: len(said) == 2)
    path = tmp_path / AUDIT_FILE
    path.unlink()
    if left == "shorter":
        write(tmp_path, "one")
    _, said = read(tmp_path, lambda said: any("shrunk" in one for one in said), cursors={"audit": batches[-1].cursor})
    assert sum(one.startswith("audit-shrunk") for one in said) == 1


def test_after_a_restart_it_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    batches, _ = read(tmp_path, lambda said: len(said) == 2)
    write(tmp_path, "three")
    _, said = read(tmp_path, lambda said: bool(said), cursors={"audit": batches[-1].cursor})
    assert said == ["command-run: three"]


def test_what_stops_the_reading_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs sources knows what an OSError means, not a group of them."""
    write(tmp_path, "one")

    async def fail(*_: object) -> None:
        raise OSError("no watches left")

    monkeypatch.setattr("vedette.sources.audit.FileSource.run", fail)
    source = AuditSource(tmp_path / AUDIT_FILE, host_id="h1", clock=FakeClock(), counter=Counters())

    async def emit(batch: Batch) -> None:
        raise AssertionError

    with pytest.raises(OSError, match="no watches left"):
        asyncio.run(source.run(emit))

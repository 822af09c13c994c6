"""The broker's store taken away, in whole or in part, and one that only cannot be looked at.
Counterpart: vedette.fleet.broker_store; with a real server: tests/scenarios/test_fleet_transport.py."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from vedette.fleet import subjects
from vedette.fleet.broker_store import StoreWatch

STREAM = Path("jetstream/HUB/streams/events")
CONSUMER = STREAM / "obs" / subjects.CONSUMER


@pytest.fixture
def watch(tmp_path: Path) -> StoreWatch:
    """A store with one stream, which was looked at once."""
    store = tmp_path / "streams"
    (store / STREAM / "msgs").mkdir(parents=True)
    (store / STREAM / "meta.inf").touch()
    (store / CONSUMER).mkdir(parents=True)
    (store / CONSUMER / "meta.inf").touch()
    made = StoreWatch(store)
    assert not made.is_taken()
    assert len(made.parts) == 3
    return made


@pytest.mark.parametrize("part", ["jetstream", str(STREAM), str(STREAM / "msgs"), str(CONSUMER)])
def test_a_part_that_is_gone_at_two_looks_is_taken(watch: StoreWatch, part: str) -> None:
    shutil.rmtree(watch.folder / part)
    assert not watch.is_taken()
    assert watch.is_taken()


def test_a_part_that_is_there_again_at_the_second_look_is_not(watch: StoreWatch) -> None:
    away = watch.folder / "away"
    (watch.folder / CONSUMER).rename(away)
    assert not watch.is_taken()
    away.rename(watch.folder / CONSUMER)
    assert not watch.is_taken()


def test_another_folder_in_its_place_is_taken_at_once_and_is_the_next_server_s(watch: StoreWatch) -> None:
    watch.folder.rename(watch.folder.with_name("elsewhere"))
    watch.folder.mkdir()
    assert watch.is_taken()
    watch.begin()
    assert not watch.is_taken()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_what_cannot_be_looked_at_is_not_gone(watch: StoreWatch, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(number)):
                watch.is_taken()
    assert not watch.is_taken()

"""The look behind the source `ports`, where looking itself fails.
Counterpart: src/vedette/app/port_watch.py."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vedette.app import port_watch
from vedette.app.inventories import Gathered
from vedette.app.port_watch import PortLook
from vedette.model.clock import HOUR, SystemClock
from vedette.model.errors import StateError
from vedette.model.ports import DriftKind
from vedette.sources.ports.watch import Watch
from vedette.sources.settings import PortsSettings

POLICY = "version: 1\nown_networks: [127.0.0.0/8]\nprobe: {tcp: 9}\nhosts: {here: {addresses: [127.0.0.1]}}\n"


def test_a_look_that_the_machine_does_not_allow_is_no_pass_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ports.yml").write_text(POLICY)
    look = PortLook(PortsSettings(policy=tmp_path / "ports.yml"), SystemClock())
    watch, now, stop = Watch(too_long=HOUR), look.clock.now(), threading.Event()
    assert watch.take(look(None, stop), None, now) == []

    def fails(*_args: object, **_words: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(port_watch, "check_ports", fails)
        [told] = watch.take(look(None, stop), None, now)
        assert told["message"].endswith("nothing can be looked at from here: [Errno 24] Too many open files")
        assert told["vedette"]["ports"]["kind"] == "could-not-tell"
        [longer] = watch.take(look({}, stop), None, now + HOUR)
        assert longer["vedette"]["ports"]["kind"] == "could-not-tell-too-long"
    ended = watch.take(look(None, stop), None, now + HOUR)
    assert [one["event"]["action"] for one in ended] == ["port-drift-ended"] * 2


def test_a_look_that_is_ended_says_nothing_of_anybody(tmp_path: Path) -> None:
    (tmp_path / "ports.yml").write_text(POLICY)
    look, stop = PortLook(PortsSettings(policy=tmp_path / "ports.yml"), SystemClock()), threading.Event()
    stop.set()
    looked = look(None, stop)
    assert (looked.surveys, looked.drifts, looked.whole) == ((), (), False)


def test_a_disk_that_keeps_nothing_is_said_and_the_look_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ports.yml").write_text(POLICY)
    look = PortLook(PortsSettings(policy=tmp_path / "ports.yml"), SystemClock(), tmp_path / "kept")
    stop = threading.Event()
    assert look(None, stop).drifts == ()

    def full(self: Gathered) -> None:
        raise StateError("no space left")

    monkeypatch.setattr(Gathered, "settle", full)
    looked = look(None, stop)
    assert [(one.kind, one.host) for one in looked.drifts] == [(DriftKind.COULD_NOT_TELL, "policy")]
    assert "cannot be kept" in looked.drifts[0].advice
    assert looked.whole
    assert len(looked.surveys) == 1

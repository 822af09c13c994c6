"""The small process that may look at every process and file of this host, so that the engine need not: one question.
Counterpart: `app.up` starts it before privileges go, the source `rootkit` asks it; `sources.rootkit.look` looks."""

from __future__ import annotations

import select
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from vedette.app.apart import Apart, become
from vedette.model.errors import StateError
from vedette.sources.rootkit.files import Known
from vedette.sources.rootkit.look import look_around
from vedette.sources.rootkit.traces import Blind, Check, Look, StoppedError, Trace
from vedette.sources.settings import RootkitSettings
from vedette.system.privileges import CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE

_MODULE = "vedette.app.rootkit_helper"
_LIMIT = 256 * 1024 * 1024
_CAP_NET_BIND_SERVICE = 10
_CAPABILITIES = (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, _CAP_NET_BIND_SERVICE)
"""To read every file, what a process runs and its environment, and to try the ports below 1024."""
_GLANCE = 0.25
"""Seconds between two looks at whether nobody waits any more."""


class _Asked(msgspec.Struct):
    settings: dict[str, Any]
    known: Known
    files: bool


class _Answer(msgspec.Struct):
    traces: list[Trace]
    blind: list[tuple[Check, Blind, int]]
    known: Known


class RootkitHelper:
    """Starts the process; one thread asks. Once it is gone the source says that nothing is looked at any more."""

    def __init__(self, uid: int, gid: int) -> None:
        """uid, gid: whom it becomes. OSError where it cannot be started."""
        self._apart = Apart(_MODULE, uid, gid)
        self._owed = False

    @property
    def pid(self) -> int:
        """Its process id, 0 once it was ended."""
        return self._apart.pid

    def look(self, settings: RootkitSettings, known: Known, files: bool, stop: threading.Event) -> Look:
        """As `sources.rootkit.source.LookAround`; StateError where the helper is gone."""
        try:
            if self._owed:
                # What somebody asked who did not wait for it is not our answer.
                self._answer(stop)
            self._apart.stream.write(
                msgspec.json.encode(_Asked(settings.model_dump(mode="json"), known, files)) + b"\n"
            )
            self._apart.stream.flush()
            self._owed = True
            answer = msgspec.json.decode(self._answer(stop), type=_Answer)
        except (OSError, ValueError) as error:
            raise StateError(
                f"the helper that looks for rootkits is gone: {error}", hint="restart vedette: nothing is looked at"
            ) from None
        known.set_id, known.keys = answer.known.set_id, answer.known.keys
        known.authentication, known.learned = answer.known.authentication, answer.known.learned
        known.units, known.listeners = answer.known.units, answer.known.listeners
        known.packages = answer.known.packages
        return Look(answer.traces, {(check, why): times for check, why, times in answer.blind})

    def _answer(self, stop: threading.Event) -> bytes:
        while not select.select([self._apart.connection], [], [], _GLANCE)[0]:
            if stop.is_set():
                raise StoppedError
        line = self._apart.stream.readline(_LIMIT)
        self._owed = False
        return line

    def close(self) -> None:
        """End the process, in the middle of a look too: it has changed nothing."""
        self._apart.end()


def serve(asked: BinaryIO, answered: BinaryIO) -> None:
    """Answer until there is nobody left to ask."""
    while line := asked.readline(_LIMIT):
        question = msgspec.json.decode(line, type=_Asked)
        settings = RootkitSettings.model_validate(question.settings)
        look = look_around(settings, question.known, files=question.files)
        blind = [(check, why, times) for (check, why), times in look.blind.items()]
        answered.write(msgspec.json.encode(_Answer(look.traces, blind, question.known)) + b"\n")
        answered.flush()


def main() -> None:
    """Become the helper: standard input asks, standard output answers."""
    become(_CAPABILITIES)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()

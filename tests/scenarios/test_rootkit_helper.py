"""The helper that looks for rootkits with the few rights it keeps, as another user.
Counterpart: app/rootkit_helper.py; test_rootkit.py has what a look finds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vedette.app.rootkit_helper import RootkitHelper
from vedette.model.errors import StateError
from vedette.sources.rootkit.files import Known
from vedette.sources.rootkit.traces import StoppedError, TraceKind
from vedette.sources.settings import RootkitSettings

pytestmark = pytest.mark.root
NOBODY = 65534


def test_it_sees_what_nobody_may_see_and_is_nobody(scratch: Path) -> None:
    closed = scratch / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.touch()
    program.chmod(0o4755)
    helper, known, stop = RootkitHelper(NOBODY, NOBODY), Known(), threading.Event()
    try:
        settings = RootkitSettings(trees=(str(scratch),))
        look = helper.look(settings, known, True, stop)
        assert known.learned
        assert str(program) in known.set_id
        helper.look(settings, known, False, stop)
        status = Path(f"/proc/{helper.pid}/status").read_text()
        stop.set()
        with pytest.raises(StoppedError):
            helper.look(settings, known, True, stop)
        # What was given up is not taken for the next answer.
        fresh = Known()
        helper.look(settings, fresh, False, threading.Event())
    finally:
        helper.close()
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
    assert {one.kind for one in look.traces} & {TraceKind.HIDDEN_PROCESS, TraceKind.HIDDEN_PORT} == set()
    assert not fresh.learned
    with pytest.raises(ProcessLookupError):
        os.kill(helper.pid or 2**22 + 1, 0)
    with pytest.raises(StateError, match="gone"):
        helper.look(settings, known, True, threading.Event())

"""The helper that looks for rootkits with the few rights it keeps, as another user.
Counterpart: app/rootkit_helper.py; test_rootkit.py has what a look finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.processes import wait_until

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


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_up_tells_of_a_program_whose_file_is_gone(start_vedette: StartVedette, scratch: Path) -> None:
    scratch.chmod(0o755)
    program = scratch / "quiet"
    shutil.copy("/bin/sleep", program)
    settings = {"every": "1s", "files_every": "1h", "trees": [str(scratch / "none")]}
    with subprocess.Popen([str(program), "600"]) as process:
        try:
            wait_until("it runs", lambda: os.path.realpath(f"/proc/{process.pid}/exe") == str(program))
            program.unlink()
            vedette = start_vedette(
                {"sources": {"file": [{"paths": [str(scratch / "no.log")]}], "rootkit": settings}}
            )  # fmt: skip
            assert "watches: what hides on this host" in vedette.log
            wait_until(
                f"the alert, in:\n{vedette.log}",
                lambda: any(str(program) in one["sample"] for one in vedette.alerts("rootkit-deleted-executable")),
                120,
            )
            alert = next(one for one in vedette.alerts("rootkit-deleted-executable") if str(program) in one["sample"])
        finally:
            process.kill()
    # It lies in /tmp, which anybody may write.
    assert alert["level"] == "high"
    assert vedette.stop() == 0
    assert "Traceback" not in vedette.log

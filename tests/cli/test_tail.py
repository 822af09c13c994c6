"""A tail that a person ends by Ctrl-C, at any time.
Counterpart: vedette.cli.tail and vedette.cli.main; what is followed: tests/cli/test_search.py."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.app.search_parts import lake_of, put
from tests.cli.parts import Place

from vedette.model.clock import SystemClock


@pytest.fixture
def heard() -> Iterator[None]:
    """What is started hears Ctrl-C, also where these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("form", ["json", "text"])
def test_ctrl_c_ends_a_tail_without_a_word_and_what_it_said_is_whole(place: Place, form: str):
    program = Path(sys.executable).with_name("vedette")
    words = [program, "tail", "app", "--data", place.data, "--output", form]
    with lake_of(place.data / "lake", [[b"2026-11-24T00:00:00Z web01 app[1]: before"]]) as lake:
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert running.stdout is not None
            # It begins behind what is there once it looks; then the next one comes.
            number = 1
            while running.poll() is None and not select.select([running.stdout], [], [], 0.5)[0]:
                number += 1
                put(lake, number, [b"2026-11-24T00:00:01Z web01 app[1]: after"], created=SystemClock().now())
                lake.flush()
            running.send_signal(signal.SIGINT)
            said, complained = running.communicate(timeout=60)
        finally:
            running.kill()
            running.wait()
    assert (running.returncode, complained) == (130, b"")
    lines = said.splitlines(keepends=True)
    assert lines
    assert all(line.endswith(b"\n") and b"after" in line for line in lines)
    assert b"before" not in said


def test_ctrl_c_while_it_is_loaded_ends_it_without_a_word():
    program = """
import sys, types, vedette.cli
class Interrupted(types.ModuleType):
    def __getattr__(self, name):
        raise KeyboardInterrupt
sys.modules["vedette.cli.commands"] = Interrupted("commands")
vedette.cli.main()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")

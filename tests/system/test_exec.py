import threading

import pytest

from vedette.system import exec as programs


def test_arguments_are_no_shell_words() -> None:
    done = programs.run(["echo", "$(id); `id` && id"])
    assert done.stdout == b"$(id); `id` && id\n"
    assert done.returncode == 0


def test_stdin_and_exit_code() -> None:
    assert programs.run(["cat"], stdin=b"\x00\xff").stdout == b"\x00\xff"
    assert programs.run(["false"]).returncode == 1


def test_a_program_that_hangs_is_killed() -> None:
    assert programs.run(["sleep", "60"], timeout=0.05).returncode == -9


def test_a_program_is_ended_early_and_what_it_said_is_kept() -> None:
    stop = threading.Event()
    told = threading.Timer(0.1, stop.set)
    told.start()
    done = programs.run(["sh", "-c", "cat; exec sleep 60"], stdin=b"so far", timeout=60.0, stop=stop)
    assert (done.returncode, done.stdout) == (-9, b"so far")


def test_no_such_program() -> None:
    with pytest.raises(FileNotFoundError):
        programs.run(["no-such-program-here"])

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


def test_no_such_program() -> None:
    with pytest.raises(FileNotFoundError):
        programs.run(["no-such-program-here"])

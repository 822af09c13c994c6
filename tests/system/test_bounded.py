"""Programs that never end, write without end, leave others running or cannot be started.
Counterpart: vedette.system.bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vedette.system.bounded import Ended, run_bounded

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def ran(tmp_path: Path, *argv: str, timeout: float = 20.0, stop: threading.Event | None = None) -> Ended:
    return run_bounded(
        argv,
        folder=tmp_path,
        environment=ENVIRONMENT,
        timeout=timeout,
        output_limit=100_000,
        file_limit=50_000,
        stop=stop,
    )


def gone(pid: int) -> bool:
    for _ in range(400):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.005)
    return False


def test_both_streams_status_folder_and_environment_are_its_own(tmp_path: Path):
    ended = ran(tmp_path, "/bin/sh", "-c", "pwd; env | cut -d= -f1 | sort; echo wrong >&2; cat; exit 3")
    assert ended == Ended(3, ended.stdout, b"wrong\n")
    where, *names = ended.stdout.decode().split()
    assert where == str(tmp_path)
    assert set(names) <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "VEDETTE_BOUNDED"}


def test_a_signal_is_told(tmp_path: Path):
    assert ran(tmp_path, "/bin/sh", "-c", "kill -TERM $$").returncode == -15


def test_what_never_ends_is_killed_with_all_it_started(tmp_path: Path):
    ended = ran(tmp_path, "/bin/sh", "-c", "sleep 600 & echo $!; sleep 600", timeout=0.3)
    assert ended.timed_out
    assert ended.returncode == -9
    assert gone(int(ended.stdout))


@pytest.mark.parametrize("timeout", [20.0, 0.5])
def test_what_left_its_process_group_is_killed_too(tmp_path: Path, timeout: float):
    script = "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!"
    ended = ran(tmp_path, "/bin/sh", "-c", f"{script}; [ {timeout} = 20.0 ] || sleep 600", timeout=timeout)
    assert ended.timed_out == (timeout < 1)
    # The subshell becomes a session of its own by `setsid` in its place.
    assert gone(int(ended.stdout))


def test_what_others_run_is_left_alone(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    with subprocess.Popen(["/bin/sleep", "600"], env={"VEDETTE_BOUNDED": str(tmp_path / "ab")}) as other:
        ran(tmp_path / "a", "/bin/true")
        assert other.poll() is None
        ran(tmp_path / "ab", "/bin/true")
        assert other.wait(20) == -9


def test_what_is_left_running_is_killed_and_not_waited_for(tmp_path: Path):
    ended = ran(tmp_path, "/bin/sh", "-c", "sleep 600 & echo $!")
    assert (ended.returncode, ended.timed_out) == (0, False)
    assert gone(int(ended.stdout))


def test_what_closes_its_output_is_waited_for(tmp_path: Path):
    ended = ran(tmp_path, "/bin/sh", "-c", "echo done; exec >&- 2>&-; sleep 0.2; exit 4")
    assert ended == Ended(4, b"done\n", b"")


def test_what_writes_without_end_is_cut(tmp_path: Path):
    ended = ran(tmp_path, "/bin/sh", "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
    assert ended.cut
    assert len(ended.stdout) == 100_000


def test_a_file_without_end_is_cut(tmp_path: Path):
    # The limit is set while it starts; it waits a little, as a program that does something first does.
    write = "import time; time.sleep(0.2); open('big', 'wb').write(b'x' * 1_000_000)"
    ended = ran(tmp_path, sys.executable, "-c", write)
    assert ended.returncode != 0
    assert (tmp_path / "big").stat().st_size == 50_000


def test_it_is_ended_from_another_thread(tmp_path: Path):
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    ended = ran(tmp_path, "/bin/sleep", "600", stop=stop)
    timer.join()
    assert ended.stopped
    assert not ended.timed_out


def test_what_cannot_be_started_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        ran(tmp_path, "/nonexistent")
    with pytest.raises(ValueError):
        ran(tmp_path, "/bin/echo", "a\0b")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError):
        ran(tmp_path, str(tmp_path))
    assert set(os.listdir("/proc/self/fd")) == before

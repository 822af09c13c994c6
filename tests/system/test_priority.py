from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

import pytest

from vedette.system import priority as module
from vedette.system.priority import LOOK_EVERY, MOST, PRIORITY, Priority, ordinary

REAL = os.SCHED_RR
RESET = os.SCHED_RESET_ON_FORK


class Kernel:
    """The scheduler as one process sees it. allowed: CAP_SYS_NICE; limit: what RLIMIT_RTPRIO may become."""

    def __init__(self) -> None:
        self.allowed = True
        self.limit = PRIORITY
        self.soft = 0
        self.threads: dict[int, int] = {}
        self.now = self.used = 0.0

    def name(self, thread: int) -> int:
        return thread or threading.get_native_id()

    def set(self, thread: int, policy: int, param: os.sched_param) -> None:
        real = policy & ~RESET == REAL
        if real and not (self.allowed or self.soft >= param.sched_priority):
            raise PermissionError
        if not self.allowed and self.get(thread) & RESET and not policy & RESET:
            raise PermissionError
        self.threads[self.name(thread)] = policy

    def get(self, thread: int) -> int:
        return self.threads.get(self.name(thread), os.SCHED_OTHER)

    def set_limit(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == module.RLIMIT_RTPRIO
        if limits[1] > self.limit:
            raise ValueError("not allowed to raise maximum limit")
        self.soft = limits[0]

    def get_limit(self, _kind: int) -> tuple[int, int]:
        return (self.soft, self.limit)

    def mine(self) -> int:
        return self.get(0)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(os, "sched_setscheduler", made.set)
    monkeypatch.setattr(os, "sched_getscheduler", made.get)
    monkeypatch.setattr(resource, "setrlimit", made.set_limit)
    monkeypatch.setattr(resource, "getrlimit", made.get_limit)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(module.time, "process_time", lambda: made.used)
    return made


def pass_second(kernel: Kernel, priority: Priority, share: float) -> None:
    kernel.now += LOOK_EVERY
    kernel.used += share * LOOK_EVERY
    priority.look()


def test_where_it_is_not_allowed_nothing_is_changed(kernel: Kernel):
    kernel.allowed, kernel.limit = False, 0
    priority = Priority()
    assert not priority.claim()
    priority.join()
    pass_second(kernel, priority, 1.0)
    priority.leave()
    assert not priority.held
    assert kernel.threads == {}


def test_what_the_helper_inherits_is_given_back_until_the_thread_joins(kernel: Kernel):
    priority = Priority()
    assert priority.claim()
    assert kernel.mine() == REAL
    priority.rest()
    assert kernel.mine() == os.SCHED_OTHER
    kernel.allowed = False  # privileges are gone now
    priority.join()
    assert priority.held
    assert kernel.mine() == REAL | RESET


def test_without_the_limit_it_is_kept_because_it_could_not_be_had_again(kernel: Kernel):
    kernel.limit = 0
    priority = Priority()
    assert priority.claim()
    priority.rest()
    assert kernel.mine() == REAL
    priority.join()
    pass_second(kernel, priority, MOST + 0.1)
    assert (priority.held, kernel.mine()) == (False, os.SCHED_OTHER)
    pass_second(kernel, priority, 0.0)
    assert (priority.held, kernel.mine()) == (False, os.SCHED_OTHER)


def test_it_steps_back_while_there_is_much_to_do_and_up_when_it_is_quiet(kernel: Kernel):
    priority = Priority()
    priority.claim()
    priority.join()
    kernel.allowed = False
    seen = []
    for share in (MOST - 0.1, MOST + 0.1, MOST - 0.1, MOST / 3 - 0.1):
        pass_second(kernel, priority, share)
        seen.append((priority.held, kernel.mine() & ~RESET))
    assert seen == [(True, REAL), (False, os.SCHED_OTHER), (False, os.SCHED_OTHER), (True, REAL)]


def test_two_threads_that_look_at_once_judge_one_second_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    priority = Priority()
    priority.claim()
    priority.join()
    kernel.now += LOOK_EVERY
    kernel.used += LOOK_EVERY

    def other_thread_looks_too() -> float:
        monkeypatch.setattr(module.time, "process_time", lambda: kernel.used)
        thread = threading.Thread(target=priority.look)
        thread.start()
        thread.join()
        return kernel.used

    monkeypatch.setattr(module.time, "process_time", other_thread_looks_too)
    priority.look()
    assert (priority.held, kernel.mine() & ~RESET) == (False, os.SCHED_OTHER)


def test_a_thread_that_leaves_takes_turns(kernel: Kernel):
    priority = Priority()
    priority.claim()
    priority.join()
    kernel.allowed = False
    priority.leave()
    assert kernel.mine() == os.SCHED_OTHER | RESET
    pass_second(kernel, priority, 0.0)
    assert kernel.mine() == os.SCHED_OTHER | RESET


def test_programs_do_not_inherit_it(kernel: Kernel):
    kernel.limit = 0
    assert ordinary(["journalctl"]) == ["journalctl"]
    priority = Priority()
    priority.claim()
    assert ordinary(["journalctl"]) == ["chrt", "--other", "0", "journalctl"]
    kernel.threads[threading.get_native_id()] = REAL | RESET
    assert ordinary(["journalctl"]) == ["journalctl"]


RUNAWAY = """
import os, threading, time
from vedette.system.exec import run
from vedette.system.priority import Priority, ordinary
priority = Priority()
print(priority.claim())
priority.join()
said = []
def real_time():
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
def work():
    priority.join()
    said.append(real_time())
    end = time.monotonic() + 10.0
    while priority.held and time.monotonic() < end:
        pass
    said.append(real_time())
print(run(ordinary(["cut", "-d", " ", "-f", "41", "/proc/self/stat"])).stdout.decode().strip())
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive():
    time.sleep(0.05)
    priority.look()
print(*said, real_time())
"""


@pytest.mark.root
def test_a_thread_that_never_ends_makes_all_of_them_step_back():
    done = subprocess.run([sys.executable, "-c", RUNAWAY], capture_output=True, text=True, timeout=30, check=True)
    claimed, policy_of_a_program, said = done.stdout.splitlines()
    assert (claimed, policy_of_a_program, said) == ("True", str(os.SCHED_OTHER), "True False False")

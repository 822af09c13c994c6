"""The lowest real-time priority for threads that wait most of the time, given back while they do not.
Counterpart: `app.up` judges and the kernel helper blocks while the attack goes on; decision 0007 says why."""

# sched(7), sched_setscheduler(2), setrlimit(2); the number below is Linux's.
from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

RLIMIT_RTPRIO = 14
PRIORITY = 1
"""Before everything that takes turns, behind everything else that asked for real time."""
LOOK_EVERY = 1.0
MOST = 0.75
"""The share of one processor, over `LOOK_EVERY` seconds, above which they step back, and up again below a third."""


def ordinary(argv: Sequence[str]) -> list[str]:
    """The argument vector that starts `argv` without a priority that it would inherit."""
    flags = os.sched_getscheduler(0)
    inherits = flags & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER and not flags & os.SCHED_RESET_ON_FORK
    return ["chrt", "--other", "0", *argv] if inherits else [*argv]


class Priority:
    """The priority of some threads of this process.

    Where the limit RLIMIT_RTPRIO could be raised (root with CAP_SYS_RESOURCE, or `LimitRTPRIO=1` of the service),
    they may step back and up again, and what they start begins without it. Elsewhere it is inherited instead, and
    stepping back is for good.
    """

    def __init__(self) -> None:
        self.held = False
        """Whether they have it now."""
        self.allowed = False
        self.lasting = False
        """Whether it can be had again after it was given back."""
        self._threads: set[int] = set()
        self._looked_at = self._used = 0.0
        self._looking = threading.Lock()

    def claim(self) -> bool:
        """Ask for it while there are privileges; False where it is not given.

        The calling thread has it from here on, and programs it starts inherit it.
        """
        with suppress(OSError, ValueError):
            resource.setrlimit(RLIMIT_RTPRIO, (PRIORITY, PRIORITY))
        soft, _ = resource.getrlimit(RLIMIT_RTPRIO)
        self.lasting = soft == resource.RLIM_INFINITY or soft >= PRIORITY
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
            self.allowed = True
        return self.allowed

    def rest(self) -> None:
        """The calling thread takes turns until it joins, where it can be asked for then."""
        if self.lasting:
            self.leave()

    def join(self) -> None:
        """The calling thread has it too from now on, where it was given."""
        if not self.allowed:
            return
        self._threads.add(threading.get_native_id())
        self._looked_at, self._used = time.monotonic(), time.process_time()
        self._step_up()

    def leave(self) -> None:
        """The calling thread is about to end, or to work at length."""
        self._threads.discard(threading.get_native_id())
        if self.allowed:
            _turn_back(0)

    def look(self) -> None:
        """Steps back where this process is busy rather than watchful, and up when it is quiet again.

        Call it often, from two threads, so that one that is stuck is noticed by the other.
        """
        # Two looks at once would share one second's use among them, and the later would find it quiet.
        if self.allowed and self._looking.acquire(blocking=False):
            try:
                self._judge()
            finally:
                self._looking.release()

    def _judge(self) -> None:
        now = time.monotonic()
        passed = now - self._looked_at
        if passed < LOOK_EVERY:
            return
        used = time.process_time()
        share = (used - self._used) / passed
        self._looked_at, self._used = now, used
        if self.held and share > MOST:
            self.step_back()
        elif not self.held and self.lasting and share < MOST / 3:
            self._step_up()

    def step_back(self) -> None:
        """All of them take turns with everybody else."""
        for thread in list(self._threads):
            with suppress(ProcessLookupError):
                _turn_back(thread)
        self.held = False

    def _step_up(self) -> None:
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK if self.lasting else os.SCHED_RR
        self.held = True
        for thread in list(self._threads):
            try:
                os.sched_setscheduler(thread, policy, os.sched_param(PRIORITY))
            except ProcessLookupError:
                self._threads.discard(thread)
            except PermissionError:
                self.held = False


def _turn_back(thread: int) -> None:
    # Once set without privileges, that flag cannot be taken away again.
    kept = os.sched_getscheduler(thread) & os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(thread, os.SCHED_OTHER | kept, os.sched_param(0))

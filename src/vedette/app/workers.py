"""Matching workers: processes forked with everything compiled, fed one block or file range at a time.
Counterpart: `app.replay` submits jobs and takes results back in the order it asks for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Protocol

from vedette.model.errors import VedetteError

Job = bytes
Work = Callable[[bytes], bytes]


class Pool(Protocol):
    """Runs jobs. Results are kept until they are asked for, so ask in order."""

    def submit(self, job: Job) -> int:
        """Take a job; its ticket."""
        ...

    def result(self, ticket: int) -> bytes:
        """Wait for the result of `ticket`. VedetteError when the worker died."""
        ...


class InlinePool:
    """Runs each job when its result is asked for, in this process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._jobs: dict[int, Job] = {}
        self._next = 0

    def submit(self, job: Job) -> int:
        """Take a job; its ticket."""
        self._next += 1
        self._jobs[self._next] = job
        return self._next

    def result(self, ticket: int) -> bytes:
        """Run the job of `ticket`."""
        return self._work(self._jobs.pop(ticket))

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.clear()


class ForkedPool:
    """`n` forked processes; a context manager, ended by closing their pipes.

    Forking keeps compiled rules and automata without sending them; call it before any thread is started.
    """

    def __init__(self, work: Work, n: int) -> None:
        self._work = work
        self._n = n
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._idle: list[Connection] = []
        self._busy: dict[Connection, int] = {}
        self._waiting: deque[tuple[int, Job]] = deque()
        self._results: dict[int, bytes] = {}
        self._next = 0

    def __enter__(self) -> ForkedPool:
        context = multiprocessing.get_context("fork")
        for _ in range(self._n):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(self._work, theirs, [*self._connections, ours]), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        self._idle = list(self._connections)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if kind is not None:
                process.terminate()
            process.join()

    def submit(self, job: Job) -> int:
        """Take a job; its ticket. VedetteError when a worker died."""
        self._next += 1
        self._waiting.append((self._next, job))
        self._assign()
        return self._next

    def result(self, ticket: int) -> bytes:
        """Wait for the result of `ticket`. VedetteError when its worker died."""
        while ticket not in self._results:
            for connection in wait(list(self._busy)):
                assert isinstance(connection, Connection)
                try:
                    data = connection.recv_bytes()
                except (EOFError, OSError):
                    raise _ended() from None
                self._results[self._busy.pop(connection)] = data
                self._idle.append(connection)
            self._assign()
        return self._results.pop(ticket)

    def _assign(self) -> None:
        while self._idle and self._waiting:
            ticket, job = self._waiting.popleft()
            connection = self._idle.pop()
            try:
                connection.send_bytes(job)
            except OSError:
                # A broken pipe of ours must not be taken for one of the reader of our output.
                raise _ended() from None
            self._busy[connection] = ticket


def _ended() -> VedetteError:
    return VedetteError("a matching worker ended unexpectedly", hint="run again with --workers 1")


def _serve(work: Work, connection: Connection, others: list[Connection]) -> None:
    """A worker's life: jobs until the pipe is closed."""
    # The parent's ends of the pipes came along with the fork; held open here they would keep siblings alive.
    for other in others:
        other.close()
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = connection.recv_bytes()
        except (EOFError, OSError):
            return
        answer = work(job)
        try:
            connection.send_bytes(answer)
        except OSError:
            return  # nobody is there any more who would take it


def default_workers() -> int:
    """As many workers as processors this process may use."""
    return len(os.sched_getaffinity(0))

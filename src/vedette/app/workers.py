"""Matching workers: processes forked with everything compiled, fed one block or file range at a time.
Counterpart: `app.replay` submits jobs and takes results back in the order it asks for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
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


_AHEAD = 2
"""Jobs a worker has at most: one that it runs, and one that it need not wait for while we are busy."""
_SMALL = 1 << 14
"""Bytes of a job that fit into a pipe whether or not somebody reads; larger ones are for idle workers."""


@dataclass(slots=True)
class _Worker:
    """A process, its jobs in order (ticket, place of the answer), and the files its answers are left in."""

    connection: Connection
    process: multiprocessing.process.BaseProcess
    files: list[int]
    jobs: deque[tuple[int, int]] = field(default_factory=deque)

    def free(self) -> int:
        """A file that no answer is awaited in."""
        return next(place for place in range(_AHEAD) if all(taken != place for _, taken in self.jobs))


class ForkedPool:
    """`n` forked processes; a context manager, ended by closing their pipes.

    Forking keeps compiled rules and automata without sending them; call it before any thread is started.
    Answers are left in memory that both sides share, so that no worker waits until somebody takes one.
    """

    def __init__(self, work: Work, n: int) -> None:
        self._work = work
        self._n = n
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[int, Job]] = deque()
        self._results: dict[int, bytes] = {}
        self._next = 0

    def __enter__(self) -> ForkedPool:
        context = multiprocessing.get_context("fork")
        for number in range(self._n):
            ours, theirs = context.Pipe()
            files = [os.memfd_create(f"answers-{number}-{place}") for place in range(_AHEAD)]
            others = [*(worker.connection for worker in self._workers), ours]
            process = context.Process(target=_serve, args=(self._work, theirs, files, others), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(ours, process, files))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            if kind is not None:
                worker.process.terminate()
            worker.process.join()
            for file in worker.files:
                os.close(file)
            worker.files.clear()

    @property
    def processes(self) -> list[multiprocessing.process.BaseProcess]:
        """The processes."""
        return [worker.process for worker in self._workers]

    def submit(self, job: Job) -> int:
        """Take a job; its ticket. VedetteError when a worker died."""
        self._next += 1
        self._waiting.append((self._next, job))
        self._assign()
        return self._next

    def result(self, ticket: int) -> bytes:
        """Wait for the result of `ticket`. VedetteError when its worker died."""
        while ticket not in self._results:
            busy = {worker.connection: worker for worker in self._workers if worker.jobs}
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker = busy[connection]
                try:
                    length = int.from_bytes(connection.recv_bytes())
                except (EOFError, OSError):
                    raise _ended() from None
                done, place = worker.jobs.popleft()
                self._results[done] = _taken(worker.files[place], length)
            self._assign()
        return self._results.pop(ticket)

    def _assign(self) -> None:
        while self._waiting:
            ticket, job = self._waiting[0]
            worker = min(self._workers, key=lambda worker: len(worker.jobs))
            if len(worker.jobs) >= (_AHEAD if len(job) <= _SMALL else 1):
                return
            self._waiting.popleft()
            place = worker.free()
            try:
                worker.connection.send_bytes(bytes((place,)) + job)
            except OSError:
                # A broken pipe of ours must not be taken for one of the reader of our output.
                raise _ended() from None
            worker.jobs.append((ticket, place))


def _taken(file: int, length: int) -> bytes:
    """An answer; the memory it was left in is given back."""
    data = os.pread(file, length, 0)
    os.ftruncate(file, 0)
    return data


def _ended() -> VedetteError:
    return VedetteError("a matching worker ended unexpectedly", hint="run again with --workers 1")


def _serve(work: Work, connection: Connection, files: list[int], others: list[Connection]) -> None:
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
        answer = work(job[1:])
        _leave(files[job[0]], answer)
        try:
            connection.send_bytes(len(answer).to_bytes(8))
        except OSError:
            return  # nobody is there any more who would take it


def _leave(file: int, answer: bytes) -> None:
    rest, at = memoryview(answer), 0
    while len(rest):
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def default_workers() -> int:
    """As many workers as processors this process may use."""
    return len(os.sched_getaffinity(0))

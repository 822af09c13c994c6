from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.workers import ForkedPool, InlinePool, default_workers
from vedette.model.errors import VedetteError


def work(job: bytes) -> bytes:
    if job == b"die":
        os._exit(3)
    if job.startswith(b"slow"):
        time.sleep(0.05)
    return b"%d:%s" % (os.getpid(), job[::-1])


def bytes_of(job: bytes) -> bytes:
    return b"x" * int(job)


def answers(pool, jobs):
    tickets = [pool.submit(job) for job in jobs]
    return [pool.result(ticket).split(b":", 1)[1] for ticket in tickets]


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=5).map(lambda data: b"j" + data), max_size=12), st.integers(1, 3))
def test_processes_answer_as_one_would_in_the_order_asked(jobs, n):
    with InlinePool(work) as inline, ForkedPool(work, n) as forked:
        assert answers(forked, jobs) == answers(inline, jobs) == [job[::-1] for job in jobs]


def test_a_slow_job_does_not_hold_up_the_others_and_keeps_its_place():
    with ForkedPool(work, 2) as pool:
        jobs = [b"slow0", b"a", b"b", b"slow1", b"c"]
        assert answers(pool, jobs) == [job[::-1] for job in jobs]


def test_work_is_done_elsewhere_and_by_all():
    with ForkedPool(work, 2) as pool:
        tickets = [pool.submit(b"slow%d" % number) for number in range(6)]
        pids = {pool.result(ticket).split(b":")[0] for ticket in tickets}
    assert len(pids) == 2
    assert b"%d" % os.getpid() not in pids


def test_large_jobs_and_answers_pass():
    with ForkedPool(work, 2) as pool:
        jobs = [b"x" * (3 << 20), b"y" * (3 << 20), b"z" * (3 << 20)]
        assert answers(pool, jobs) == jobs


def test_many_large_answers_wait_for_nobody():
    with ForkedPool(bytes_of, 2) as pool:
        tickets = [pool.submit(b"%d" % (1 << 20)) for _ in range(8)]
        for ticket in reversed(tickets):
            assert pool.result(ticket) == b"x" * (1 << 20)


def test_a_worker_that_dies_is_an_error_with_a_hint_not_a_hang():
    pool = ForkedPool(work, 2)

    def use() -> None:
        with pool:
            pool.submit(b"fine")
            pool.result(pool.submit(b"die"))

    with pytest.raises(VedetteError, match="--workers 1"):
        use()
    assert [process.is_alive() for process in pool.processes] == [False, False]


def test_workers_end_with_the_pool_also_when_it_is_left_by_an_error():
    pool = ForkedPool(work, 2)

    def use() -> None:
        with pool:
            pool.submit(b"slow")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        use()
    assert [process.is_alive() for process in pool.processes] == [False, False]


def test_as_many_as_this_process_may_use():
    assert default_workers() == len(os.sched_getaffinity(0)) >= 1

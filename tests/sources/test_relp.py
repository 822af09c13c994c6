"""RELP frames and senders on loopback: acknowledged only when kept, and what bad ones cannot do.
Counterpart: src/vedette/sources/relp.py and relp_frames.py."""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources.collecting import Counts, running

from vedette.model.batch import Trust
from vedette.sources.relp import RelpSource
from vedette.sources.relp_frames import Frame, FrameError, RelpFrames
from vedette.sources.settings import RelpSettings
from vedette.sources.syslog_sockets import Listeners
from vedette.testing.clock import FakeClock

STREAM = b"1 open 4 abcd\n2 syslog 0\n3 syslog 14 0123456789\nabc\n4 syslog 0 \n5 close 0\n"


@settings(max_examples=40)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_frames_do_not_depend_on_the_cut(places: list[int]):
    frames, got = RelpFrames(10), []
    bounds = [0, *sorted(places), len(STREAM)]
    for begin, end in pairwise(bounds):
        got += frames.feed(STREAM[begin:end])
    assert got == [
        Frame(1, b"open", b"abcd"),
        Frame(2, b"syslog", b""),
        Frame(3, b"syslog", b"0123456789", cut=True),
        Frame(4, b"syslog", b""),
        Frame(5, b"close", b""),
    ]
    assert not frames.begun


@pytest.mark.parametrize("bad", [b"<13>line\n", b"1 syslog 3\n", b"1 syslog 1 ab", b"x" * 80, b"01 syslog 0\n"])
def test_what_is_no_frame_is_refused(bad: bytes):
    with pytest.raises(FrameError):
        RelpFrames(10).feed(bad)


async def test_a_record_is_acknowledged_only_when_it_is_kept():
    wanted = RelpSettings.model_validate({"listen": [{"tcp": "127.0.0.1:0"}]})
    counts, go = Counts(), asyncio.Event()

    async def kept() -> None:
        await go.wait()

    with closing(Listeners()) as listeners:
        source = RelpSource(wanted, listeners, host_id="h", clock=FakeClock(1), counter=counts, kept=kept)
        async with running(source) as got:
            await source.begun.wait()
            port = listeners.open(wanted.places[0]).getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1 open 14 relp_version=0\n")
            assert (await reader.readline()).startswith(b"1 rsp ")
            for line in (b"relp_version=0\n", b"relp_software=vedette\n", b"commands=syslog\n"):
                assert await reader.readline() == line
            writer.write(b"2 syslog 6 <13>on\xff\n".replace(b"6 ", b"7 ") + b"3 syslog 7 <13>two\n")
            assert await got.count(2) == [b"<13>on\xff", b"<13>two"]
            answered = asyncio.create_task(reader.readline())
            await asyncio.sleep(0.05)
            assert not answered.done()
            go.set()
            assert await answered == b"2 rsp 6 200 OK\n"
            assert await reader.readline() == b"3 rsp 6 200 OK\n"
            writer.write(b"4 close 0\n")
            assert await reader.read() == b"4 rsp 0 \n0 serverclose 0\n"
            writer.close()
            other, bad = await asyncio.open_connection("127.0.0.1", port)
            bad.write(b"GET / HTTP/1.1\n")
            assert await other.read() == b""
            bad.close()
    assert {batch.origin.source for batch in got.batches} == {"relp:tcp/127.0.0.1"}
    assert {batch.trust for batch in got.batches} == {Trust.NETWORK}
    assert counts.seen["relp_connections", "bad-frame"] == 1

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.app.parts import FAILED
from tests.detections.parts import SECOND, PairParser, batch_of

from vedette.app.merge import merged
from vedette.detections.engine import stretch_of
from vedette.detections.match import Matcher
from vedette.detections.stretch import Stretch

MATCHER = Matcher([FAILED], PairParser())


class Lines:
    """A file of records at these seconds, given in pieces; every record that is no failure matches nothing."""

    def __init__(self, name: str, times: Sequence[tuple[int, bool]], cuts: Sequence[int]) -> None:
        self.high = -(2**62)
        self.name = name
        self.lines = [
            f"t={time} event.action={'failed' if failed else 'accepted'} source.port={number} user.name={name}"
            for number, (time, failed) in enumerate(times)
        ]
        self._times = [time for time, _ in times]
        self._bounds = [0, *sorted({cut % (len(times) + 1) for cut in cuts}), len(times)]

    def stretches(self) -> Iterator[Stretch]:
        high = self.high
        for begin, end in pairwise(self._bounds):
            if begin == end:
                continue
            batch = batch_of(self.lines[begin:end], first=begin + 1, source=self.name)
            stretch = stretch_of(batch, MATCHER.match(batch))
            high = max(high, *(time * SECOND for time in self._times[begin:end]))
            # What `app.replay` does: the highest time of the file so far, not of the piece.
            stretch.matches.high[:] = [
                max(time * SECOND for time in self._times[: int(row) + begin + 1]) for row in stretch.matches.rows
            ]
            self.high = high
            yield stretch


def reference(files: Sequence[Lines]) -> list[str]:
    """Of the heads of all files the earliest, one record at a time, ties by argument order."""
    left = [list(zip(one._times, one.lines, strict=True)) for one in files]
    out, high = [], [-(2**62)] * len(files)
    while any(left):
        heads = [(max(high[at], lines[0][0]), at) for at, lines in enumerate(left) if lines]
        time, at = min(heads)
        high[at] = time
        out.append(left[at].pop(0)[1])
    return [line for line in out if "action=failed" in line]


FILES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12), st.lists(st.integers(0, 12), max_size=4)
    ),
    max_size=4,
)


@settings(max_examples=150)
@given(FILES)
def test_the_earliest_head_comes_first_ties_by_argument_order(files):
    made = [Lines(f"f{number}", times, cuts) for number, (times, cuts) in enumerate(files)]
    got = []
    for stretch in merged([Lines(f"f{number}", times, cuts) for number, (times, cuts) in enumerate(files)]):
        for index in range(len(stretch.matches.rows)):
            raw = stretch.raw(index).decode()
            assert stretch.origins[int(stretch.codes[index])].source == raw.split("user.name=")[1]
            assert int(stretch.matches.time[index]) == int(raw.split()[0][2:]) * SECOND
            got.append(raw)
    assert got == reference(made)


def test_one_file_keeps_its_own_order_whatever_its_times_say():
    times = [(5, True), (1, True), (9, True), (0, True)]
    (file,) = [Lines("f0", times, [2])]
    got = [stretch.raw(index).decode() for stretch in merged([file]) for index in range(len(stretch.matches.rows))]
    assert got == file.lines


def test_no_files_give_nothing():
    assert list(merged([])) == []

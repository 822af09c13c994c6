"""Trees taken down and held against that later, at once and on this machine.
Counterpart: `sources.integrity` does both; `cli.integrity` prints what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vedette.model.clock import Clock
from vedette.model.errors import VedetteError
from vedette.model.integrity import Attribute, Change
from vedette.sources.integrity.baseline import Baseline, Header, Sign
from vedette.sources.integrity.compare import Comparison, Tally
from vedette.sources.integrity.digest import Reader
from vedette.sources.integrity.taking import Taken, write_baseline
from vedette.sources.integrity.walk import Gap, Walk, chosen_trees, mount_points


def take_baseline(
    trees: Sequence[Path],
    file: Path,
    clock: Clock,
    *,
    leave_out: Sequence[bytes] = (),
    host: str = "",
    sign: Sign | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Taken:
    """Write down how `trees` are now; what `file` held before is replaced when all is read.

    VedetteError where a tree is not there, or the file cannot be written.
    """
    chosen = chosen_trees(os.fsencode(tree) for tree in trees)
    for tree in chosen:
        if not os.path.lexists(tree or b"/"):
            raise VedetteError(f"{os.fsdecode(tree)} is not there: nothing was taken down")
    file = file.absolute()
    walk = Walk(chosen, [*leave_out, *_own(file)], stopped)
    header = Header(chosen, list(leave_out), clock.now() * 1000, host=host, mounts=mount_points(chosen))
    return write_baseline(file, header, walk, clock, sign)


@dataclass(slots=True)
class Checked:
    """One look at trees beside a baseline: iterate for its changes; the rest is known when that has ended.

    golden: the baseline is of another host: what only says where and when a file was put there is no difference.
    could_not_tell: what the baseline knows and this look could not see. remarks: what a person should know of it.
    """

    baseline: Baseline
    clock: Clock
    full: bool = False
    golden: bool = False
    stopped: Callable[[], bool] = lambda: False
    tally: Tally = field(default_factory=Tally)
    could_not_tell: list[Gap] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Change]:
        header, footer = self.baseline.header, self.baseline.footer
        own = self.baseline.path.absolute()
        set_back = self.clock.now() * 1000 < footer.ended
        if set_back:
            self.remarks.append(
                "the clock is behind the baseline: it was set back, so change times prove nothing and all was read"
            )
        mounts = mount_points(header.trees)
        for path in sorted(set(mounts) ^ set(header.mounts)):
            word = "is mounted now" if path in mounts else "is mounted no more"
            self.remarks.append(f"{os.fsdecode(path)} {word}: what is seen there is not what the baseline saw")
        walk = Walk(header.trees, [*header.leave_out, *_own(own)], self.stopped)
        reader = Reader(digests=header.digests, stopped=self.stopped)
        comparison = Comparison(
            walk,
            self.baseline.runs(),
            reader,
            find=self.baseline.find,
            clock=self.clock,
            began=header.began,
            trust_times=not self.full and not set_back,
            quiet=[os.fsencode(own.parent)],
        )
        try:
            for change in comparison:
                if not self.golden:
                    yield change
                elif not _elsewhere(change):
                    yield replace(change, related=None)
        finally:
            reader.close()
        if self.stopped():
            raise VedetteError("stopped before all of it was looked at")
        self.tally = comparison.tally
        known = {path for path, _ in footer.gaps}
        self.could_not_tell = [gap for gap in comparison.could_not_tell if gap.path not in known]
        if comparison.tally.unrelated:
            self.remarks.append(f"{comparison.tally.unrelated} changes too many to be matched to renames")


def _elsewhere(change: Change) -> bool:
    """Whether it says no more than that this is another disk."""
    before, after = change.before, change.after
    return (
        before is not None
        and after is not None
        and before.mtime_ns == after.mtime_ns
        and change.attributes == (Attribute.TIMES,)
    )


def same_trees(baseline: Baseline, trees: Sequence[Path]) -> None:
    """VedetteError where the baseline is of other trees."""
    chosen = chosen_trees(os.fsencode(tree) for tree in trees)
    if chosen != baseline.header.trees:
        theirs = ", ".join(os.fsdecode(tree or b"/") for tree in baseline.header.trees)
        raise VedetteError(f"the baseline {baseline.path} is of {theirs}", hint="name the same trees, or make it anew")


def _own(file: Path) -> list[bytes]:
    """The baseline itself is no part of what it is of, nor what it is written to first."""
    raw = os.fsencode(file)
    folder, _, name = raw.rpartition(b"/")
    return [_literal(raw), _literal(folder + b"/." + name) + b".*"]


def _literal(path: bytes) -> bytes:
    return b"".join(b"[%c]" % one if one in b"*?[" else b"%c" % one for one in path)

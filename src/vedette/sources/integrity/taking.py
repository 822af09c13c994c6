"""Trees read and written down as a baseline.
Counterpart: `baseline` is the file; `look` takes the first one of the source, `app.integrity` one at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette.model.clock import Clock
from vedette.model.errors import StateError
from vedette.sources.integrity.baseline import BaselineWriter, Footer, Header, Sign
from vedette.sources.integrity.digest import Reader, gap_of
from vedette.sources.integrity.walk import Gap, Walk, joined


@dataclass(frozen=True, slots=True)
class Taken:
    """How much was written down. gaps: what could not be looked at."""

    rows: int
    bytes: int
    gaps: Sequence[Gap]


def write_baseline(
    path: Path, header: Header, walk: Walk, clock: Clock, sign: Sign | None = None, *, sparse: bool = True
) -> Taken:
    """Read what `walk` lists and write it down; what `path` held before is replaced when all is read.

    sparse: as `Reader` says. StateError where it cannot be written, or was stopped.
    """
    reader = Reader(digests=header.digests, sparse=sparse, stopped=walk.stopped)
    try:
        writer = BaselineWriter(path, header, sign)
        try:
            for listed in walk:
                wanted = [(name or listed.called, one) for name, one in zip(listed.names, listed.numbers, strict=True)]
                for name, read in zip(listed.names, reader.read(listed.fd, wanted), strict=True):
                    if read is not None:
                        writer.add(listed.folder, name, read)
                        if (gap := gap_of(joined(listed.folder, name), read)) is not None:
                            walk.gaps.append(gap)
            if walk.stopped():
                raise StateError("stopped before all of it was read")
            gaps = [(gap.path, gap.reason.value) for gap in walk.gaps]
            writer.finish(Footer(writer.rows, clock.now() * 1000, gaps))
        finally:
            writer.abandon()
    except OSError as error:
        raise StateError(f"the baseline {path} cannot be written: {error.strerror}") from None
    finally:
        reader.close()
    return Taken(writer.rows, reader.bytes, walk.gaps)

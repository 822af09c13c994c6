"""What sources of our own tell: JSON objects, attested, each batch with the cursor to go on from.
Counterpart: `ports.source` and `attacks.source` make them; `parsers.families` knows such records and believes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from vedette.model.batch import Batch, Origin, RecordFormat, Trust, lines_of


class Teller:
    """Numbers the batches of one source; an object keeps the order of its members, so that its message stands first.

    began: when this source began, microseconds. What it tells after a restart is told anew, not read again, though the
    positions may be the same.
    """

    def __init__(self, host_id: str, name: str, began: int) -> None:
        self._origin = Origin(host_id, name, str(began))
        self._number = 0

    def batch(self, records: Sequence[object], first: int, cursor: str, now: int) -> Batch:
        """Records as one batch. first: the position of the first one; now: microseconds UTC."""
        block, starts, ends = lines_of([orjson.dumps(one) for one in records])
        number, self._number = self._number, self._number + 1
        return Batch(
            origin=self._origin,
            number=number,
            block=block,
            starts=starts,
            ends=ends,
            positions=np.arange(first, first + len(records), dtype=np.int64),
            read_at=now,
            format=RecordFormat.JSON,
            trust=Trust.ATTESTED,
            cursor=cursor,
        )

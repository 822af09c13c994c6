"""What an operator may say about what is kept to be searched, and for how long.
Counterpart: `config.settings` composes it as `lake`; `app.keeping` opens the lake by it, `retention` lets go by it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vedette.model.clock import HOUR
from vedette.text.times import parse_duration

_SIZE = re.compile(r"([1-9][0-9]{0,5})(%|MB|GB|TB)")
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def _age(text: str) -> str:
    if parse_duration(text) < HOUR:
        raise ValueError(f"{text!r}: at least 1h")
    return text


def _size(text: str) -> str:
    found = _SIZE.fullmatch(text)
    if found is None or (found[2] == "%" and int(found[1]) > 95):
        raise ValueError(f"{text!r} is no size: write 500MB, 20GB, 2TB, or a share of the disk up to 95%")
    return text


Age = Annotated[str, AfterValidator(_age)]
Size = Annotated[str, AfterValidator(_size)]


class StreamRetention(BaseModel):
    """How long streams are kept. streams: their names, `*` for any text; the first entry that fits counts.

    age: since a record came in. size: of all that fit together, on the disk; the oldest hours go first. None = as much
    as there is room for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: Annotated[tuple[str, ...], Field(min_length=1)]
    age: Age = "90d"
    size: Size | None = None

    def age_us(self) -> int:
        """Microseconds."""
        return parse_duration(self.age)

    def most_bytes(self, disk: int) -> int | None:
        """Bytes on a disk of so many; None = no bound."""
        if self.size is None:
            return None
        found = _SIZE.fullmatch(self.size)
        assert found is not None
        return disk * int(found[1]) // 100 if found[2] == "%" else int(found[1]) * _UNITS[found[2]]


OWN = ("findings", "decisions", "audit")


class LakeSettings(BaseModel):
    """enabled: whether everything that is read is kept in the data folder's `lake`. retention: for how long.

    What is said of `retention` stands in place of all of it; streams that no entry fits are kept for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    retention: tuple[StreamRetention, ...] = (
        StreamRetention(streams=OWN, age="400d"),
        StreamRetention(streams=("*",), age="90d", size="50%"),
    )

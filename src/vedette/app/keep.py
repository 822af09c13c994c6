"""Where what is read stays, as `up` sees it: a lake of this host, a spool that is shipped, or the lake of a fleet.
Counterpart: `app.keeping`, `app.agent` and `app.hub` are the three; `app.up` runs whichever it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from vedette.app import own
from vedette.app.counters import Counters
from vedette.app.findings_stream import FindingsStream
from vedette.config.settings import Settings
from vedette.fleet.spool import Spool
from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.protocols import Enforcer, Source
from vedette.model.rules import Rule
from vedette.model.shipping import SourceState
from vedette.store.state import State


class Keeping(Protocol):
    """Where what is read stays. `run` until cancelled, `close` at the very end; words: said to a person."""

    shelf: Spool
    stream: FindingsStream | None
    told: Callable[[Mapping[str, SourceState]], Mapping[str, SourceState]]
    """Adds to how the streams stand what those who write the logs say they lost."""
    trouble: str
    """Why what is read cannot be kept, "" while it can."""
    is_hub: bool
    """Whether agents ship here, so that fleet rules are judged over the lake."""
    nudge: Callable[[], None]
    """Has the engine look at decisions that were made beside it; given by whoever runs it."""
    enforces: bool
    """Whether anything here carries decisions out; given likewise."""

    @property
    def words(self) -> str: ...
    @property
    def bundle(self) -> int:
        """The number of the rules and policy in force, 0 = the host's own."""
        ...

    def enforcers(self, state: State, rules: Sequence[Rule]) -> list[Enforcer]:
        """What carries decisions out besides the enforcers of this host."""
        ...

    def heard(self, batch: Batch) -> None:
        """A hub's: what an agent said of itself, as it comes in the lake's order; may wait for the disk."""
        ...

    def sources(self, state: State) -> list[Source]:
        """Sources of its own, to be read like the others."""
        ...

    async def run(self, state: State) -> None:
        """Carry on until cancelled."""
        ...

    def close(self) -> None:
        """Keep everything that was put."""
        ...


Keep = Callable[[Settings, own.Self, Clock, Counters], Keeping]


def keep_in_lake(settings: Settings, me: own.Self, clock: Clock, counters: Counters) -> Keeping:
    """As `up` does."""
    from vedette.app.keeping import LakeKeeping

    return LakeKeeping(settings, me, clock=clock, counter=counters)

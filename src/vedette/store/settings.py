"""How long the state keeps what is finished.
Counterpart: `config` composes it, `app.pipeline` has it done at quiet moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from vedette.model.clock import DAY
from vedette.model.retention import Kept
from vedette.text.times import parse_duration


def _age(text: str) -> str:
    if parse_duration(text) < DAY:
        raise ValueError(f"{text!r}: at least 1d")
    return text


Age = Annotated[str, AfterValidator(_age)]


class RetentionSettings(BaseModel):
    """history: resolved alerts, findings, refusals, what the outbox is done with.

    decisions: blocks that have ended (repeat offenders are known by them), silences, and groups that are quiet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: Age = "90d"
    decisions: Age = "400d"

    def ages(self) -> Mapping[Kept, int]:
        """Microseconds that each kind is kept."""
        history, decisions = parse_duration(self.history), parse_duration(self.decisions)
        longer = {Kept.DECISIONS, Kept.SILENCES, Kept.GROUPS}
        return {kind: decisions if kind in longer else history for kind in Kept}

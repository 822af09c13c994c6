"""How long the state keeps what is finished, and how operators are let in.
Counterpart: `config` composes it, `app.pipeline` and `app.operators` heed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vedette.model.clock import DAY, MINUTE
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


def _session(text: str) -> str:
    if not MINUTE <= parse_duration(text) <= 30 * DAY:
        raise ValueError(f"{text!r}: from 1m to 30d")
    return text


class OperatorsSettings(BaseModel):
    """session: how long a login counts. password_cost: log2 of scrypt's N for passwords set from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: Annotated[str, AfterValidator(_session)] = "12h"
    password_cost: Annotated[int, Field(ge=10, le=20)] = 17

"""What an operator may say about what is kept to be searched.
Counterpart: `config.settings` composes it as `lake`; `app.keeping` opens the lake by it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LakeSettings(BaseModel):
    """enabled: whether everything that is read is kept in the data folder's `lake`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True

"""Secrets named by where they lie, read when used, never kept in a setting or a log.
Counterpart: settings of notify and the hub hold these instead of the secret itself."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from vedette.model.errors import ConfigError


class Secret(BaseModel):
    """`{env: NAME}` or `{file: PATH}`, exactly one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = ""
    file: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if bool(self.env) == bool(self.file):
            raise ValueError("a secret is {env: NAME} or {file: PATH}, one of them")
        return self

    def read(self) -> str:
        """The secret, without the newline a file ends with. ConfigError with a hint where it is not there."""
        if self.env:
            value = os.environ.get(self.env)
            if value is None:
                raise ConfigError(f"environment variable {self.env} is not set", hint="set it for the service")
            return value
        try:
            return Path(self.file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the secret in {self.file}: {error}", hint="mode 0600, owned by us"
            ) from None

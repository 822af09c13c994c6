"""Opens what a command needs of a running `up`: the configuration, and its state; errors are said, not raised.
Counterpart: `app.operating` does the verbs; alerts, block and doctor come through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.cli.hub import needs_hub
from vedette.cli.output import errors_said
from vedette.config.load import load_settings
from vedette.config.settings import Settings
from vedette.model.clock import SystemClock

if TYPE_CHECKING:
    from vedette.app.operating import Operating


def settings_of(config: Path | None, data: Path | None) -> Settings:
    """The configuration with the data folder a person named."""
    settings = load_settings(config)
    return settings if data is None else settings.model_copy(update={"data": data})


@contextmanager
def operator(config: Path | None, data: Path | None, *, create: bool = False) -> Iterator[Operating]:
    """The state of the configuration, for the person who calls; the extra `hub` is asked for first."""
    with errors_said():
        needs_hub()
        from vedette.app.operating import operating

        with operating(settings_of(config, data), SystemClock(), create=create) as found:
            yield found

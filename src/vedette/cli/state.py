"""Opens what a command needs of a running `up`: the configuration, and its state; errors are said, not raised.
Counterpart: `app.operating` does the verbs; alerts, block and doctor come through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.cli.hub import needs_hub
from vedette.cli.output import errors_said
from vedette.config.folders import DEFAULT_PATH, default_data_folder
from vedette.model.clock import SystemClock

if TYPE_CHECKING:
    from vedette.app.operating import Operating
    from vedette.config.settings import Settings


def settings_of(config: Path | None, data: Path | None) -> Settings:
    """The configuration with the data folder a person named."""
    from vedette.config.load import load_settings

    settings = load_settings(config)
    return settings if data is None else settings.model_copy(update={"data": data})


def is_configured(config: Path | None) -> bool:
    """Whether there is a configuration to read; else all is as by default, and what reads one is not imported."""
    return config is not None or DEFAULT_PATH.exists()


def data_folder_of(config: Path | None, data: Path | None) -> Path:
    """The data folder that a person named, or that of the configuration."""
    if not is_configured(config):
        return default_data_folder() if data is None else data
    return settings_of(config, data).data_folder()


@contextmanager
def operator(config: Path | None, data: Path | None, *, create: bool = False) -> Iterator[Operating]:
    """The state of the configuration, for the person who calls; the extra `hub` is asked for first."""
    with errors_said():
        needs_hub()
        from vedette.app.operating import operating

        with operating(settings_of(config, data), SystemClock(), create=create) as found:
            yield found

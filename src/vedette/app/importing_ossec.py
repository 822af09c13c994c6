"""An OSSEC or Wazuh installation read for `rules import`.
Counterpart: `app.importing` lists it; what it gives is written by `cli.rules.importing`."""

from __future__ import annotations

from pathlib import Path

from vedette.app.importing import Imported


def looks_like(path: Path) -> bool:
    """Whether this is the folder of an installation, or its configuration file."""
    return path.name == "ossec.conf" or (path / "etc" / "ossec.conf").is_file()


def read(path: Path) -> Imported:
    """The whole installation."""
    raise NotImplementedError(path)

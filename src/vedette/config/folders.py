"""Where things lie when no configuration says otherwise: known without reading one.
Counterpart: `config.load` reads the file, `config.settings` what it says."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_PATH = Path("/etc/vedette/vedette.yml")


def default_data_folder() -> Path:
    """Where this host keeps its data where nobody says: by who runs it."""
    if os.geteuid() == 0:
        return Path("/var/lib/vedette")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "vedette"

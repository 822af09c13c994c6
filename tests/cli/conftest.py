"""Fixtures of this room.
Counterpart: parts.py, which they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.parts import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A configuration of its own; nothing outside `tmp_path` is touched by it."""
    return Place(tmp_path)

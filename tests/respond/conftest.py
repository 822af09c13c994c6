"""Fixtures of this room.
Counterpart: parts.py, which they are made of."""

from __future__ import annotations

import pytest
from tests.respond.parts import Bench


@pytest.fixture
def bench() -> Bench:
    """A policy whose one rule enforces, over a store in memory."""
    return Bench()

"""What fuzzing ever found is mended and stays so; seeds are good input.
Counterpart: fuzz/targets.py; `make fuzz` writes to fuzz/found."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import TARGETS

FOUND = sorted((Path(__file__).parent.parent / "fuzz" / "found").glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_what_was_found_is_mended(path: Path):
    TARGETS[path.parent.name].judge(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str):
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) > 1
    for seed in seeds[:: max(len(seeds) // 4, 1)]:
        TARGETS[name].judge(seed)

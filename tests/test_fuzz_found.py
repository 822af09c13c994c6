"""What fuzzing ever found is mended and stays so; seeds are good input.
Counterpart: fuzz/targets.py; `make fuzz` writes to fuzz/found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

FOUND = sorted((Path(__file__).parent.parent / "fuzz" / "found").glob("*/*"))

NETWORK = ("frames", "relp", "http", "bodies", "otlp", "message", "orders", "enrolment")
"""What strangers and hosts of the fleet send."""


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_what_was_found_is_mended(path: Path):
    TARGETS[path.parent.name].judge(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str):
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) > 1
    for seed in seeds[:: max(len(seeds) // 4, 1)]:
        TARGETS[name].judge(seed)


def _altered(seed: bytes, chance: random.Random) -> bytes:
    """Cut, doubled, flipped, overwritten at a few places."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randint(0, len(data)), chance.randint(0, 12)
        data[at : at + size] = chance.choice(
            (b"", bytes(data[at : at + size]) * 2, chance.randbytes(size), b"\xff" * size, b"\0" * size, b"[" * size)
        )
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize(
    "rounds", [pytest.param(30, id="few"), pytest.param(1500, id="many", marks=[pytest.mark.slow])]
)
@pytest.mark.parametrize("name", NETWORK)
def test_altered_seeds_are_borne(name: str, rounds: int):
    """Without the fuzzer's eye for coverage, but at every run of the tests."""
    chance, seeds = random.Random(name), list(TARGETS[name].seeds())
    for number in range(rounds):
        hostile = _altered(seeds[number % len(seeds)], chance)[: TARGETS[name].longest]
        try:
            TARGETS[name].judge(hostile)
        except Exception as error:
            error.add_note(f"input: {hostile!r}")
            raise

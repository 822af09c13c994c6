"""The generated auth.log: the same for a seed, with the shares it promises, read whole by our parser.
Counterpart: bench/authlog.py."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest

from bench import authlog
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines
from vedette.parsers.parser import SyslogParser
from vedette.parsers.written import read_patterns

COUNT = 20_000


@pytest.fixture(scope="module")
def labelled() -> list[tuple[str, bool]]:
    return list(authlog.labelled(COUNT, seed=7))


def test_the_same_seed_gives_the_same_lines_and_another_seed_others():
    first = list(authlog.lines(3_000, seed=7))
    assert first == list(authlog.lines(3_000, seed=7))
    assert first != list(authlog.lines(3_000, seed=8))


def test_a_shorter_file_is_the_beginning_of_a_longer_one(labelled: list[tuple[str, bool]]):
    assert list(authlog.lines(1_000, seed=7)) == [line for line, _ in islice(labelled, 1_000)]


def test_six_of_ten_lines_are_noise(labelled: list[tuple[str, bool]]):
    for begin in range(0, COUNT, 1_000):
        assert sum(quiet for _, quiet in labelled[begin : begin + 1_000]) == 600


def test_noise_names_no_attacker_and_attacks_only_attackers(labelled: list[tuple[str, bool]]):
    attacker = re.compile(r"\b198\.1[89]\.\d+\.\d+\b")
    assert not [line for line, quiet in labelled if quiet and attacker.search(line)]
    # Two messages of an attacked sshd name nobody.
    nameless = ("check pass; user unknown", "kex_exchange_identification")
    assert not [
        line
        for line, quiet in labelled
        if not quiet and not attacker.search(line) and not any(n in line for n in nameless)
    ]


def test_addresses_are_many_and_skewed(labelled: list[tuple[str, bool]]):
    found = Counter(match[1] for line, _ in labelled if (match := re.search(r"from (198\.\S+) port", line)))
    ranked = [count for _, count in found.most_common()]
    assert 400 < len(found) <= authlog.ADDRESSES
    assert ranked[0] > 5 * ranked[20] > 5 * ranked[len(ranked) // 2]


def test_times_ascend_over_five_days_a_million_lines():
    stamps = [line[:15] for line in authlog.lines(COUNT, seed=7)]
    times = [datetime.strptime(f"2026 {stamp}", "%Y %b %d %H:%M:%S") for stamp in stamps]  # noqa: DTZ007
    assert times == sorted(times)
    assert (times[-1] - times[0]).total_seconds() == pytest.approx(COUNT / 1_000_000 * 5 * 86_400, abs=2)


def test_every_line_is_read_and_every_attack_line_understood(labelled: list[tuple[str, bool]]):
    lines = [line.encode() for line, _ in labelled[:5_000]]
    table = SyslogParser(read_patterns(), None, Counters()).parse(batch_of_lines(lines, year=2026))
    assert table.unreadable == 0
    pattern = table.column("vedette.pattern")
    assert [line for row, line in enumerate(lines) if pattern.codes[row] < 0] == []


def test_the_file_is_written_once_and_dated_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = authlog.cached(1_000, seed=7)
    assert path.read_text().splitlines() == list(authlog.lines(1_000, seed=7))
    assert path.stat().st_mtime == pytest.approx(authlog.START.timestamp() + 1_000 * 86_400 / authlog.LINES_PER_DAY)
    path.write_text("kept")
    assert authlog.cached(1_000, seed=7) == path
    assert path.read_text() == "kept"

from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden.findings import GOLDEN, GOLDEN_FILES, logs


@pytest.mark.corpus
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_the_same_is_found_as_before(corpus: Path, name: str) -> None:
    golden = (GOLDEN / f"{name}.jsonl").read_text().splitlines()
    assert golden
    assert GOLDEN_FILES[name](corpus) == golden


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("workers", "chunk"), [(1, 4096), (2, 10_000), (3, 1 << 20)])
def test_however_it_is_cut_and_by_how_many_it_is_read(corpus: Path, workers: int, chunk: int) -> None:
    golden = (GOLDEN / "elastic-auth.jsonl").read_text().splitlines()
    assert logs(corpus, "elastic-examples/auth.log", workers=workers, chunk=chunk) == golden


@pytest.mark.corpus
def test_an_error_log_without_an_attack_is_read_whole_and_gives_nothing(corpus: Path) -> None:
    assert logs(corpus, "loghub/Apache/Apache_2k.log", ("rules/web", "rules/linux")) == []


def test_golden_files_say_no_more_than_they_must() -> None:
    assert {file.stem for file in GOLDEN.glob("*.jsonl")} == set(GOLDEN_FILES)
    assert all(len(line) < 4096 for file in GOLDEN.glob("*.jsonl") for line in file.read_text().splitlines())

"""What our own packs find in fail2ban's sample logs: at least nine of ten, and nobody is accused of what is no failure.
Counterpart: bench/own_recall.py; docs/agreement.md has the table and argues what is not found."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.own_recall import BESIDE, SERVICES, Share, shares, table

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "agreement.md").read_text()


@pytest.fixture(scope="module")
def found(corpus: Path) -> list[Share]:
    return shares(corpus)


@pytest.mark.corpus
def test_nine_of_ten_failures_are_found(found: list[Share]):
    assert sum(share.lines for share in found) > 100
    assert sum(share.found for share in found) >= 0.9 * sum(share.lines for share in found)
    assert {share.service for share in found} <= set(SERVICES)


@pytest.mark.corpus
def test_nobody_is_accused_of_what_no_filter_of_the_service_calls_a_failure(found: list[Share]):
    assert [line for share in found for line in share.wrong] == []
    assert [line for share in found for line in share.strangers] == []


@pytest.mark.corpus
def test_of_ssh_three_quarters_and_nobody_wrongly_but_for_the_line_the_document_argues(corpus: Path):
    ssh = {share.service: share for share in shares(corpus, BESIDE)}["sshd"]
    assert ssh.recall >= 0.75
    assert ssh.wrong == []
    assert {line.partition("]: ")[2] for line in ssh.strangers} == {
        "Failed password for invalid user test from 127.0.0.1 port 58946 ssh2: from 10.10.1.2 port 55555 ssh2"
    }


@pytest.mark.corpus
def test_the_document_has_the_table(corpus: Path, found: list[Share]):
    assert table(found) in DOCUMENT
    assert table(shares(corpus, BESIDE), total=False) in DOCUMENT


def test_the_table_says_what_was_missed_and_whom_a_line_wrongs():
    share = Share("doord", lines=4, found=3, elsewhere=1, missed=["a"], wrong=["b", "c"])
    assert table([share]).splitlines()[2:] == [
        "| doord | 4 | 3 | 75.0% | 1 | 2 |",
        "| all | 4 | 3 | 75.0% | 1 | 2 |",
    ]

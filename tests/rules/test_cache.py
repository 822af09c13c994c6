from __future__ import annotations

from pathlib import Path

import pytest

from vedette.rules import cache
from vedette.rules.files import PACKS
from vedette.rules.loading import load


def test_every_rule_comes_back_as_it_was(tmp_path: Path) -> None:
    rules = load((), packs=True, examples=True).rules
    where = tmp_path / "cache"
    cache.keep("k", rules, ["left out: x"], where)
    assert cache.kept("k", where) == (list(rules), ["left out: x"])


def test_the_key_is_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text("one")
    before = cache.key_of([file], "packs")
    assert cache.key_of([file], "packs") == before
    assert cache.key_of([file], "no packs") != before
    file.write_text("two")
    assert cache.key_of([file], "packs") != before
    assert cache.key_of(sorted(PACKS.glob("*.yml"))) != before


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'["vedette-rules",999,[]]', b'["vedette-rules",4,[{"id":1}]]', b'["x",1,[]]']
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, damage: bytes) -> None:
    where = tmp_path / "cache"
    cache.keep("k", [], [], where)
    assert cache.kept("k", where) == ([], [])
    (where / "k.json").write_bytes(damage)
    assert cache.kept("k", where) is None
    assert cache.kept("other", where) is None


def test_a_folder_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    where = tmp_path / "cache"
    cache.keep("k", [], [], where)
    where.chmod(0o777)
    assert cache.kept("k", where) is None


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.keep("k", [], [], tmp_path / "file" / "cache")
    assert cache.kept("k", tmp_path / "file" / "cache") is None


def test_few_are_kept(tmp_path: Path) -> None:
    where = tmp_path / "cache"
    for number in range(40):
        cache.keep(f"k{number}", [], [], where)
    assert len(list(where.iterdir())) == 32

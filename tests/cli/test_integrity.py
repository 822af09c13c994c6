"""`vedette integrity init|check`: exit codes, and each change as one object a line.
Counterpart: vedette.cli.integrity."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from tests.cli.parts import vedette

from vedette.model.fields import FIELDS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "a").write_text("a")
    (top / "b").write_text("b")
    ran = vedette("integrity", "init", "--tree", str(top), "--baseline", str(tmp_path / "file"))
    assert ran.code == 0, ran.err
    assert "3 paths" in ran.err
    return top


def check(tree: Path, *more: str):
    return vedette("integrity", "check", "--tree", str(tree), "--baseline", str(tree.parent / "file"), *more)


def test_nothing_is_0_something_is_1(tree: Path):
    assert check(tree).code == 0
    (tree / "a").write_text("other")
    ran = check(tree)
    assert ran.code == 1
    assert ran.out == f"changed: {tree}/a: content, times\n"


def test_json_is_as_the_contract_says(tree: Path):
    (tree / "a").rename(tree / "z")
    (tree / "b").chmod(0o711)
    with open(os.fsencode(tree) + b"/\xff", "wb"):
        pass
    ran = check(tree, "--output", "json")
    assert ran.code == 1
    found = {one["file.path"]: one for one in map(json.loads, ran.out.splitlines())}
    top = str(tree)
    assert found[top + "/a"]["kind"] == "removed"
    assert found[top + "/a"]["related"] == top + "/z"
    assert found[top + "/z"]["kind"] == "added"
    assert found[top + "/z"]["related"] == top + "/a"
    assert (found[top + "/b"]["kind"], found[top + "/b"]["attributes"]) == ("changed", ["mode"])
    odd = found[top + "/\ufffd"]
    assert base64.b64decode(odd["file.path_b64"]) == os.fsencode(tree) + b"/\xff"
    assert len(found) == 4
    own = {"kind", "attributes", "related", "file.path_b64"}
    assert {name for one in found.values() for name in one} - own <= set(FIELDS)


def test_what_could_not_be_done_is_2(tree: Path, tmp_path: Path):
    assert check(tree / "none").code == 2
    (tmp_path / "file").write_bytes(b"nonsense")
    assert check(tree).code == 2
    assert vedette("integrity", "init", "--tree", "/none", "--baseline", str(tmp_path / "x")).code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_never_a_pass(tree: Path):
    (tree / "a").chmod(0)
    (tree / "a").chmod(0o644)
    tree.chmod(0)
    try:
        ran = check(tree)
    finally:
        tree.chmod(0o755)
    assert ran.code != 0
    assert "not looked at" in ran.err

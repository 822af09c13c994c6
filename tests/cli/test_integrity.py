"""`vedette integrity init|check`: exit codes, and each change as one object a line.
Counterpart: vedette.cli.integrity."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.parts import vedette

from vedette.app.integrity_watch import take_requests
from vedette.model.fields import FIELDS
from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Who
from vedette.sources.integrity.known import Known
from vedette.sources.integrity.records import change_record


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


@pytest.fixture
def by_anybody() -> Iterator[None]:
    """Root reads everything, so root is somebody else meanwhile."""
    who = os.geteuid()
    if who == 0:
        os.seteuid(65534)
    yield
    os.seteuid(who)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may pass through."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_what_cannot_be_read_is_never_a_pass(place: Path, by_anybody: None):
    closed = place / "tree"
    who, _ = os.geteuid(), os.seteuid(os.getuid())
    closed.mkdir()
    (closed / "a").write_text("a")
    assert vedette("integrity", "init", "--tree", str(closed), "--baseline", str(place / "file")).code == 0
    (place / "file").chmod(0o644)
    closed.chmod(0)
    os.seteuid(who)
    ran = check(closed)
    os.seteuid(os.getuid())
    closed.chmod(0o755)
    assert ran.code != 0
    assert f"{closed}/a" not in ran.out
    assert "not looked at" in ran.err


def test_a_golden_baseline_is_of_another_host(tree: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(tree, other, copy_function=shutil.copy2)
    shutil.copystat(tree, other)
    shutil.rmtree(tree)
    other.rename(tree)
    assert check(tree).code == 1
    ran = check(tree, "--golden")
    assert (ran.code, ran.out) == (0, "")
    (tree / "a").write_text("other")
    assert check(tree, "--golden").out == f"changed: {tree}/a: content, times\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of a host whose source has told of two files."""
    folder = tmp_path / "data" / "integrity"
    folder.mkdir(parents=True)
    known = Known(folder)
    for name in ("a", "b"):
        entry = Entry(b"/etc/" + name.encode(), FileType.FILE, 0o644, 0, 0, 1, 1, 1, 1, 1, 1)
        who = Who(7, "/usr/bin/vi", ("vi", "/etc/a"), 0, "root", login_uid=1000, login_user="alice")
        change = Change(ChangeKind.ADDED, entry.path, after=entry, who=who, at=1)
        known.settle(change, change_record(change), settled=False)
    known.save()
    return tmp_path / "data"


def test_what_waits_is_said_explained_and_accepted(data: Path):
    given = ("--data", str(data))
    ran = vedette("integrity", "check", *given)
    assert ran.code == 1
    assert ran.out.startswith("added: /etc/a by /usr/bin/vi (7, root, logged in as alice)\n")
    (first, _) = map(json.loads, vedette("integrity", "check", *given, "--output", "json").out.splitlines())
    assert (first["file.path"], first["vedette.integrity.login_user"]) == ("/etc/a", "alice")
    assert set(first) <= set(FIELDS) | {"event.dataset"}
    assert "vedette.integrity.login_user = alice" in vedette("integrity", "explain", "/etc/a", *given).out
    assert "nothing was told" in vedette("integrity", "explain", "/etc/c", *given).out
    assert vedette("integrity", "accept", "/etc/a", *given).code == 2, "nobody says why"
    assert vedette("integrity", "accept", "--reason", "x", *given).code == 2, "nobody says what"
    ran = vedette("integrity", "accept", "/etc/a", "/none", "--reason", "CHG-7", *given)
    assert ran.code == 0, ran.err
    assert "/none: nothing waits there" in ran.err
    (request,) = take_requests(data / "integrity")
    assert request["paths"] == [b"/etc/a", b"/none"]
    assert request["reason"] == "CHG-7"
    assert take_requests(data / "integrity") == []


def test_where_nothing_is_watched_nothing_is_said_to_be_well(tmp_path: Path):
    assert vedette("integrity", "check", "--data", str(tmp_path)).code == 2
    assert vedette("integrity", "accept", "--all", "--reason", "x", "--data", str(tmp_path)).code == 2

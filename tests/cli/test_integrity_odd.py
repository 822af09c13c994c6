"""`vedette integrity odd`: like hosts, by baselines and by what the lake holds.
Counterpart: vedette.cli.integrity and vedette.app.odd."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.parts import vedette


def baselines(tmp_path: Path, *, odd: bool) -> list[str]:
    """Six hosts, one after the other on the same tree."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "ssh").write_text("as shipped")
    files = []
    for number in range(6):
        if odd:
            (tree / "ssh").write_text("evil" if number == 3 else "as shipped")
            (tree / "more").touch() if number == 4 else (tree / "more").unlink(missing_ok=True)
        files.append(str(tmp_path / f"web{number}.baseline"))
        assert vedette("integrity", "init", "--tree", str(tree), "--baseline", files[-1]).code == 0
    return files


def test_one_of_six_differs(tmp_path: Path):
    files = baselines(tmp_path, odd=True)
    ran = vedette("integrity", "odd", *files, "--output", "json")
    assert ran.code == 1, ran.err
    found = {one["key"]: one for one in map(json.loads, ran.out.splitlines())}
    assert {key: one["host.name"] for key, one in found.items()} == {
        f"{tmp_path}/tree/ssh": ["web3"],
        f"{tmp_path}/tree/more": ["web4"],
    }
    assert (found[f"{tmp_path}/tree/more"]["usual"], found[f"{tmp_path}/tree/ssh"]["of"]) == ("", 6)


def test_all_alike_is_0_and_too_few_or_other_trees_are_2(tmp_path: Path):
    files = baselines(tmp_path, odd=False)
    assert vedette("integrity", "odd", *files).code == 0
    few = vedette("integrity", "odd", *files[:4])
    assert few.code == 2
    assert "4 hosts are too few" in few.err
    (tmp_path / "else").mkdir()
    other = str(tmp_path / "web9.baseline")
    assert vedette("integrity", "init", "--tree", str(tmp_path / "else"), "--baseline", other).code == 0
    assert vedette("integrity", "odd", *files, other).code == 2
    assert vedette("integrity", "odd").code == 2


def test_facts_of_the_lake(tmp_path: Path):
    lines = []
    for number in range(8):
        facts = ["/usr/bin/su = 4755/0/0", *(["/tmp/sh = 4755/0/0"] if number == 5 else [])]
        lines.append(
            json.dumps(
                {
                    "@timestamp": "2026-03-01T10:00:00.000000Z",
                    "event.action": "facts-told",
                    "host.name": f"web{number}",
                    "vedette.rootkit.kind": "set-uid-files",
                    "vedette.rootkit.facts": facts,
                }
            )
        )
    path = tmp_path / "facts.json"
    path.write_text("\n".join(lines))
    ran = vedette("integrity", "odd", "--facts", str(path))
    assert (ran.code, ran.out) == (
        1,
        "1 of 8 differ: set-uid-files /tmp/sh: 4755/0/0, on the others not there: web5\n",
    )
    path.write_text("{")
    broken = vedette("integrity", "odd", "--facts", str(path))
    assert broken.code == 2
    assert "facts.json:1" in broken.err

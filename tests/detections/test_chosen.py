"""What is looked for is the same whether it was chosen now or kept, and whatever is damaged is chosen anew.
Counterpart: vedette.detections.chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.detections.chosen import Chosen, choose, chosen
from vedette.detections.leaves import Leaves
from vedette.model import rules
from vedette.model.levels import Level
from vedette.model.rules import All, Any, LogSource, Node, Not, Op, Raw, Rule, Test

CONDITIONS: list[Node] = [
    All((Test("Image", Op.ENDSWITH, ("\\cmd.exe", "\\é.exe")), Test("User", Op.EQUALS, ("someone",)))),
    Any((Raw("mimikatz"), Raw("sekurlsa*logon"))),
    Not(Test("Image", Op.CONTAINS, ("temp",))),
    Test("CommandLine", Op.REGEX, ("a+b{3}cc",)),
]
RULES = [
    Rule(id=f"rule-{number}", name="", level=Level.LOW, logsource=LogSource(), when=when)
    for number, when in enumerate(CONDITIONS)
]
ROOTS = range(len(RULES))


def leaves_of_all() -> Leaves:
    leaves = Leaves()
    for rule in RULES:
        for leaf in rules.tests_of(rule.when):
            leaves.add(leaf)
    return leaves


def test_what_was_kept_is_what_is_chosen_and_a_damaged_file_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vedette.detections.chosen._WORTH_KEEPING", 1)
    folder = tmp_path / "kept"
    expected = choose(RULES, ROOTS, leaves_of_all())
    assert expected.clauses[2] is None
    assert {"User", "CommandLine"} <= expected.fields.keys()

    def found(key: str = "these") -> Chosen:
        return chosen(RULES, ROOTS, leaves_of_all(), folder, key)

    assert found() == expected
    (kept,) = folder.glob("*.search")
    with monkeypatch.context() as patch:
        patch.delattr("vedette.detections.chosen.choose")
        assert found() == expected
        with pytest.raises(NameError):
            found("others")
    for damage in (b"", b"\x93\xa1x\x01\xc0", kept.read_bytes()[:-1]):
        kept.write_bytes(damage)
        assert found() == expected

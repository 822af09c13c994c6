from __future__ import annotations

import re
from pathlib import Path

from vedette.app.detection import CaseEngine
from vedette.model.rules import CorrelationKind
from vedette.rules.cases import run_cases
from vedette.rules.loading import load

PAGE = Path(__file__).parents[2] / "docs" / "correlations.md"


def test_every_type_has_an_example_on_the_page_and_its_cases_come_out_as_written(tmp_path: Path) -> None:
    file = tmp_path / "page.yml"
    file.write_text(
        "\n---\n".join(re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    )
    result = load([file])
    assert not result.problems
    correlations = [rule for rule in result.rules if rule.correlate is not None]
    assert {rule.correlate.kind for rule in correlations if rule.correlate} == set(CorrelationKind)
    for rule in correlations:
        positive = {case.positive for case in result.cases if case.rule == rule.id}
        assert positive == ({False} if rule.silent else {True, False}), rule.id
    outcome = run_cases(result.rules, result.cases, CaseEngine())
    assert [one.disagreements for one in outcome if not one.passed] == []

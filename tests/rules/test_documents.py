from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.errors import RuleError
from vedette.rules.documents import parse_documents, read_documents


def test_what_is_wrong_with_a_rule_file_is_a_rule_error(tmp_path: Path):
    with pytest.raises(RuleError, match=r"f\.yml:2:1: key 'a' is there twice"):
        parse_documents(b"a: 1\na: 2\n", "f.yml")
    with pytest.raises(RuleError, match="cannot be read"):
        read_documents(tmp_path / "none.yml")
    (document,) = parse_documents(b"a: 1\n", "f.yml")
    assert isinstance(document.error("wrong", "a"), RuleError)

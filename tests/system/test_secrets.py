from pathlib import Path

import pytest
from pydantic import ValidationError

from vedette.model.errors import ConfigError
from vedette.system.secrets import Secret


def test_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    monkeypatch.setenv("VEDETTE_TEST_KEY", "other")
    assert Secret(file=str(path)).read() == "s3cret"
    assert Secret(env="VEDETTE_TEST_KEY").read() == "other"
    assert "s3cret" not in repr(Secret(file=str(path)))


def test_absent_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not set \(hint"):
        Secret(env="VEDETTE_NO_SUCH_VARIABLE").read()
    with pytest.raises(ConfigError, match="cannot read"):
        Secret(file=str(tmp_path / "none")).read()


def test_exactly_one_place() -> None:
    for wrong in ({}, {"env": "A", "file": "b"}, {"value": "x"}):
        with pytest.raises(ValidationError):
            Secret.model_validate(wrong)

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from vedette.inventory.reading import known_keys, parse_document, validated, written_path
from vedette.model.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: list[Inner | str]


def test_an_error_in_a_union_is_placed_by_the_keys_that_were_written():
    document = parse_document(b"inner:\n  - port: x\n", "f.yml", "thing")
    with pytest.raises(ConfigError, match=r"^f\.yml:2:5: inner\.0\.port: .*; 1 more after it"):
        validated(Outer, document)
    assert written_path(document, ("inner", 0, "Inner", "port")) == ("inner", 0, "port")


def test_an_unknown_key_gets_the_nearest_known_one():
    assert known_keys(Outer) == ["inner", "port"]
    with pytest.raises(ConfigError, match=r"^f\.yml:1:1: iner: is not a key .*did you mean inner"):
        validated(Outer, parse_document(b"iner: 1\ninner: []\n", "f.yml", "thing"))

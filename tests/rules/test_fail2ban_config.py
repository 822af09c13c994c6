"""Values of fail2ban's files: what is put into them, and where that ends."""

from __future__ import annotations

import pytest

from vedette.model.errors import RuleError
from vedette.rules.fail2ban_config import Config


def test_a_tag_in_a_tag_is_put_in():
    values = {"a": "<b>x", "b": "<c>y", "c": "z"}
    assert Config().combined(values, "a", {}) == "zyx"


def test_tags_that_change_places_end_after_few_rounds():
    asked: list[str] = []

    class Asked(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.append(name)
            return super().get(name, default)

    with pytest.raises(RuleError, match="without end"):
        Config().combined(Asked(a="<b>", b="<a>!"), "a", {})
    # Nested further than any filter of fail2ban's, and no more.
    deep = {f"t{place}": f"<t{place + 1}>" for place in range(100)}
    with pytest.raises(RuleError, match="without end"):
        Config().combined(deep, "t0", {})
    assert len(asked) <= 2

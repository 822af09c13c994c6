import pytest

from vedette.model.levels import Level


def test_levels_compare_and_are_written_by_name() -> None:
    assert Level.LOW < Level.HIGH
    assert Level.parse("high").label == "high"
    with pytest.raises(ValueError, match="one of informational"):
        Level.parse("severe")


def test_ossec_levels() -> None:
    table = {
        Level.INFORMATIONAL: range(4),
        Level.LOW: range(4, 7),
        Level.MEDIUM: range(7, 12),
        Level.HIGH: range(12, 14),
    }
    for level, numbers in table.items():
        assert {Level.from_ossec(number) for number in numbers} == {level}
    assert {Level.from_ossec(number) for number in range(14, 17)} == {Level.CRITICAL}
    with pytest.raises(ValueError, match="16"):
        Level.from_ossec(17)

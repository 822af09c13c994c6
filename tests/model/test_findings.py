from vedette.model.findings import finding_id, key_text


def test_the_id_depends_on_each_part_and_not_on_key_order() -> None:
    base = finding_id("r", {"a": "1", "b": "2"}, 5, b"raw", 0)
    assert base == finding_id("r", {"b": "2", "a": "1"}, 5, b"raw", 0)
    others = {
        finding_id("s", {"a": "1", "b": "2"}, 5, b"raw", 0),
        finding_id("r", {"a": "1", "b": "3"}, 5, b"raw", 0),
        finding_id("r", {"a": "1", "b": "2"}, 6, b"raw", 0),
        finding_id("r", {"a": "1", "b": "2"}, 5, b"raw ", 0),
        finding_id("r", {"a": "1", "b": "2"}, 5, b"raw", 1),
        base,
    }
    assert len(others) == 6
    assert len(base) == 32


def test_key_text_is_canonical() -> None:
    assert key_text({"b": 1, "a": "x"}) == key_text({"a": "x", "b": 1}) == '[["a","x"],["b",1]]'

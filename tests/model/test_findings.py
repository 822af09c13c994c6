from vedette.model.batch import REPLAY_HOST_ID
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


def test_the_id_tells_hosts_apart_and_is_that_of_before_in_a_replay() -> None:
    replayed = finding_id("r", {"a": "1"}, 5, b"raw", 0)
    assert replayed == "d4289f5c47b7de0a7132fdf0c3f3e549"
    assert replayed == finding_id("r", {"a": "1"}, 5, b"raw", 0, REPLAY_HOST_ID)
    ids = {finding_id("r", {"a": "1"}, 5, b"raw", 0, host_id) for host_id in ("one", "two", REPLAY_HOST_ID)}
    assert len(ids) == 3

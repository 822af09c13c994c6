import uuid

from vedette.model.ids import uuid7


def test_ids_sort_by_time_and_are_version_7() -> None:
    ids = [uuid7(1_795_489_425_000_000 + step * 1000) for step in range(100)]
    assert ids == sorted(ids)
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}

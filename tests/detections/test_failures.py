"""Lines of one connection joined to failures: what is kept of it is bounded."""

from __future__ import annotations

from vedette.detections.failures import NOBODY, Failures


def test_a_connection_that_tries_names_without_end_is_kept_small():
    failures = Failures()
    for number in range(1000):
        one = failures.line("7", "192.0.2.1", 1, f"user{number}", False, False, False, number)
        assert one is not None
    known = failures.connections["7"]
    assert known.users is not None
    assert len(known.users) == 100
    # It is still one that tries several names: no line excuses it.
    excused = failures.line("7", None, NOBODY, "another", True, False, False, 1000)
    assert excused is known

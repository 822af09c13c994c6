from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from vedette.app.guarding import FLOOR_EVERY, TELL_AGAIN, GuardWatch
from vedette.model.errors import EnforcementError
from vedette.model.reasons import RefusalReason
from vedette.respond import enforcers
from vedette.respond.enforcers import make_guard
from vedette.respond.settings import RespondSettings

ADDRESS = ip_network("198.51.100.7")


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """The addresses of this host, as the test wants them."""
    own = set()
    monkeypatch.setattr(enforcers, "host_floor", lambda: frozenset(own))
    return own


def watch_of(*files: Path, **settings: object) -> GuardWatch:
    made = RespondSettings.model_validate(settings)
    return GuardWatch(make_guard(made, files), made, files, 0)


def test_nothing_changes_where_nothing_happened(tmp_path):
    (tmp_path / "list").write_text("198.51.100.7 # tester\n")
    watch = watch_of(tmp_path / "list", tmp_path / "missing")
    assert [watch.changed(now) for now in range(3)] == [False] * 3


def test_an_entry_counts_as_soon_as_it_is_written_and_no_longer_than_it_stands(tmp_path):
    path = tmp_path / "list"
    watch = watch_of(path, allowlist=[{"network": "192.0.2.0/24"}])
    guard = watch._guard
    assert not watch.changed(1)
    path.write_text("198.51.100.7\n")
    assert guard.refuses(ADDRESS) is None
    assert watch.changed(2)
    assert guard.refuses(ADDRESS) is RefusalReason.ALLOWLISTED
    assert guard.refuses(ip_network("192.0.2.9")) is RefusalReason.ALLOWLISTED
    path.unlink()
    assert watch.changed(3)
    assert guard.refuses(ADDRESS) is None


def test_written_between_reading_and_the_first_look(tmp_path):
    path = tmp_path / "list"
    watch = watch_of(path)
    path.write_text("198.51.100.7\n")
    assert watch.changed(1)


def test_a_broken_list_is_said_once_and_the_old_one_stays(tmp_path):
    path = tmp_path / "list"
    path.write_text("198.51.100.7\n")
    watch = watch_of(path)
    path.write_text("198.51.100.7\nexample.org\n")
    with capture_logs() as logs:
        assert not watch.changed(1)
        assert not watch.changed(2)
    (said,) = logs
    assert f"{path}:2" in said["reason"]
    assert watch._guard.refuses(ADDRESS) is RefusalReason.ALLOWLISTED


def test_an_address_this_host_gets_is_on_the_floor(host):
    watch = watch_of()
    host.add(ADDRESS)
    assert not watch.changed(FLOOR_EVERY - 1)
    assert watch.changed(FLOOR_EVERY)
    assert watch._guard.refuses(ADDRESS) is RefusalReason.HARD_FLOOR
    assert not watch.changed(FLOOR_EVERY + 1)


def test_whoever_else_looks_at_the_allowlist_is_told_at_first_and_of_changes(tmp_path):
    path, told = tmp_path / "list", []
    settings = RespondSettings()
    watch = GuardWatch(make_guard(settings, [path]), settings, [path], 0, lambda entries: told.append(list(entries)))
    watch.changed(1)
    watch.changed(2)
    path.write_text("198.51.100.7\n")
    watch.changed(3)
    watch.changed(4)
    assert [[str(one.network) for one in entries] for entries in told] == [[], ["198.51.100.7/32"]]


def test_what_could_not_be_told_is_said_once_and_tried_again(tmp_path):
    failures, told = [EnforcementError("gone"), EnforcementError("gone")], []

    def tell(entries):
        if failures:
            raise failures.pop()
        told.append(entries)

    settings = RespondSettings()
    watch = GuardWatch(make_guard(settings), settings, [], 0, tell)
    with capture_logs() as logs:
        for now in range(0, 4 * TELL_AGAIN, TELL_AGAIN // 2):
            watch.changed(now)
    assert len(logs) == 1
    assert told == [[]]

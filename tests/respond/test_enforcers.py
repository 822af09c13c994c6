from __future__ import annotations

from ipaddress import ip_network
from typing import get_args

import pytest

from vedette.model.errors import ConfigError, EnforcementError
from vedette.model.reasons import RefusalReason
from vedette.respond import enforcers
from vedette.respond.enforcers import ENFORCERS, make_enforcers, make_guard, refresh_floor
from vedette.respond.settings import EnforcerName, RespondSettings


def test_every_name_of_the_settings_has_an_enforcer_of_that_name():
    assert set(ENFORCERS) == set(get_args(EnforcerName))


def test_hosts_deny_is_made_as_set(tmp_path):
    settings = RespondSettings(enforcers=("hosts_deny",), hosts_deny={"path": str(tmp_path / "deny")})
    (made,) = make_enforcers(settings)
    assert made.name == "hosts_deny"
    made.sync([], 0)
    assert not (tmp_path / "deny").exists()


def test_one_that_cannot_start_closes_those_before_it(monkeypatch):
    closed = []

    class First:
        name = "hosts_deny"

        def close(self):
            closed.append(self)

    def fails(settings):
        raise EnforcementError("no")

    monkeypatch.setattr(enforcers, "ENFORCERS", {"hosts_deny": lambda settings: First(), "nftables": fails})
    with pytest.raises(EnforcementError):
        make_enforcers(RespondSettings(enforcers=("hosts_deny", "nftables")))
    assert len(closed) == 1


def test_the_guard_of_settings_and_files(tmp_path):
    (tmp_path / "one").write_text("198.51.100.0/24 # partner\n")
    (tmp_path / "two").write_text("2001:db8::/48\n")
    settings = RespondSettings(
        floor=["192.0.2.80"],
        allowlist=[{"network": "203.0.113.4", "comment": "office"}],
        allowlist_files=[str(tmp_path / "one")],
    )
    guard = make_guard(settings, [tmp_path / "two", tmp_path / "none"])
    for text in ("198.51.100.7", "2001:db8::7", "203.0.113.4"):
        assert guard.refuses(ip_network(text)) is RefusalReason.ALLOWLISTED
    assert guard.refuses(ip_network("192.0.2.80")) is RefusalReason.HARD_FLOOR
    assert guard.refuses(ip_network("203.0.113.5")) is None
    assert not refresh_floor(guard, settings)
    (tmp_path / "one").write_text("bad\n")
    with pytest.raises(ConfigError, match="one:1"):
        make_guard(settings)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vedette.model.decisions import Rung
from vedette.model.rules import Response
from vedette.respond.ladder import Fuse, FuseLimit, is_canary, lease_of, rung_of
from vedette.respond.settings import FuseSettings, RespondSettings

MINUTE = 60_000_000


def test_a_rule_nobody_spoke_of_observes():
    rungs = RespondSettings(rungs={"a": "enforce", "b": "simulate"}).rungs
    assert [rung_of(rungs, one) for one in "abc"] == [Rung.ENFORCE, Rung.SIMULATE, Rung.OBSERVE]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        pytest.param((), False, id="none"),
        pytest.param(("web01",), True, id="name"),
        pytest.param(("id-1",), True, id="id"),
        pytest.param(("web0*", "db"), True, id="pattern"),
        pytest.param(("WEB01", "web", "eb01"), False, id="others"),
        pytest.param(("",), False, id="empty"),
    ],
)
def test_a_canary_is_named_by_id_or_name(patterns: tuple[str, ...], found: bool):
    assert is_canary(patterns, "id-1", "web01") is found
    assert not is_canary(patterns, "", "")


@pytest.mark.parametrize(
    "settings",
    [
        {"rungs": {"a": "Enforce"}},
        {"floor": ["pager.example"]},
        {"allowlist": [{"network": "1.2.3.4/40"}]},
        {"override_longest": "0s"},
        {"enforcers": ["iptables"]},
        {"hosts_deny": {"service": "sshd: ALL"}},
        {"fuse": {"active": 0}},
        {"alowlist": []},
    ],
)
def test_settings_refuse(settings):
    with pytest.raises(ValidationError):
        RespondSettings.model_validate(settings)


def test_leases_double_up_to_the_longest():
    response = Response(lease=10, factor=2, longest=65)
    assert [lease_of(response, n) for n in (1, 2, 3, 4, 100_000)] == [10, 20, 40, 65, 65]
    assert lease_of(Response(lease=10, factor=1, longest=65), 9) == 10
    assert lease_of(Response(lease=10, factor=2, longest=5), 9) == 10


@given(st.integers(1, 10**9), st.integers(1, 9), st.integers(1, 10**12), st.integers(1, 300))
def test_leases_never_shrink(lease, factor, longest, offence):
    response = Response(lease=lease, factor=factor, longest=longest)
    assert lease <= lease_of(response, offence) <= lease_of(response, offence + 1) <= max(lease, longest)


def test_fuse_per_minute_slides():
    fuse = Fuse(FuseSettings(per_minute=2, active=5))
    fuse.count(0)
    fuse.count(MINUTE // 2)
    assert fuse.check(MINUTE - 1, 2) is FuseLimit.PER_MINUTE
    assert fuse.check(MINUTE, 2) is None
    assert fuse.check(MINUTE, 5) is FuseLimit.ACTIVE


def test_fuse_survives_a_clock_set_back_and_a_restart():
    fuse = Fuse(FuseSettings(per_minute=1, active=5))
    fuse.count(10 * MINUTE)
    assert fuse.check(MINUTE, 1) is None
    fuse.reload([MINUTE, 3])
    assert fuse.check(MINUTE, 1) is FuseLimit.PER_MINUTE

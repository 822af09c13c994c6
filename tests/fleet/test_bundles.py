"""Bundles as an agent keeps them: what is believed, what is refused, what is gone back to.
Counterpart: src/vedette/fleet/{bundles,signing}.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.fleet.authority import Authority
from vedette.fleet.bundles import (
    MOST_STARTS,
    BundleError,
    BundleReason,
    Content,
    Kept,
    Order,
    order_bytes,
    packed,
    rates_are_noisy,
    read_order,
    unpacked,
)
from vedette.fleet.signing import HubSigner, SignedError, SignedKind, SignedReason, opened
from vedette.model.clock import SystemClock
from vedette.model.errors import StateError

HOST = "6f0c2c1e-1f0b-4d53-9a53-0a5d6a0f1c11"
OTHER = "6f0c2c1e-1f0b-4d53-9a53-0a5d6a0f1c12"


class Hub:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "authority", SystemClock())
        self.signer = HubSigner.open(folder, self.authority)
        self.folder = folder

    def order(self, serial: int, number: int, target: str = HOST, *, returns: bool = False) -> bytes:
        content = Content(files={f"/etc/{number}.yml": f"rule {number}"}) if number else None
        return self.signer.sign(SignedKind.BUNDLE, order_bytes(Order(serial, target, number, content, returns)))

    def kept(self) -> Kept:
        return Kept(self.folder / "agent", HOST, self.authority.certificate)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    Hub(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, keys: Path) -> Hub:
    made = Hub(keys)
    made.folder = tmp_path
    (tmp_path / "agent").mkdir()
    return made


def take(kept: Kept, signed: bytes) -> None:
    order = kept.offered(signed)
    assert order is not None
    kept.take(order, signed)


def rule_of(kept: Kept) -> str | None:
    found = kept.in_force()
    return None if found is None else found.rules[0].read_text()


def test_what_is_taken_is_in_force_and_there_at_the_next_start(hub: Hub):
    kept = hub.kept()
    assert kept.begin() == (None, 0)
    take(kept, hub.order(1, 7))
    again = hub.kept()
    found, given_up = again.begin()
    assert (again.number, given_up) == (7, 0)
    assert found is not None
    assert [path.read_text() for path in found.rules] == ["rule 7"]


def test_an_older_number_is_refused_and_taken_by_an_order_to_return(hub: Hub):
    kept = hub.kept()
    take(kept, hub.order(1, 7))
    with pytest.raises(BundleError) as refused:
        kept.offered(hub.order(2, 6))
    assert refused.value.reason is BundleReason.OLDER
    assert kept.offered(hub.order(2, 6)) is None
    take(kept, hub.order(3, 6, returns=True))
    assert (kept.number, rule_of(kept)) == (6, "rule 6")
    # Said again by whoever kept it, the order of before is worth nothing.
    assert kept.offered(hub.order(1, 7)) is None
    take(kept, hub.order(4, 0, returns=True))
    assert (kept.number, kept.in_force()) == (0, None)


def test_an_order_for_another_host_or_signed_by_another_is_refused(hub: Hub, tmp_path: Path):
    kept = hub.kept()
    with pytest.raises(BundleError) as refused:
        kept.offered(hub.order(1, 7, OTHER))
    assert refused.value.reason is BundleReason.OF_ANOTHER_HOST
    stranger = Hub(tmp_path / "stranger")
    with pytest.raises(BundleError) as refused:
        kept.offered(stranger.order(1, 7))
    assert refused.value.reason is BundleReason.NOT_BELIEVED
    assert kept.number == 0


def test_one_that_never_ran_long_enough_is_given_up_for_the_one_before(hub: Hub):
    kept = hub.kept()
    take(kept, hub.order(1, 7))
    kept.begin()
    kept.prove()
    take(kept, hub.order(2, 8))
    for _ in range(MOST_STARTS):
        found, given_up = hub.kept().begin()
        assert (found is not None and found.number, given_up) == (8, 0)
    last = hub.kept()
    found, given_up = last.begin()
    assert (found is not None and found.number, given_up) == (7, 8)
    assert rule_of(last) == "rule 7"
    assert last.offered(hub.order(2, 8)) is None


def test_starts_that_ended_as_told_say_nothing_against_it(hub: Hub):
    take(hub.kept(), hub.order(1, 7))
    for _ in range(2 * MOST_STARTS):
        kept = hub.kept()
        assert kept.begin()[1] == 0
        kept.ended()
    assert hub.kept().number == 7


def test_an_order_for_all_of_what_runs_already_changes_nothing(hub: Hub):
    kept = hub.kept()
    take(kept, hub.order(1, 7))
    kept.prove()
    signed = hub.order(2, 7, "all")
    order = kept.offered(signed)
    assert order is not None
    kept.confirm(order, signed)
    assert (kept.proven, rule_of(kept), rule_of(hub.kept())) == (True, "rule 7", "rule 7")


def test_what_is_altered_on_the_disk_or_on_the_way_is_not_believed(hub: Hub):
    kept = hub.kept()
    take(kept, hub.order(1, 7))
    place = hub.folder / "agent" / "bundle" / "1.signed"
    data = bytearray(place.read_bytes())
    data[-10] ^= 1
    place.write_bytes(data)
    with pytest.raises(BundleError):
        kept.in_force()
    (hub.folder / "agent" / "bundle.json").write_text('{"format":"vedette-bundle-standing","version":2}')
    with pytest.raises(StateError, match="newer Vedette"):
        hub.kept()


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_bytes_that_are_none_are_refused_by_reason(hub: Hub, cut: int):
    signed = hub.order(1, 7)
    with pytest.raises(SignedError):
        opened(signed[:cut], SignedKind.BUNDLE, hub.authority.certificate)


@pytest.mark.parametrize(
    "data", [b"\x81\xa6format\xa2\xff\xff", b"\x82\xa1x" + b"\x91" * 100_000], ids=["no-utf8", "deep"]
)
def test_what_cannot_be_decoded_is_refused_by_reason(hub: Hub, data: bytes):
    """Before there is a signature to check, so that anybody in between could send it."""
    with pytest.raises(BundleError) as error:
        read_order(data, hub.authority.certificate)
    assert error.value.reason is BundleReason.NOT_BELIEVED


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), cut=st.integers(0, 4), new=st.binary(max_size=6))
def test_an_order_that_was_altered_is_never_believed(hub: Hub, at: int, cut: int, new: bytes):
    signed = hub.signer.sign(SignedKind.BUNDLE, order_bytes(Order(1, "all", 0)))
    at %= len(signed)
    altered = signed[:at] + new + signed[at + cut :]
    try:
        read = read_order(altered, hub.authority.certificate)
    except BundleError:
        return
    # Bytes that change nothing, like those that were there.
    assert read == Order(1, "all", 0)


def test_what_is_signed_as_one_thing_is_not_taken_as_another(hub: Hub):
    with pytest.raises(SignedError) as refused:
        opened(hub.order(1, 7), SignedKind.DECISIONS, hub.authority.certificate)
    assert refused.value.reason is SignedReason.OF_ANOTHER_KIND


def test_a_sample_of_a_hub_one_version_on_is_read():
    """As a later hub writes it: keys that are unknown here are passed over, what is known holds."""
    sample = {
        "format": "vedette-bundle",
        "version": 1,
        "packs": False,
        "files": {"/etc/rules/a.yml": "text"},
        "respond": {"ssh-brute-force-address": "enforce", "other": "canary"},
        "allowlist": [{"network": "192.0.2.0/24", "comment": "office", "until": "2027-01-01"}],
        "quotas": {"findings": 5},
    }
    content = unpacked(json.dumps(sample).encode())
    assert (content.packs, content.files, content.allowlist[0].network) == (False, sample["files"], "192.0.2.0/24")
    with pytest.raises(BundleError) as refused:
        unpacked(json.dumps({**sample, "version": 2}).encode())
    assert refused.value.reason is BundleReason.NEWER


def test_the_form_is_canonical():
    one = Content(files={"b": "2", "a": "1"}, steps={"y": "mail", "x": "store"})
    other = Content(files={"a": "1", "b": "2"}, steps={"x": "store", "y": "mail"})
    assert packed(one) == packed(other)
    assert unpacked(packed(one)) == unpacked(packed(other))


def test_noise_is_judged_against_what_is_usual():
    assert not rates_are_noisy(20, 1.0, [], floor=20, factor=5)
    assert rates_are_noisy(21, 1.0, [], floor=20, factor=5)
    assert not rates_are_noisy(99, 1.0, [20.0], floor=20, factor=5)
    assert rates_are_noisy(101, 1.0, [20.0], floor=20, factor=5)
    # What comes in the first minutes is not a rate yet.
    assert not rates_are_noisy(15, 0.1, [], floor=20, factor=5)

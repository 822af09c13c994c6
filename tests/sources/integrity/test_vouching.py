"""Who is heard of several who vouch, and that what vouching rests upon is vouched for by none of them.
Counterpart: vedette.sources.integrity.vouching."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vedette.app.counters import Counters
from vedette.model.integrity import Change, ChangeKind, Verdict, Vouching
from vedette.sources.integrity.settings import IntegritySettings, VouchingSettings
from vedette.sources.integrity.vouch_rpm import RpmLack
from vedette.sources.integrity.vouching import Vouchers, rpm_keys_of


class Says:
    """The same of everything."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        return [Vouching("package", self._verdict, "as shipped") for _ in changes]


def test_a_keyring_is_vouched_for_by_nothing_that_rests_upon_it() -> None:
    changes = [Change(ChangeKind.CHANGED, path) for path in (b"/usr/bin/tool", b"/usr/share/keyrings/a.gpg")]
    believed = {b"/usr/share/keyrings/a.gpg"}
    vouched = Vouchers([Says(Verdict.VOUCHED)], Counters(), believed).vouch(changes)
    assert [one.verdict for one in vouched if one is not None] == [Verdict.VOUCHED, Verdict.HINT]
    against = Vouchers([Says(Verdict.CONTRADICTED)], None, believed).vouch(changes)
    assert [one.verdict for one in against if one is not None] == [Verdict.CONTRADICTED, Verdict.CONTRADICTED]


def test_whose_signature_counts_is_watched() -> None:
    trees = IntegritySettings().trees
    for keyring in VouchingSettings().keyrings:
        assert any(keyring.is_relative_to(tree) for tree in trees)


def test_what_an_initramfs_is_made_from_is_watched() -> None:
    # An image is vouched for by what lies there, so that must be told when it changes.
    trees = IntegritySettings().trees
    for source in ("/usr/share/initramfs-tools/scripts", "/etc/initramfs-tools", "/usr/lib/klibc/bin", "/usr/sbin/x"):
        assert any(Path(source).is_relative_to(tree) for tree in trees)


def test_what_a_voucher_could_not_use_is_counted_once() -> None:
    class Lacking(Says):
        lacks = {RpmLack.NO_KEY: 2}  # noqa: RUF012 (a voucher's own, which grows)

    counters, lacking = Counters(), Lacking(Verdict.HINT)
    asked = Vouchers([lacking], counters)
    for _ in range(2):
        asked.vouch([Change(ChangeKind.CHANGED, b"/usr/bin/tool")])
    lacking.lacks[RpmLack.NO_KEY] += 1
    asked.vouch([Change(ChangeKind.CHANGED, b"/usr/bin/tool")])
    assert counters.value("vouching_lacks", RpmLack.NO_KEY) == 3


def test_keys_of_rpm_are_found_within_the_root_and_watched(tmp_path: Path) -> None:
    folder = tmp_path / "etc/pki/rpm-gpg"
    folder.mkdir(parents=True)
    for name in ("RPM-GPG-KEY-redhat-release", "RPM-GPG-KEY-EPEL-9", "RPM-GPG-KEY-rockyofficial"):
        (folder / name).touch()
    found = rpm_keys_of(VouchingSettings(root=tmp_path))
    assert [one.name for one in found] == ["RPM-GPG-KEY-redhat-release", "RPM-GPG-KEY-rockyofficial"]
    assert all(Path(one).is_relative_to("/etc") for one in VouchingSettings().rpm_keys)

"""Everybody who can vouch for a change, asked in order; one who contradicts is heard before all who speak for it.
Counterpart: `watch` and `check` ask here before a change is told; `model.integrity` says what the answers mean."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from vedette.model.integrity import Change, Verdict, Voucher, Vouching
from vedette.model.protocols import Counter
from vedette.sources.integrity.settings import VouchingSettings
from vedette.sources.integrity.vouch_archive import SignedArchive
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.sources.integrity.vouch_generated import GeneratedVoucher
from vedette.sources.integrity.vouch_initramfs import InitramfsVoucher
from vedette.sources.integrity.vouch_modules import ModulesVoucher
from vedette.sources.integrity.vouch_package import PackageVoucher
from vedette.sources.integrity.vouch_reports import ReportVoucher
from vedette.sources.integrity.vouch_rpm import RpmVoucher
from vedette.sources.integrity.vouch_scripts import ScriptVoucher

_HEARD = (Verdict.CONTRADICTED, Verdict.VOUCHED, Verdict.HINT)


class Unasked(StrEnum):
    """Why a voucher gave no answers."""

    BROKEN = "broken"
    """It failed in a way nobody thought of: its changes stay as loud as without it."""


class Vouchers:
    """Several vouchers as one, from any thread. A contradiction wins; then whoever vouches; then a hint. None = nobody
    knows of it. believed: paths that vouching rests upon, which nothing that rests upon them can vouch for."""

    def __init__(
        self, vouchers: Sequence[Voucher], counter: Counter | None = None, believed: Collection[bytes] = ()
    ) -> None:
        self._vouchers = vouchers
        self._believed = frozenset(believed)
        self._counter = counter
        self._lock = threading.Lock()
        self._lacks: dict[tuple[int, StrEnum], int] = {}

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        with self._lock:
            return self._heard(changes)

    def _heard(self, changes: Sequence[Change]) -> list[Vouching | None]:
        heard: list[Vouching | None] = [None] * len(changes)
        for voucher in self._vouchers:
            try:
                answers = voucher.vouch(changes)
            except Exception:  # noqa: BLE001 (whatever it was, a change that nobody vouches for must be told)
                if self._counter is not None:
                    self._counter.add("vouchers_failed", Unasked.BROKEN)
                continue
            self._count_lacks(voucher)
            for at, answer in enumerate(answers):
                other = heard[at]
                if answer is not None and (other is None or _HEARD.index(answer.verdict) < _HEARD.index(other.verdict)):
                    heard[at] = answer
        for at, change in enumerate(changes):
            answer = heard[at]
            if answer is not None and answer.lowers and change.path in self._believed:
                heard[at] = replace(answer, verdict=Verdict.HINT)
        if self._counter is not None:
            for one in heard:
                self._counter.add("vouched", one.verdict if one is not None else "nobody")
        return heard

    def _count_lacks(self, voucher: Voucher) -> None:
        """What a voucher could not use since it was asked last: `vouching_lacks`, by reason."""
        lacks: dict[StrEnum, int] = getattr(voucher, "lacks", {})
        for why, count in lacks.items():
            counted = self._lacks.get((id(voucher), why), 0)
            if self._counter is not None and count > counted:
                self._counter.add("vouching_lacks", why, n=count - counted)
            self._lacks[id(voucher), why] = count


def vouchers(settings: VouchingSettings | None = None, counter: Counter | None = None) -> Vouchers:
    """Those of this host: packages, generated files, and reports of configuration management where there is a folder.

    A report is of this host when it calls it by one of its names.
    """
    settings = settings or VouchingSettings()
    database = DpkgDatabase(settings.root, settings.dpkg_log)
    packages = PackageVoucher(database, SignedArchive(settings.lists, settings.keyrings), settings.pools)
    rpm_keys = rpm_keys_of(settings)
    asked: list[Voucher] = [
        packages,
        RpmVoucher(settings.root, rpm_keys),
        GeneratedVoucher(database, packages),
        InitramfsVoucher(database),
        ModulesVoucher(database),
        ScriptVoucher(database, packages),
    ]
    if settings.reports is not None:
        asked.append(ReportVoucher(settings.reports, frozenset({socket.gethostname(), socket.getfqdn()})))
    return Vouchers(asked, counter, {os.fsencode(one) for one in (*settings.keyrings, *rpm_keys)})


def rpm_keys_of(settings: VouchingSettings) -> list[Path]:
    """The files with keys whose signature over an rpm counts."""
    return sorted(one for key in settings.rpm_keys for one in settings.root.glob(key.lstrip("/")))

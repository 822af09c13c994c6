"""The lists of kernel modules are explained by making them again: `depmod` over the modules that are there.
Counterpart: the modules themselves are files of packages, or loud; `vouching` asks this after `vouch_generated`."""

# depmod(8), modules.dep(5).
from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vedette.model.integrity import Change, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_dpkg import DpkgDatabase
from vedette.system import exec as programs

GENERATED = "generated"
_NAME = re.compile(r"modules\.(?:(?:alias|dep|symbols|softdep|devname|weakdep)(?:\.bin)?|builtin(?:\.alias)?\.bin)")
_LIST = re.compile(rb"(?:/usr)?/lib/modules/([\w.+~-]+)/(" + _NAME.pattern.encode() + rb")")
_SECONDS = 120.0


class ModulesVoucher:
    """Makes the lists of a version once for all changes that are asked about together."""

    def __init__(self, database: DpkgDatabase) -> None:
        self._database = database

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        answers: list[Vouching | None] = [None] * len(changes)
        asked: dict[str, list[tuple[int, str]]] = {}
        for at, change in enumerate(changes):
            found = _LIST.fullmatch(self._database.inside(change.path) or b"")
            if found is not None and change.after is not None and change.after.type is FileType.FILE:
                asked.setdefault(found[1].decode("ascii", "replace"), []).append((at, found[2].decode()))
        for version, lists in asked.items():
            with suppress(OSError), tempfile.TemporaryDirectory() as folder:
                # Older ones cannot write elsewhere: what they read is linked to where they may write.
                here = Path(folder) / "lib/modules" / version
                here.mkdir(parents=True)
                for one in (self._database.root / "lib/modules" / version).iterdir():
                    if _NAME.fullmatch(one.name) is None:
                        (here / one.name).symlink_to(one)
                if programs.run(["depmod", "-b", folder, version], timeout=_SECONDS).returncode != 0:
                    continue
                for at, name in lists:
                    answers[at] = self._judged(changes[at], Path(folder) / "lib/modules" / version / name)
        return answers

    def _judged(self, change: Change, made: Path) -> Vouching | None:
        assert change.after is not None
        with suppress(OSError):
            with made.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            if digest == change.after.sha256 and not change.after.mode & 0o6022 and not change.after.uid:
                return Vouching(GENERATED, Verdict.VOUCHED, "it is what depmod makes of the modules that are there")
            shown = os.fsdecode(made.name)
            return Vouching(GENERATED, Verdict.HINT, f"depmod makes another {shown} of the modules that are there")
        return None
